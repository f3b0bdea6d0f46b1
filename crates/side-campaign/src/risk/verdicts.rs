//! A verdict from its finding to a person's word, and who is told.

use std::sync::Arc;

use flash_types::side::{BoxFuture, SideProblem};
use flash_types::{BuyerId, Timestamp};
use parking_lot::RwLock;
use serde::Serialize;
use serde_json::Value;
use side_books::sql::{Get as _, Reads, SqlError, Tx, query};
use side_books::{SideError, note};

use super::queries;
use crate::definition::RiskAction;
use crate::entry;
use crate::life::Campaign;

/// What all verdicts of a buyer in a campaign say together; the gravest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing is in the way of rewards.
    Clear,
    /// Rewards wait for a person.
    Review,
    /// No rewards.
    Deny,
}

impl Standing {
    /// As in `participant.verdict`.
    pub fn as_verdict(self) -> Option<&'static str> {
        match self {
            Self::Clear => None,
            Self::Review => Some("REVIEW"),
            Self::Deny => Some("DENY"),
        }
    }
}

/// A person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was wrong: what waits is given, what was taken back is given again.
    Allow,
    /// No rewards.
    Deny,
}

impl Decision {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        }
    }

    /// The decision of that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Allow, Self::Deny]
            .into_iter()
            .find(|decision| decision.as_str() == text)
    }
}

/// How a buyer stands in a campaign after a verdict was found or decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// Of which campaign.
    pub campaign: String,
    /// Who.
    pub buyer: BuyerId,
    /// By all verdicts together.
    pub standing: Standing,
    /// The one that was found or decided.
    pub verdict: String,
    /// Of which rule.
    pub rule: String,
    /// A person said so: absent, a rule did.
    pub decision: Option<Decision>,
    /// What the person wrote; of a rule, its name.
    pub reason: String,
}

/// Something that goes by verdicts: rewards. Told of the standing, not of the change: the same may be told again.
/// Never told of what is found in shadow mode.
pub trait OnVerdict: Send + Sync {
    /// Makes rewards wait, takes them back, or gives them (again).
    ///
    /// # Errors
    /// The database's: the whole transaction is tried again.
    ///
    /// # Cancel safety
    /// The caller's transaction is rolled back.
    fn on_verdict<'a>(
        &'a self,
        tx: &'a mut Tx,
        stands: &'a Stands,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>>;
}

/// Something that a rule found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// A word.
    pub rule: &'static str,
    /// Of whom.
    pub subject: BuyerId,
    /// What it goes by; nothing personal in clear.
    pub evidence: &'a Value,
}

/// Writes a verdict down, once per campaign, rule and buyer, with the action and the mode of the campaign's rules; outside
/// of shadow mode tells who listens. `false`: it was there, and whatever a person said of it stands.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn record(
    tx: &mut Tx,
    listeners: &[Arc<dyn OnVerdict>],
    campaign: &Campaign,
    found: &Found<'_>,
    now: Timestamp,
) -> Result<bool, SideError> {
    entry::hold_entries(tx, &campaign.id).await?;
    record_held(tx, listeners, campaign, found, now).await
}

/// As [`record`], where entries and verdicts of the campaign wait already.
pub(super) async fn record_held(
    tx: &mut Tx,
    listeners: &[Arc<dyn OnVerdict>],
    campaign: &Campaign,
    found: &Found<'_>,
    now: Timestamp,
) -> Result<bool, SideError> {
    let rules = &campaign.definition.risk;
    let verdict = match rules.action {
        RiskAction::Review => "REVIEW",
        RiskAction::Deny => "DENY",
    };
    let insert = query(queries::INSERT_VERDICT)
        .bind(side_books::id::fresh("v", now))
        .bind(campaign.id.clone())
        .bind(found.rule)
        .bind(found.subject.as_str().to_owned())
        .bind(verdict)
        .bind(i64::from(rules.is_shadow))
        .bind(found.evidence.to_string())
        .bind(now.0);
    let Some(row) = tx.row(insert).await? else {
        return Ok(false);
    };
    if !rules.is_shadow {
        let stands = Stands {
            campaign: campaign.id.clone(),
            buyer: found.subject,
            standing: standing(tx, &campaign.id, found.subject).await?,
            verdict: row.text("id")?,
            rule: found.rule.to_owned(),
            decision: None,
            reason: found.rule.to_owned(),
        };
        tell(tx, listeners, &stands, now).await?;
    }
    Ok(true)
}

/// What all verdicts of a buyer in a campaign say together.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn standing(
    reads: &mut impl Reads,
    campaign: &str,
    buyer: BuyerId,
) -> Result<Standing, SideError> {
    let select = query(queries::STANDING)
        .bind(buyer.as_str().to_owned())
        .bind(campaign.to_owned());
    let row = reads.row(select).await?.ok_or(SqlError::Conflict)?;
    Ok(match row.int("standing")? {
        0 => Standing::Clear,
        1 => Standing::Review,
        _ => Standing::Deny,
    })
}

/// Keeps the cache of a participant.
pub(super) async fn keep_standing(
    tx: &mut Tx,
    campaign: &str,
    buyer: BuyerId,
    standing: Standing,
) -> Result<(), SideError> {
    let update = query(queries::SET_PARTICIPANT)
        .bind(standing.as_verdict().map(str::to_owned))
        .bind(campaign.to_owned())
        .bind(buyer.as_str().to_owned());
    tx.execute(update).await?;
    Ok(())
}

