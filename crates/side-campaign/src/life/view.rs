//! Campaigns as they are shown.

use flash_types::Timestamp;
use flash_types::side::SideRequest;
use serde::Serialize;
use serde_json::Value;
use side_books::sql::{Get as _, Reads, Row, SqlError, query};
use side_books::{SideError, budget};
use utoipa::ToSchema;

use super::canonical::public_definition;
use super::queries;
use super::refusal::Refusal;
use super::solvency::{self, Worst};
use super::store::{parse_definition, parse_state};
use crate::kind::Finding;
use crate::shop::Shop;
use crate::state::State;

/// A campaign as buyers see it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CampaignAnswer {
    campaign_id: String,
    kind: String,
    state: &'static str,
    /// In force.
    version: i64,
    /// Without budget, risk thresholds, plan B and costs of gifts, which `private_hash` in it stands for.
    #[schema(value_type = Object)]
    definition: Value,
    /// SHA-256 of the canonical JSON (RFC 8785) of `definition`.
    rules_hash: String,
    /// SHA-256 of the seed of its draws, told from publish on.
    seed_hash: String,
    /// What its kind committed to at publish.
    root: Option<String>,
    /// The seed, once it is settled: 64 hexadecimal digits.
    seed: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    published_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    server_time: Timestamp,
}

/// A campaign as the merchant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdminCampaign {
    campaign_id: String,
    kind: String,
    state: &'static str,
    /// In force; 0 for a draft.
    version: i64,
    /// Whole.
    #[schema(value_type = Object)]
    definition: Value,
    rules_hash: Option<String>,
    private_hash: Option<String>,
    seed_hash: Option<String>,
    root: Option<String>,
    seed: Option<String>,
    /// The most that it can cost.
    worst_case: Option<Worst>,
    /// Of a draft: what stands against publishing it.
    findings: Vec<Finding>,
    budget: Option<CampaignBudget>,
    #[schema(value_type = Option<String>, format = DateTime)]
    plan_b_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    published_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    server_time: Timestamp,
}

/// A budget, minor units.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CampaignBudget {
    currency: String,
    /// All that was put in: available + held + spent.
    cap_minor: i64,
    available_minor: i64,
    held_minor: i64,
    spent_minor: i64,
}

/// A line of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CampaignLine {
    campaign_id: String,
    kind: String,
    title: String,
    state: &'static str,
    version: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    warmup_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    rules_hash: Option<String>,
    seed_hash: Option<String>,
    #[serde(skip)]
    order_ms: i64,
}

impl CampaignLine {
    /// Where the next page goes on.
    pub(super) fn cursor(&self) -> String {
        format!("{}_{}", self.order_ms, self.campaign_id)
    }
}

/// A version of a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CampaignVersion {
    pub(super) version: i64,
    rules_hash: String,
    private_hash: String,
    worst_case: Worst,
    reason: String,
    who: String,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Whole.
    #[schema(value_type = Object)]
    definition: Value,
}

/// A line of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CampaignNote {
    pub(super) number: i64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    who: String,
    what: String,
    subject: Option<String>,
    detail: String,
}

/// For buyers: whatever was published once.
pub(super) async fn public(
    reads: &mut impl Reads,
    id: &str,
    now: Timestamp,
) -> Result<CampaignAnswer, SideError> {
    let row = show(reads, id).await?;
    let Some(published_at) = row.int_or_null("published_at_ms")? else {
        return Err(Refusal::NotFound.into());
    };
    let definition = parse_definition(&row.text("definition")?)?;
    Ok(CampaignAnswer {
        campaign_id: row.text("id")?,
        kind: row.text("kind")?,
        state: parse_state(&row.text("state")?)?.as_str(),
        version: row.int("version")?,
        definition: public_definition(&definition, &row.text("private_hash")?),
        rules_hash: row.text("rules_hash")?,
        seed_hash: row.text("seed_hash")?,
        root: row.text_or_null("root")?,
        seed: row.text_or_null("seed")?,
        published_at: Timestamp(published_at),
        server_time: now,
    })
}

