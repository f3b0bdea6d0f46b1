//! Giveaways on both databases: joining, what runs dry, the draw in pieces that may be lost, the file that proves it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "giveaway/doubles.rs"]
mod doubles;
#[path = "giveaway/drawing.rs"]
mod drawing;
#[path = "giveaway/ending.rs"]
mod ending;
#[path = "giveaway/joining.rs"]
mod joining;
#[path = "giveaway/rules.rs"]
mod rules;
