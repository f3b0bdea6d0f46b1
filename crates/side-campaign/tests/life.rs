//! The life of campaigns on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "what tests share fails like a test, and takes json!"
)]

#[path = "life/double.rs"]
mod double;
#[path = "life/drafts.rs"]
mod drafts;
#[path = "life/moves.rs"]
mod moves;
#[path = "life/publish.rs"]
mod publish;
#[path = "life/versions.rs"]
mod versions;