/// For the merchant.
pub(super) async fn admin(
    reads: &mut impl Reads,
    shop: &Shop,
    id: &str,
    now: Timestamp,
) -> Result<AdminCampaign, SideError> {
    let row = show(reads, id).await?;
    let text = row.text_or_null("definition")?;
    let text = text.map_or_else(|| row.text("draft"), Ok)?;
    let worst = row.text_or_null("worst_case")?;
    let worst = worst.map(|worst| json_of::<Worst>(&worst)).transpose()?;
    let (worst_case, findings) = match worst {
        Some(worst) => (Some(worst), Vec::new()),
        None => judge(shop, &text)?,
    };
    let budget = budget::read(reads, id).await?;
    let definition = parse_definition(&text)?;
    Ok(AdminCampaign {
        campaign_id: row.text("id")?,
        kind: row.text("kind")?,
        state: parse_state(&row.text("state")?)?.as_str(),
        version: row.int("version")?,
        definition: json_of(&text)?,
        rules_hash: row.text_or_null("rules_hash")?,
        private_hash: row.text_or_null("private_hash")?,
        seed_hash: row.text_or_null("seed_hash")?,
        root: row.text_or_null("root")?,
        seed: row.text_or_null("seed")?,
        worst_case,
        findings,
        budget: budget.map(|stands| budget_answer(definition.currency.as_str(), stands)),
        plan_b_at: row.int_or_null("plan_b_at_ms")?.map(Timestamp),
        created_at: Timestamp(row.int("created_at_ms")?),
        published_at: row.int_or_null("published_at_ms")?.map(Timestamp),
        server_time: now,
    })
}

/// What a publish of this draft would find.
fn judge(shop: &Shop, draft: &str) -> Result<(Option<Worst>, Vec<Finding>), SqlError> {
    let definition = parse_definition(draft)?;
    let refused = |refusal: Refusal| match refusal {
        Refusal::Malformed(findings) | Refusal::Solvency { findings, .. } => findings,
        Refusal::NotFound
        | Refusal::Exists
        | Refusal::State { .. }
        | Refusal::EndPassed
        | Refusal::NotAlone { .. }
        | Refusal::NotBetter(_)
        | Refusal::NoChange
        | Refusal::HasGiven
        | Refusal::NoPlanB
        | Refusal::PlanBIsOn => Vec::new(),
    };
    Ok(match solvency::check(&shop.kinds, &definition) {
        Err(refusal) => (None, refused(refusal)),
        Ok(worst) => {
            let covered = solvency::cover(&worst, definition.budget_minor, &[]);
            (Some(worst), covered.err().map(refused).unwrap_or_default())
        }
    })
}

/// The budget of a campaign; of a draft, an empty one.
pub(super) async fn budget(reads: &mut impl Reads, id: &str) -> Result<CampaignBudget, SideError> {
    let campaign = super::find(reads, id).await?.ok_or(Refusal::NotFound)?;
    let stands = budget::read(reads, id).await?.unwrap_or_default();
    Ok(budget_answer(campaign.definition.currency.as_str(), stands))
}

fn budget_answer(currency: &str, stands: budget::Budget) -> CampaignBudget {
    CampaignBudget {
        currency: currency.to_owned(),
        cap_minor: stands.cap_minor,
        available_minor: stands.available_minor,
        held_minor: stands.held_minor,
        spent_minor: stands.spent_minor,
    }
}

/// A page of campaigns.
pub(super) async fn list(
    reads: &mut impl Reads,
    request: &SideRequest,
    sql: &'static str,
    limit: i64,
) -> Result<Vec<CampaignLine>, SideError> {
    let state = request.parameter("state").unwrap_or_default();
    if !state.is_empty() && State::parse(state).is_none() {
        let words = State::ALL.map(State::as_str).join(", ");
        return Err(malformed(format!("the parameter state is none of {words}")));
    }
    let (before_ms, before_id) = match request.parameter("cursor") {
        None => (i64::MAX, ""),
        Some(cursor) => {
            let parts = cursor.split_once('_');
            let parts = parts.and_then(|(ms, id)| Some((ms.parse().ok()?, id)));
            parts.ok_or_else(|| malformed("the parameter cursor is not one of ours".to_owned()))?
        }
    };
    let select = query(sql)
        .bind(request.parameter("kind").unwrap_or_default().to_owned())
        .bind(state.to_owned())
        .bind(before_ms)
        .bind(before_id.to_owned())
        .bind(limit + 1);
    let rows = reads.rows(select).await?;
    Ok(rows.iter().map(line).collect::<Result<_, SqlError>>()?)
}

