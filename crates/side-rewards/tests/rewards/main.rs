//! Rewards on both databases.

mod audit;
mod common;
mod coupons;
mod grants;
mod history;
mod prizes;
mod races;
