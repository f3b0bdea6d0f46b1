//! Changes after publish: only for the better of buyers, each a new version with its own hash; plan B, which was prepared and
//! committed to at publish; money added to a budget.

use std::sync::Arc;

use flash_types::side::{SideProblem, SideRequest};
use serde::Deserialize;
use serde_json::{Map, Value};
use side_books::sql::{SqlError, Tx, query};
use side_books::{SideError, budget, note, wire};
use utoipa::ToSchema;

use super::moves::{by_time, check_reason};
use super::publish::{alone, fund, need};
use super::refusal::Refusal;
use super::store::{Act, lock, put_version};
use super::{queries, solvency};
use crate::definition::{AMOUNT_MINOR_MAX, Definition};
use crate::kind::{CampaignKind, Finding};
use crate::reward::{RewardKind, RewardRule};
use crate::shop::Shop;
use crate::state::State;

/// Where rules may change.
const OPEN: &[State] = &[
    State::Published,
    State::Warmup,
    State::Running,
    State::Paused,
];
const OPEN_WORDS: &str = "PUBLISHED, WARMUP, RUNNING or PAUSED";
/// Fields of the common part that may change for the better; all others stay as they were published.
const CHANGEABLE: [&str; 7] = [
    "title",
    "ends_at",
    "budget_minor",
    "eligibility",
    "reminders",
    "rewards",
    "rules",
];

/// Body of plan B.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanBBody {
    /// Why; told in the list of versions.
    pub(super) reason: String,
}

/// Body of an addition to a budget.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CampaignBudgetBody {
    /// Minor units, more than 0.
    pub(super) add_minor: i64,
    /// Why; kept in the audit log.
    pub(super) reason: String,
}

/// What a version changes: fields of the definition, each as a whole; of `eligibility` and `reminders` only the members
/// that are named, `null` to remove one.
struct Change {
    fields: Map<String, Value>,
    reason: String,
    accept: Vec<String>,
}

impl Change {
    fn read(request: &SideRequest) -> Result<Self, SideError> {
        let mut fields: Map<String, Value> = wire::body(request)?;
        let reason = fields.remove("reason");
        let reason = reason.as_ref().and_then(Value::as_str).unwrap_or_default();
        check_reason(reason)?;
        let accept = fields
            .remove("accept")
            .unwrap_or_else(|| Value::Array(Vec::new()));
        let accept = serde_json::from_value(accept)
            .map_err(|error| SideProblem::malformed(format!("accept: {error}")))?;
        Ok(Self {
            fields,
            reason: reason.to_owned(),
            accept,
        })
    }

    fn applied_to(&self, old: &Definition) -> Result<Definition, SideError> {
        let whole =
            serde_json::to_value(old).map_err(|error| SqlError::Broken(error.to_string()))?;
        let mut whole = match whole {
            Value::Object(whole) => whole,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        };
        for (name, value) in &self.fields {
            let is_merged = matches!(name.as_str(), "eligibility" | "reminders");
            match (whole.get_mut(name).and_then(Value::as_object_mut), value) {
                (Some(old), Value::Object(new)) if is_merged => {
                    for (member, value) in new {
                        if value.is_null() {
                            old.remove(member);
                        } else {
                            old.insert(member.clone(), value.clone());
                        }
                    }
                }
                (_, value) => {
                    whole.insert(name.clone(), value.clone());
                }
            }
        }
        let read = serde_json::from_value(Value::Object(whole));
        Ok(read.map_err(|error| SideProblem::malformed(format!("the body: {error}")))?)
    }
}

