//! The plainest campaign: who joins is given something at once, and at the end winners are drawn among all who joined.
//!
//! A participant wins at most once in a campaign, whatever the number of streams: tickets are drawn without replacement and
//! streams go on where the one before ended. The order of tickets is that of (time of joining, ticket), published at the end
//! with its root.
// Settling: LIST (tickets in order, root) -> DRAW (streams in the order of the rules) -> DONE; a bounded piece per call.

mod join;
mod kind;
mod proof;
mod queries;
mod reserve;
mod rules;
mod serve;
mod settle;

use std::sync::Arc;

use flash_types::Timestamp;
use flash_types::side::{BoxFuture, SideService};
use side_books::SideError;
use side_books::sql::Tx;
use side_campaign::entry::{self, Entered, Entrant};
use side_campaign::life::Campaign;
use side_campaign::shop::Shop;

use crate::grants::{self, Grant, Granted};

pub use join::{Joined, JoinedReward, join, joined};
pub use kind::{Giveaway, is_dry};
pub use proof::GiveawayProof;
pub use rules::{GiveawayRules, PrizeDraw};
pub use serve::GiveawayService;

/// The list of tickets in proofs.
pub const LIST: &str = "participants";

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(GiveawayService::new(
        Arc::clone(shop),
        Arc::new(House),
    ))]
}

/// Who decides about entry and gives.
pub trait Give: Send + Sync {
    /// As [`entry::enter`].
    ///
    /// # Errors
    /// As [`entry::enter`].
    fn enter<'a>(
        &'a self,
        tx: &'a mut Tx,
        shop: &'a Shop,
        campaign: &'a Campaign,
        entrant: &'a Entrant,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Entered, SideError>>;

    /// As [`grants::grant`].
    ///
    /// # Errors
    /// As [`grants::grant`].
    fn grant<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        grant: &'a Grant<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Granted, SideError>>;
}

/// The house's own ways.
#[derive(Debug, Clone, Copy, Default)]
pub struct House;

impl Give for House {
    fn enter<'a>(
        &'a self,
        tx: &'a mut Tx,
        shop: &'a Shop,
        campaign: &'a Campaign,
        entrant: &'a Entrant,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Entered, SideError>> {
        Box::pin(entry::enter(tx, shop, campaign, entrant, now))
    }

    fn grant<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        grant: &'a Grant<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Granted, SideError>> {
        Box::pin(grants::grant(tx, campaign, grant, now))
    }
}
