//! Changes of state: by hand, and those that time brings.

use flash_types::Timestamp;
use flash_types::side::{SideProblem, SideRequest};
use serde::Deserialize;
use side_books::books::{Leg, Transfer, balance, transfer};
use side_books::sql::{Get as _, Reads as _, Tx, query};
use side_books::{SideError, budget, note, wire};
use utoipa::ToSchema;

use super::publish::{need, read_or_default};
use super::refusal::Refusal;
use super::store::{Act, go, lock};
use super::{Campaign, queries};
use crate::state::State;

/// Longest reason, bytes.
pub(super) const REASON_BYTES_MAX: usize = 500;
/// Promises that are taken back by one statement's page.
const HOLDS_PER_PAGE: i64 = 200;

/// Body of a move by hand.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CampaignMoveBody {
    /// Why; kept in the audit log.
    pub(super) reason: Option<String>,
}

/// A move that an admin makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByHand {
    Pause,
    Resume,
    End,
    Settle,
    Cancel,
    Archive,
}

impl ByHand {
    fn note(self) -> &'static str {
        match self {
            Self::Pause => "campaign.pause",
            Self::Resume => "campaign.resume",
            Self::End => "campaign.end",
            Self::Settle => "campaign.settle",
            Self::Cancel => "campaign.cancel",
            Self::Archive => "campaign.archive",
        }
    }

    /// From where, and in words.
    fn from(self) -> (&'static [State], &'static str) {
        match self {
            Self::Pause => (&[State::Warmup, State::Running], "WARMUP or RUNNING"),
            Self::Resume => (&[State::Paused], "PAUSED"),
            Self::End => (
                &[State::Warmup, State::Running, State::Paused],
                "WARMUP, RUNNING or PAUSED (what was only PUBLISHED is cancelled)",
            ),
            Self::Settle => (&[State::Ended], "ENDED"),
            Self::Cancel => (&[State::Draft, State::Published], "DRAFT or PUBLISHED"),
            Self::Archive => (&[State::Settled], "SETTLED"),
        }
    }

    fn to(self, campaign: &Campaign, now: Timestamp) -> State {
        match self {
            Self::Pause => State::Paused,
            Self::Resume if campaign.definition.starts_at > now => State::Warmup,
            Self::Resume => State::Running,
            Self::End => State::Ended,
            Self::Settle => State::Settling,
            Self::Cancel => State::Cancelled,
            Self::Archive => State::Archived,
        }
    }
}

/// Moves by hand.
pub(super) async fn by_hand(
    tx: &mut Tx,
    request: &SideRequest,
    verb: ByHand,
) -> Result<(), SideError> {
    let body: CampaignMoveBody = read_or_default(request)?;
    let reason = body.reason.unwrap_or_default();
    if !reason.is_empty() {
        check_reason(&reason)?;
    }
    let (id, now) = (&request.path[0], request.now);
    let mut campaign = lock(tx, id).await?.ok_or(Refusal::NotFound)?.campaign;
    let was_published = campaign.state != State::Draft;
    // What time brought counts first: nobody pauses what has ended a moment ago.
    by_time(tx, &mut campaign, now).await?;
    let (from, wanted) = verb.from();
    need(campaign.state, from, wanted)?;
    let act = Act {
        who: wire::who(request),
        reason: &reason,
        now,
    };
    if verb == ByHand::Cancel {
        let given = query(queries::HAS_GIVEN).bind(id.clone());
        if tx.row(given).await?.is_some() {
            return Err(Refusal::HasGiven.into());
        }
    }
    let to = verb.to(&campaign, now);
    go(tx, &mut campaign, to, act).await?;
    if verb == ByHand::Cancel && was_published {
        take_back(tx, &campaign, now).await?;
    }
    let note = note::Note {
        who: act.who,
        what: verb.note(),
        campaign: Some(id),
        subject: None,
        detail: &reason,
    };
    note::write(tx, &note, now).await
}

/// Makes every move that is due, one after the other, but for the settling itself.
pub(super) async fn by_time(
    tx: &mut Tx,
    campaign: &mut Campaign,
    now: Timestamp,
) -> Result<(), SideError> {
    while let Some(to) = due(campaign, now) {
        let act = Act {
            who: "system",
            reason: "due",
            now,
        };
        go(tx, campaign, to, act).await?;
    }
    Ok(())
}

/// The next move that time brings.
fn due(campaign: &Campaign, now: Timestamp) -> Option<State> {
    let plan = &campaign.definition;
    match campaign.state {
        State::Published if plan.warmup_at.is_some_and(|at| at <= now) => Some(State::Warmup),
        State::Published | State::Warmup if plan.starts_at <= now => Some(State::Running),
        State::Running | State::Paused if plan.ends_at <= now => Some(State::Ended),
        State::Published
        | State::Warmup
        | State::Running
        | State::Paused
        // The step sees to what comes after the end, so that an end by hand can be told from a settling by hand.
        | State::Ended
        | State::Settling
        | State::Draft
        | State::Settled
        | State::Archived
        | State::Cancelled => None,
    }
}

/// Gives the budget of a campaign that never ran back to where it came from.
async fn take_back(tx: &mut Tx, campaign: &Campaign, now: Timestamp) -> Result<(), SideError> {
    loop {
        let select = query(queries::OPEN_HOLDS)
            .bind(campaign.id.clone())
            .bind(HOLDS_PER_PAGE);
        let open = tx.rows(select).await?;
        if open.is_empty() {
            break;
        }
        for row in &open {
            budget::void(tx, &row.text("key")?, now).await?;
        }
    }
    let available = budget::account(&campaign.id, "available");
    let rest = balance(tx, &available).await?.unwrap_or(0);
    if rest == 0 {
        return Ok(());
    }
    let world = format!("world:{}", campaign.definition.currency.as_str());
    let legs = [
        Leg {
            account: &available,
            delta: -rest,
        },
        Leg {
            account: &world,
            delta: rest,
        },
    ];
    let key = format!("return|{}", campaign.id);
    let back = Transfer {
        key: &key,
        kind: "return",
        legs: &legs,
        reverses: None,
        rule_snapshot: None,
        at: now,
    };
    transfer(tx, &back).await?;
    Ok(())
}

/// A reason that is told to people.
pub(super) fn check_reason(reason: &str) -> Result<(), SideProblem> {
    let is_good = !reason.trim().is_empty()
        && reason.len() <= REASON_BYTES_MAX
        && !reason.chars().any(char::is_control);
    if is_good {
        Ok(())
    } else {
        Err(SideProblem::malformed(format!(
            "reason must be 1-{REASON_BYTES_MAX} bytes without control characters"
        )))
    }
}
