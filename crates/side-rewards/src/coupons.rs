//! Coupons: issued for a grant, locked by an order, used up by it.
//!
//! Owns: `coupon`. The rules are in [`model`], which knows no database; [`rows`] gives a transaction a row to itself, asks
//! the rules and writes what they say. Whether a coupon is valid is found at the moment of use; [`tidy`] only brings the
//! budget of those that are over back.

pub mod model;
mod queries;
mod refusal;
mod rows;
mod service;
mod tidy;
mod view;

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::step::Step;
use side_campaign::shop::Shop;

pub(crate) use rows::{Issue, issue, withdraw};
pub use rows::{lock, unlock, use_up};
pub use view::CouponView;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(service::Coupons::new(shop.clone()))]
}

/// What goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    vec![Arc::new(tidy::Tidy::new(shop.clone()))]
}
