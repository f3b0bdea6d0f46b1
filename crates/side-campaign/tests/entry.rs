//! Who takes part, what rules find, on both databases.

#[path = "entry/enter.rs"]
mod enter;
#[path = "entry/lists.rs"]
mod lists;
#[path = "entry/stand.rs"]
mod stand;
#[path = "entry/verdicts.rs"]
mod verdicts;
