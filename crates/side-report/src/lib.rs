//! What is told of campaigns: daily reports that are versioned and recomputed ([`daily`]), and one buyer's whole history
//! ([`support`]).

pub mod daily;
pub mod support;

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::sql::Migration;
use side_books::step::Step;
use side_campaign::shop::Shop;

/// Tables of this crate.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "report-1",
    sql: include_str!("../queries/report_1.sql"),
}];

/// Everything that answers requests.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    [daily::services(shop), support::services(shop)]
        .into_iter()
        .flatten()
        .collect()
}

/// Everything that goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    daily::steps(shop)
}
