//! Draws: their numbers, their records on both databases, the file that proves them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "draws/numbers.rs"]
mod numbers;
#[path = "draws/records.rs"]
mod records;
