//! The life of campaigns on both databases.

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
