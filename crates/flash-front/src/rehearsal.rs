//! What a rehearsal is asked for, and what it reports: a sale's rules run against a copy, with buyers who are none.

use flash_types::SaleDefinition;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A rehearsal as it was asked for.
#[derive(Debug, Clone)]
pub struct RehearsalPlan {
    /// The sale; its times are moved and compressed in the copy.
    pub definition: SaleDefinition,
    /// How many buyers come; where absent what the sale expects, else twenty for each unit.
    pub buyers: Option<u32>,
    /// How long the sale lasts in the copy.
    pub seconds: Option<u32>,
}

/// What would happen, and whether this machine holds the crowd.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RehearsalReport {
    /// The sale.
    pub sale_id: String,
    /// The machine answered the whole crowd in time.
    pub holds: bool,
    /// Why, or why not.
    pub reason: String,
    /// Buyers who came.
    pub buyers: u64,
    /// Of these, who got something.
    pub buyers_served: u64,
    /// Seconds that the sale lasted in the copy.
    pub seconds: u32,
    /// Purchases that the buyers sent.
    pub attempts: u64,
    /// Refusals and failures by outcome.
    pub refused: std::collections::BTreeMap<String, u64>,
    /// Calls of buyers and storefront that were answered.
    pub answered: u64,
    /// Of these, within the request deadline.
    pub answered_in_time: u64,
    /// Calls that got no answer.
    pub unanswered: u64,
    /// The request deadline, milliseconds.
    pub deadline_ms: u64,
    /// Calls per second, busiest second.
    pub peak_per_s: u64,
    /// Calls per second, mean.
    pub mean_per_s: f64,
    /// Half of the answers took at most so long, milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took at most so long, milliseconds.
    pub p99_ms: f64,
    /// What became of each item.
    pub items: Vec<RehearsedItem>,
    /// What the merchant should know of the rules, one sentence each.
    pub findings: Vec<String>,
    /// The disk whose flushes were measured: where the copy was.
    pub disk: String,
}

/// One item in a rehearsal.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RehearsedItem {
    /// Its name.
    pub item: String,
    /// Units there were.
    pub stock_units: u64,
    /// Units paid.
    pub sold_units: u64,
    /// Units that nobody has in the end.
    pub left_units: u64,
    /// From the opening until no unit was available for the first time, milliseconds of the copy's time.
    #[schema(required)]
    pub sold_out_after_ms: Option<u64>,
}
