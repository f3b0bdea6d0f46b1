//! What every side service is given: the database, the sealer, the engine's desk, the kinds, who goes by facts.

use std::sync::Arc;

use flash_types::side::SaleDesk;
use jiff::tz::TimeZone;
use side_books::seal::Sealer;
use side_books::sql::Database;

use crate::definition::Reminders;
use crate::fact::React;
use crate::history::HistorySource;
use crate::kind::Kinds;
use crate::notices::Notifier;
use crate::risk::OnVerdict;

/// A shop.
pub struct Shop {
    /// Where everything is stored.
    pub database: Database,
    /// For what must not be read from the database alone.
    pub sealer: Sealer,
    /// The engine.
    pub desk: Arc<dyn SaleDesk>,
    /// Known kinds of campaigns.
    pub kinds: Kinds,
    /// Who goes by facts of orders, in this order.
    pub reactors: Vec<Arc<dyn React>>,
    /// Who goes by verdicts: rewards that wait, or are taken back.
    pub verdict_listeners: Vec<Arc<dyn OnVerdict>>,
    /// What else there is to tell of a buyer's history, beyond what this crate knows itself.
    pub history: Vec<Arc<dyn HistorySource>>,
    /// When those who asked for it are reminded of the start of a sale.
    pub sale_reminders: Reminders,
    /// Where messages to buyers go.
    pub notifier: Arc<dyn Notifier>,
    /// Zone of the shop's days, where no campaign says another.
    pub zone: TimeZone,
}
