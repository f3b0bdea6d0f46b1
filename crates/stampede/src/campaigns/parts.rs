//! What the campaigns are made of, in one place: tables, kinds, who goes by facts, services, steps.

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::sql::Migration;
use side_books::step::Step;
use side_campaign::fact::React;
use side_campaign::kind::Kinds;
use side_campaign::shop::Shop;

use super::standing::Standing;

/// Tables, in the order in which they are made.
pub(super) fn migrations() -> Vec<Migration> {
    [
        side_books::MIGRATIONS,
        side_campaign::MIGRATIONS,
        side_rewards::MIGRATIONS,
        side_report::MIGRATIONS,
    ]
    .concat()
}

/// Kinds of campaigns.
pub(super) fn kinds() -> Kinds {
    Kinds::new(Vec::new())
}

/// Who goes by facts of orders, in this order.
pub(super) fn reactors() -> Vec<Arc<dyn React>> {
    Vec::new()
}

/// Everything that answers requests.
pub(super) fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    let mut services: Vec<Arc<dyn SideService>> = vec![Arc::new(Standing::new(shop))];
    services.extend(side_campaign::services(shop));
    services.extend(side_rewards::services(shop));
    services.extend(side_report::services(shop));
    services
}

/// Everything that goes on by itself.
pub(super) fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    let mut steps = side_campaign::steps(shop);
    steps.extend(side_rewards::steps(shop));
    steps.extend(side_report::steps(shop));
    steps
}
