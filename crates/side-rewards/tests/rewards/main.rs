//! Rewards on both databases.
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail like a test")]

mod audit;
mod common;
mod coupons;
mod frozen;
mod grants;
mod history;
mod prizes;
mod races;
mod tables;
