//! What requests ask for that is not the engine's: done by whoever wires the process, called by the admin port.
//!
//! Each is a trait of its own; one that is not there answers 404, as if its paths did not exist.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use flash_types::side::{SideAnswer, SideEndpoint, SideProblem, SideRequest};
use flash_types::{Refusal, SaleId, Timestamp};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use crate::rehearsal::{RehearsalPlan, RehearsalReport};

/// What there is. Cloned into every thread of the front.
#[derive(Clone, Default)]
pub struct Services {
    /// Who posts events.
    pub webhooks: Option<Arc<dyn Webhooks>>,
    /// Plays sales against a copy.
    pub rehearsals: Option<Arc<dyn Rehearsals>>,
    /// Makes reports of sales.
    pub reports: Option<Arc<dyn Reports>>,
    /// What stands beside the purchase path.
    pub side: Option<Arc<dyn SideDoor>>,
}

/// The door to all side services: one merged table, and somebody who answers on threads of its own.
pub trait SideDoor: Send + Sync {
    /// Every endpoint of every service; [`SideRequest::endpoint`] is a place in this list, which never changes.
    fn endpoints(&self) -> Vec<&'static SideEndpoint>;

    /// Schemas that the endpoints name, as OpenAPI 3.1 wants them.
    fn schemas(&self) -> Vec<(&'static str, Value)>;

    /// Answers a request, within a bound. It runs outside of the caller's thread.
    ///
    /// # Cancel safety
    /// What was taken goes on without its caller.
    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>>;

    /// What operators should know while the purchase path is well: told by `/readyz`.
    fn notes(&self) -> Vec<String>;
}

/// The relay of events to webhooks.
pub trait Webhooks: Send + Sync {
    /// Every configured webhook.
    fn list(&self) -> Vec<WebhookView>;

    /// Events that were given up, of all webhooks, ascending by number, only those after `after`.
    ///
    /// # Errors
    /// [`WebhookRefusal::Unavailable`].
    fn dead(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetterView>, WebhookRefusal>>;

    /// Delivers an event again, to one webhook or to all that want it; gives their names.
    ///
    /// # Errors
    /// [`WebhookRefusal`].
    fn redeliver(
        &self,
        event_id: String,
        webhook: Option<String>,
    ) -> BoxFuture<'_, Result<Vec<String>, WebhookRefusal>>;
}

/// Why an event is not delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookRefusal {
    /// No such event, no such webhook, or it does not want the event.
    NotFound,
    /// It takes nothing more now; why.
    Busy(String),
    /// Events cannot be read now.
    Unavailable,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WebhookView {
    /// Its name.
    pub name: String,
    /// Where to; without the query.
    pub url: String,
    /// `ok`, `failing` (the last delivery), `down` (the last ones, of several events) or `stopped`.
    pub state: &'static str,
    /// Events read and not yet delivered or set aside; there may be more in the store.
    pub waiting_events: usize,
    /// Events set aside, since one of their reservation failed.
    pub parked_events: usize,
    /// Events given up.
    pub dead_letters: usize,
    /// When the oldest event happened that was not delivered.
    pub oldest_at: Option<Timestamp>,
    /// When a delivery was last acknowledged, since the start.
    pub last_success_at: Option<Timestamp>,
    /// When one last failed, since the start.
    pub last_error_at: Option<Timestamp>,
    /// Why it did; of a stopped one, why it stopped.
    pub last_error: Option<String>,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterView {
    /// Ascending; cursor of the list.
    pub number: u64,
    /// Which event.
    pub event_id: String,
    /// Whose target did not take it.
    pub webhook: String,
    /// When it happened.
    pub at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// Why the last attempt failed.
    pub last_error: String,
}

/// A rehearsal that runs: its report, or why there is none.
pub type Rehearsing = Pin<Box<dyn Future<Output = Result<RehearsalReport, String>> + Send>>;

/// Plays sales against a copy, one at a time.
pub trait Rehearsals: Send + Sync {
    /// Begins one. It runs outside of the caller's thread.
    ///
    /// # Errors
    /// Why it cannot begin: another one runs.
    ///
    /// # Cancel safety
    /// Dropping what it gives ends the rehearsal and leaves nothing behind.
    fn begin(&self, plan: RehearsalPlan) -> Result<Rehearsing, String>;
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// The contract's JSON.
    Json,
    /// One figure a row.
    Csv,
}

/// Makes reports of sales, few at a time.
pub trait Reports: Send + Sync {
    /// Makes one and writes it. It runs outside of the caller's thread.
    ///
    /// # Errors
    /// `not_found`; `overloaded` where others are being made, or it takes too long; `store_unavailable`.
    ///
    /// # Cancel safety
    /// Dropping it ends the reading soon after.
    fn report(
        &self,
        sale_id: SaleId,
        format: ReportFormat,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>>;
}