async fn tell(
    tx: &mut Tx,
    listeners: &[Arc<dyn OnVerdict>],
    stands: &Stands,
    now: Timestamp,
) -> Result<(), SideError> {
    keep_standing(tx, &stands.campaign, stands.buyer, stands.standing).await?;
    for listener in listeners {
        listener.on_verdict(tx, stands, now).await?;
    }
    Ok(())
}

/// What a reviewer says of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decide<'a> {
    /// Of which.
    pub verdict: &'a str,
    /// What.
    pub decision: Decision,
    /// The decision that it corrects; `None` where there is none yet.
    pub replaces: Option<Decision>,
    /// Why, for people.
    pub reason: &'a str,
    /// Who.
    pub who: &'a str,
}

/// A verdict after a person's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Of which campaign.
    pub campaign: String,
    /// Of whom.
    pub buyer: BuyerId,
    /// How the buyer stands by all verdicts.
    pub standing: Standing,
    /// It was found in shadow mode: the decision is kept and changes nothing.
    pub is_shadow: bool,
}

/// Why a verdict is not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RiskRefusal {
    /// There is none of that id.
    NoSuchVerdict,
    /// Another decision stands than the one to be replaced.
    AlreadyDecided,
}

impl From<RiskRefusal> for SideProblem {
    fn from(refusal: RiskRefusal) -> Self {
        match refusal {
            RiskRefusal::NoSuchVerdict => Self::not_found("verdict"),
            RiskRefusal::AlreadyDecided => Self::new(
                409,
                "state_conflict",
                "another decision stands: read the verdict, and name what you correct in replaces",
            ),
        }
    }
}

impl From<RiskRefusal> for SideError {
    fn from(refusal: RiskRefusal) -> Self {
        SideProblem::from(refusal).into()
    }
}

/// Writes a person's word down, tells who listens, and notes it in the audit log. Of two at once one wins.
///
/// # Errors
/// [`RiskRefusal`]; the database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn decide(
    tx: &mut Tx,
    listeners: &[Arc<dyn OnVerdict>],
    decide: &Decide<'_>,
    now: Timestamp,
) -> Result<Decided, SideError> {
    let select = query(queries::FIND_VERDICT).bind(decide.verdict.to_owned());
    let row = tx.row(select).await?.ok_or(RiskRefusal::NoSuchVerdict);
    let row = row.map_err(SideError::from)?;
    let (campaign, rule) = (row.text("campaign")?, row.text("rule")?);
    let buyer = parse_buyer(&row.text("subject")?)?;
    entry::hold_entries(tx, &campaign).await?;
    let update = query(queries::DECIDE)
        .bind(decide.decision.as_str())
        .bind(decide.who.to_owned())
        .bind(now.0)
        .bind(decide.reason.to_owned())
        .bind(decide.verdict.to_owned())
        .bind(decide.replaces.map_or("", Decision::as_str));
    if tx.execute(update).await? == 0 {
        return Err(RiskRefusal::AlreadyDecided.into());
    }
    let insert = query(queries::INSERT_DECISION)
        .bind(decide.verdict.to_owned())
        .bind(buyer.as_str().to_owned())
        .bind(campaign.clone())
        .bind(rule.clone())
        .bind(decide.decision.as_str())
        .bind(decide.reason.to_owned())
        .bind(decide.who.to_owned())
        .bind(now.0);
    tx.execute(insert).await?;
    let note = note::Note {
        who: decide.who,
        what: "verdict.decide",
        campaign: Some(&campaign),
        subject: Some(decide.verdict),
        detail: &format!("{rule} of {}: {}", buyer.as_str(), decide.decision.as_str()),
    };
    note::write(tx, &note, now).await?;
    // Read after the entries are held: it may have left shadow mode since it was looked up.
    let select = query(queries::FIND_VERDICT).bind(decide.verdict.to_owned());
    let is_shadow = tx
        .row(select)
        .await?
        .ok_or(SqlError::Conflict)?
        .is("is_shadow")?;
    let stands = Stands {
        standing: standing(tx, &campaign, buyer).await?,
        campaign,
        buyer,
        verdict: decide.verdict.to_owned(),
        rule,
        decision: Some(decide.decision),
        reason: decide.reason.to_owned(),
    };
    if !is_shadow {
        tell(tx, listeners, &stands, now).await?;
    }
    Ok(Decided {
        campaign: stands.campaign,
        buyer,
        standing: stands.standing,
        is_shadow,
    })
}

pub(super) fn parse_buyer(text: &str) -> Result<BuyerId, SqlError> {
    BuyerId::parse(text).map_err(|bad| SqlError::Broken(format!("a stored buyer {bad}")))
}

/// How many verdicts of a rule stand so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerdictCount {
    /// The rule.
    pub rule: String,
    /// In shadow mode.
    pub is_shadow: bool,
    /// `ALLOW`, `REVIEW` or `DENY`.
    pub stands: String,
    /// How many.
    pub verdicts: i64,
}

/// Counts all verdicts.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn counts(reads: &mut impl Reads) -> Result<Vec<VerdictCount>, SideError> {
    let rows = reads.rows(query(queries::COUNT_VERDICTS)).await?;
    let counts = rows.iter().map(|row| {
        Ok(VerdictCount {
            rule: row.text("rule")?,
            is_shadow: row.is("is_shadow")?,
            stands: row.text("stands")?,
            verdicts: row.int("verdicts")?,
        })
    });
    counts.collect()
}

static LATEST: RwLock<Vec<VerdictCount>> = RwLock::new(Vec::new());

/// What the last look of this process counted, for metrics; never waits for the database.
pub fn latest_counts() -> Vec<VerdictCount> {
    LATEST.read().clone()
}

pub(super) fn publish(counts: Vec<VerdictCount>) {
    *LATEST.write() = counts;
}
