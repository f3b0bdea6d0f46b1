//! Who takes part, what rules find, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test stands on fails like a test"
)]

#[path = "entry/enter.rs"]
mod enter;
#[path = "entry/lists.rs"]
mod lists;
#[path = "entry/stand.rs"]
mod stand;
#[path = "entry/verdicts.rs"]
mod verdicts;