/// A further version.
pub(super) async fn change(
    tx: &mut Tx,
    shop: &Shop,
    request: &SideRequest,
) -> Result<(), SideError> {
    let change = Change::read(request)?;
    let (id, now) = (&request.path[0], request.now);
    let mut locked = lock(tx, id).await?.ok_or(Refusal::NotFound)?;
    by_time(tx, &mut locked.campaign, now).await?;
    need(locked.campaign.state, OPEN, OPEN_WORDS)?;
    let old = locked.campaign.definition.clone();
    let new = change.applied_to(&old)?;
    if new == old {
        return Err(Refusal::NoChange.into());
    }
    let kind = known(shop, &old.kind)?;
    let worse = worse(kind.as_ref(), &old, &new);
    if !worse.is_empty() {
        return Err(Refusal::NotBetter(worse).into());
    }
    let worst = solvency::check(&shop.kinds, &new)?;
    let more_minor = new.budget_minor - old.budget_minor;
    // What was covered or accepted before is not asked again.
    let is_asked = solvency::check(&shop.kinds, &old).ok().as_ref() != Some(&worst);
    let accepted = if is_asked {
        // What was added to the budget since counts as well.
        let stands = budget::read(tx, id).await?.unwrap_or_default();
        let cap_minor = stands.cap_minor.saturating_add(more_minor);
        solvency::cover(&worst, cap_minor, &change.accept)?
    } else {
        Vec::new()
    };
    if new.ends_at != old.ends_at {
        alone(tx, shop, &new).await?;
    }
    let act = Act {
        who: wire::who(request),
        reason: &change.reason,
        now,
    };
    let seed = locked.seed(shop)?;
    put_version(tx, &mut locked.campaign, new, &worst, &seed, act).await?;
    fund(tx, &locked.campaign, more_minor, act).await?;
    kind.adopt(tx, &locked.campaign, now).await?;
    let named: Vec<&str> = change.fields.keys().map(String::as_str).collect();
    let mut detail = format!(
        "version {}, {}: {}",
        locked.campaign.version,
        named.join(", "),
        change.reason
    );
    for accepted in accepted {
        detail.push_str("; ");
        detail.push_str(&accepted);
    }
    write_note(tx, request, "campaign.version", &detail).await
}

fn known<'a>(shop: &'a Shop, kind: &str) -> Result<&'a Arc<dyn CampaignKind>, SqlError> {
    let broken = || SqlError::Broken(format!("no kind {kind} is known"));
    shop.kinds.find(kind).ok_or_else(broken)
}

/// Switches plan B on, once. It need not be better: it was committed to before the start.
pub(super) async fn plan_b(
    tx: &mut Tx,
    shop: &Shop,
    request: &SideRequest,
) -> Result<(), SideError> {
    let body: PlanBBody = wire::body(request)?;
    check_reason(&body.reason)?;
    let (id, now) = (&request.path[0], request.now);
    let mut locked = lock(tx, id).await?.ok_or(Refusal::NotFound)?;
    by_time(tx, &mut locked.campaign, now).await?;
    need(locked.campaign.state, OPEN, OPEN_WORDS)?;
    let mut new = locked.campaign.definition.clone();
    new.rules = new.plan_b.clone().ok_or(Refusal::NoPlanB)?;
    let once = query(queries::SET_PLAN_B).bind(now.0).bind(id.clone());
    if tx.execute(once).await? == 0 {
        return Err(Refusal::PlanBIsOn.into());
    }
    // Covered at publish, or accepted then.
    let worst = solvency::check(&shop.kinds, &new)?;
    let kind = known(shop, &new.kind)?;
    let act = Act {
        who: wire::who(request),
        reason: &body.reason,
        now,
    };
    let seed = locked.seed(shop)?;
    put_version(tx, &mut locked.campaign, new, &worst, &seed, act).await?;
    kind.adopt(tx, &locked.campaign, now).await?;
    let detail = format!("version {}: {}", locked.campaign.version, body.reason);
    write_note(tx, request, "campaign.plan_b", &detail).await
}

