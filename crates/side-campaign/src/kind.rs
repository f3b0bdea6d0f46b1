//! What one kind of campaign brings to the common life: the check of its rules, their worst case, what it prepares at
//! publish and does at the end.

use std::sync::Arc;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use side_books::SideError;
use side_books::sql::Tx;
use utoipa::ToSchema;

use crate::definition::Definition;
use crate::draws::Seed;
use crate::life::Campaign;

/// Something in a definition that must be mended, or accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CampaignFinding)]
pub struct Finding {
    /// A word.
    pub code: &'static str,
    /// Where: `rules.stock_units`, `rewards[2].face_minor`.
    pub field: String,
    /// What is wrong and how to mend it.
    pub detail: String,
}

/// One line of a worst case: `count` times `each_minor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorstLine {
    /// What, for people: `coupon 5.00 to each participant`.
    pub what: String,
    /// How often, at most.
    pub count: i64,
    /// What one costs, minor units.
    pub each_minor: i64,
    /// Together.
    pub total_minor: i64,
}

/// The most that a campaign can cost by its rules, spelled out. `None` as a total: nothing bounds it but the budget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorstCase {
    /// Its parts.
    pub lines: Vec<WorstLine>,
    /// What is not bounded by a rule, and so ends with the budget; empty if all is.
    pub unbounded: Vec<String>,
    /// Sum of the lines, minor units.
    pub total_minor: i64,
}

impl WorstCase {
    /// One more line; amounts beyond what an `i64` holds end there, which no budget covers.
    pub fn add(&mut self, what: impl Into<String>, count: i64, each_minor: i64) {
        let total_minor = count.saturating_mul(each_minor);
        self.lines.push(WorstLine {
            what: what.into(),
            count,
            each_minor,
            total_minor,
        });
        self.total_minor = self.total_minor.saturating_add(total_minor);
    }
}

impl Finding {
    /// Something that must be mended.
    pub fn new(code: &'static str, field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            code,
            field: field.into(),
            detail: detail.into(),
        }
    }
}

/// What a kind committed to at publish besides the seed: the root of a deck or split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Commitment {
    /// SHA-256 of what was prepared, hexadecimal; absent where nothing is prepared.
    pub root: Option<String>,
}

/// A kind of campaign.
pub trait CampaignKind: Send + Sync {
    /// `giveaway`, `bargain` …
    fn name(&self) -> &'static str;

    /// Whether no two campaigns of this kind may be open at one time: a second one is not published, unless it begins after
    /// the first one's end.
    fn is_single(&self) -> bool {
        false
    }

    /// Checks `rules` (and `plan_b`, by being called again with it in their place) together with the rest, and finds the
    /// worst case.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    fn check(&self, definition: &Definition) -> Result<WorstCase, Vec<Finding>>;

    /// Whether `rules` may change so while it runs: only a listed set of fields, only for the better of the buyer.
    ///
    /// # Errors
    /// What may not change, or is worse.
    fn improves(&self, from: &Value, to: &Value) -> Result<(), Vec<Finding>>;

    /// Prepares what is fixed at publish, in the publishing transaction.
    ///
    /// # Errors
    /// The database's; a refusal.
    fn prepare<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        seed: &'a Seed,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Commitment, SideError>>;

    /// Makes what was prepared fit a further version, or plan B, in the transaction that puts it in force; its budget is
    /// funded by then.
    ///
    /// # Errors
    /// The database's; a refusal: then the version is not put in force.
    fn adopt<'a>(
        &'a self,
        _tx: &'a mut Tx,
        _campaign: &'a Campaign,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>> {
        Box::pin(async { Ok(()) })
    }

    /// Does a bounded piece of what the end brings (draws, boards, what is void now). `true`: all is done.
    ///
    /// # Errors
    /// The database's: it is tried again.
    fn settle<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        seed: &'a Seed,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<bool, SideError>>;
}

/// The kinds that this program knows.
#[derive(Clone, Default)]
pub struct Kinds(Vec<Arc<dyn CampaignKind>>);

impl Kinds {
    /// With these.
    pub fn new(kinds: Vec<Arc<dyn CampaignKind>>) -> Self {
        Self(kinds)
    }

    /// The kind of that name.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn CampaignKind>> {
        self.0.iter().find(|kind| kind.name() == name)
    }

    /// All names.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|kind| kind.name()).collect()
    }
}
