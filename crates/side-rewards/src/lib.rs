//! What campaigns give: grants that hold budget and are unique per source ([`grants`]), coupons ([`coupons`]), prizes with
//! stock that are claimed and shipped ([`prizes`]); and the plainest campaign there is, the giveaway ([`giveaway`]).

pub mod audit;
pub mod coupons;
pub mod giveaway;
pub mod grants;
mod input;
pub mod prizes;

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::sql::Migration;
use side_books::step::Step;
use side_campaign::shop::Shop;

/// Tables of this crate.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "rewards-1",
        sql: include_str!("../queries/rewards_1.sql"),
    },
    Migration {
        name: "giveaway-1",
        sql: include_str!("../queries/giveaway_1.sql"),
    },
];

/// Everything that answers requests.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    let services = [
        grants::services(shop),
        coupons::services(shop),
        prizes::services(shop),
        giveaway::services(shop),
    ];
    services.into_iter().flatten().collect()
}

/// Everything that goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    let steps = [
        coupons::steps(shop),
        prizes::steps(shop),
        grants::steps(shop),
    ];
    steps.into_iter().flatten().collect()
}
