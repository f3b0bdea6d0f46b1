//! Draws: their numbers, their records on both databases, the file that proves them.

#[path = "draws/numbers.rs"]
mod numbers;
#[path = "draws/records.rs"]
mod records;
