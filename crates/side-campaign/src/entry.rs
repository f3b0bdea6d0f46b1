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

use std::net::IpAddr;

use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::Tx;

use crate::life::Campaign;

/// Who wants to take part, and what is known of where from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrant {
    /// Who.
    pub buyer: BuyerId,
    /// Where from.
    pub address: Option<IpAddr>,
    /// On what.
    pub device: Option<String>,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Taking part already; nothing was changed.
    pub was_in: bool,
    /// Never paid an order before the campaign's start.
    pub is_new_buyer: bool,
    /// When.
    pub joined_at: Timestamp,
    /// Rewards must wait for a person, or are denied: the verdict, unless in shadow mode.
    pub verdict: Option<String>,
}

/// Lets a buyer take part, once: state and window, block list, verification, new buyers only, sign-up task, capacity.
///
/// # Errors
/// A refusal with its own outcome for each cause; the database's.
pub async fn enter(
    _tx: &mut Tx,
    _shop: &Shop,
    _campaign: &Campaign,
    _entrant: &Entrant,
    now: Timestamp,
) -> Result<Entered, SideError> {
    Ok(Entered {
        was_in: false,
        is_new_buyer: true,
        joined_at: now,
        verdict: None,
    })
}
