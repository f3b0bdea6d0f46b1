//! Prizes: drawn or given, claimed with an address, shipped, received.
//!
//! Owns: `prize`. The rules are in [`model`]; [`rows`] gives a transaction a row to itself and writes what they say. An
//! address is sealed, shown to a merchant who is written down for it, and erased by itself ([`due`]).

mod due;
pub mod model;
mod queries;
mod refusal;
mod rows;
mod service;
mod view;

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::step::Step;
use side_campaign::shop::Shop;

pub use rows::{Claim, address, claim, erase_address, receive, set_rank, ship};
pub(crate) use rows::{issue, withdraw};
pub use view::PrizeView;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(service::Prizes::new(shop.clone()))]
}

/// What goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    vec![
        Arc::new(due::Unclaimed::new(shop.clone())),
        Arc::new(due::Addresses::new(shop.clone())),
    ]
}
