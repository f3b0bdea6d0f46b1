//! TODO-OWNER

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::step::Step;

use side_campaign::shop::Shop;

/// Its endpoints.
pub fn services(_shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    Vec::new()
}

/// What goes on by itself.
pub fn steps(_shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    Vec::new()
}