fn line(row: &Row) -> Result<CampaignLine, SqlError> {
    let definition = parse_definition(&row.text("definition")?)?;
    Ok(CampaignLine {
        campaign_id: row.text("id")?,
        kind: row.text("kind")?,
        title: definition.title,
        state: parse_state(&row.text("state")?)?.as_str(),
        version: row.int("version")?,
        warmup_at: definition.warmup_at,
        starts_at: definition.starts_at,
        ends_at: definition.ends_at,
        rules_hash: row.text_or_null("rules_hash")?,
        seed_hash: row.text_or_null("seed_hash")?,
        order_ms: row.int("order_ms")?,
    })
}

/// A page of versions, the first one first.
pub(super) async fn versions(
    reads: &mut impl Reads,
    request: &SideRequest,
    limit: i64,
) -> Result<Vec<CampaignVersion>, SideError> {
    let id = &request.path[0];
    super::find(reads, id).await?.ok_or(Refusal::NotFound)?;
    let select = query(queries::LIST_VERSIONS)
        .bind(id.clone())
        .bind(number_cursor(request, 0)?)
        .bind(limit + 1);
    let rows = reads.rows(select).await?;
    let line = |row: &Row| {
        Ok(CampaignVersion {
            version: row.int("version")?,
            rules_hash: row.text("rules_hash")?,
            private_hash: row.text("private_hash")?,
            worst_case: json_of(&row.text("worst_case")?)?,
            reason: row.text("reason")?,
            who: row.text("who")?,
            at: Timestamp(row.int("at_ms")?),
            definition: json_of(&row.text("definition")?)?,
        })
    };
    Ok(rows.iter().map(line).collect::<Result<_, SqlError>>()?)
}

/// A page of the audit log, the newest first.
pub(super) async fn notes(
    reads: &mut impl Reads,
    request: &SideRequest,
    limit: i64,
) -> Result<Vec<CampaignNote>, SideError> {
    let id = &request.path[0];
    super::find(reads, id).await?.ok_or(Refusal::NotFound)?;
    let select = query(queries::LIST_NOTES)
        .bind(id.clone())
        .bind(number_cursor(request, i64::MAX)?)
        .bind(limit + 1);
    let rows = reads.rows(select).await?;
    let line = |row: &Row| {
        Ok(CampaignNote {
            number: row.int("id")?,
            at: Timestamp(row.int("at_ms")?),
            who: row.text("who")?,
            what: row.text("what")?,
            subject: row.text_or_null("subject")?,
            detail: row.text("detail")?,
        })
    };
    Ok(rows.iter().map(line).collect::<Result<_, SqlError>>()?)
}

fn number_cursor(request: &SideRequest, first: i64) -> Result<i64, SideError> {
    match request.parameter("cursor") {
        None => Ok(first),
        Some(cursor) => cursor
            .parse()
            .map_err(|_| malformed("the parameter cursor is not one of ours".to_owned())),
    }
}

async fn show(reads: &mut impl Reads, id: &str) -> Result<Row, SideError> {
    let row = reads.row(query(queries::SHOW).bind(id.to_owned())).await?;
    Ok(row.ok_or(Refusal::NotFound)?)
}

fn json_of<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, SqlError> {
    serde_json::from_str(text).map_err(|error| SqlError::Broken(error.to_string()))
}

fn malformed(detail: String) -> SideError {
    flash_types::side::SideProblem::malformed(detail).into()
}
