//! TODO-OWNER

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::step::Step;

use crate::shop::Shop;

/// Its endpoints.
pub fn services(_shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    Vec::new()
}

/// What goes on by itself.
pub fn steps(_shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    Vec::new()
}

/// The secret of a campaign's draws: 32 random bytes, committed to at publish by their SHA-256, revealed at the end.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}