/// Adds to a budget, without a new version: no rule changes.
pub(super) async fn add_to_budget(tx: &mut Tx, request: &SideRequest) -> Result<(), SideError> {
    let body: CampaignBudgetBody = wire::body(request)?;
    check_reason(&body.reason)?;
    wire::within("add_minor", body.add_minor, 1, AMOUNT_MINOR_MAX)?;
    let (id, now) = (&request.path[0], request.now);
    let campaign = lock(tx, id).await?.ok_or(Refusal::NotFound)?.campaign;
    let able = [OPEN, &[State::Ended, State::Settling]].concat();
    need(
        campaign.state,
        &able,
        "a published campaign that is not settled (PUT changes the budget of a draft)",
    )?;
    let cap_minor = budget::read(tx, id).await?.unwrap_or_default().cap_minor;
    let room_minor = AMOUNT_MINOR_MAX.saturating_sub(cap_minor);
    wire::within("add_minor", body.add_minor, 1, room_minor)?;
    // A command's key is unique per caller; so is this one.
    let key = format!(
        "fund|{id}|key|{}|{}",
        wire::who(request),
        wire::key(request)?
    );
    let currency = campaign.definition.currency.as_str();
    budget::fund(tx, id, currency, body.add_minor, &key, now).await?;
    let detail = format!("added {}: {}", body.add_minor, body.reason);
    write_note(tx, request, "campaign.budget", &detail).await
}

async fn write_note(
    tx: &mut Tx,
    request: &SideRequest,
    what: &'static str,
    detail: &str,
) -> Result<(), SideError> {
    let note = note::Note {
        who: wire::who(request),
        what,
        campaign: Some(&request.path[0]),
        subject: None,
        detail,
    };
    note::write(tx, &note, request.now).await
}

/// Everything in which the new one is not as good for buyers as the old one.
fn worse(kind: &dyn CampaignKind, old: &Definition, new: &Definition) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |field: &str, detail: &str| {
        found.push(Finding::new(
            "not_better",
            field,
            format!("{field} {detail}"),
        ));
    };
    let (before, after) = (members(old), members(new));
    let names = before
        .keys()
        .chain(after.keys().filter(|name| !before.contains_key(*name)));
    for name in names.filter(|name| before.get(*name) != after.get(*name)) {
        if !CHANGEABLE.contains(&name.as_str()) {
            add(name, "stays as it was published");
        }
    }
    if new.ends_at < old.ends_at {
        add("ends_at", "must not be earlier");
    }
    if new.budget_minor < old.budget_minor {
        add("budget_minor", "must not be smaller");
    }
    let (was, is) = (&old.eligibility, &new.eligibility);
    if was.phone_verification != is.phone_verification {
        add(
            "eligibility.phone_verification",
            "stays as it was published",
        );
    }
    if was.new_buyers_only != is.new_buyers_only {
        add("eligibility.new_buyers_only", "stays as it was published");
    }
    if was.sign_up_task != is.sign_up_task {
        add("eligibility.sign_up_task", "stays as it was published");
    }
    if !is_more(was.participants_max, is.participants_max) {
        add("eligibility.participants_max", "must not be smaller");
    }
    for (index, was) in old.rewards.iter().enumerate() {
        let is = new.rewards.iter().find(|is| is.reward == was.reward);
        if !is.is_some_and(|is| is_as_good(was, is)) {
            let field = format!("rewards[{index}]");
            add(
                &field,
                "changes only by more of it (total, stock_units) or another title",
            );
        }
    }
    if old.rules != new.rules
        && let Err(more) = kind.improves(&old.rules, &new.rules)
    {
        found.extend(more);
    }
    found
}

fn members(definition: &Definition) -> Map<String, Value> {
    match serde_json::to_value(definition) {
        Ok(Value::Object(members)) => members,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// `None` is as many as one likes.
fn is_more(was: Option<i64>, is: Option<i64>) -> bool {
    match (was, is) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(was), Some(is)) => is >= was,
    }
}

/// The same reward, maybe more of it.
fn is_as_good(was: &RewardRule, is: &RewardRule) -> bool {
    if !is_more(was.count_max(), is.count_max()) {
        return false;
    }
    let mut same = was.what.clone();
    match (&mut same, &is.what) {
        (RewardKind::Coupon { total, .. }, RewardKind::Coupon { total: new, .. }) => *total = *new,
        (
            RewardKind::Gift { stock_units, .. },
            RewardKind::Gift {
                stock_units: new, ..
            },
        ) => {
            *stock_units = *new;
        }
        (RewardKind::Coupon { .. }, RewardKind::Gift { .. })
        | (RewardKind::Gift { .. }, RewardKind::Coupon { .. }) => return false,
    }
    same == is.what
}
