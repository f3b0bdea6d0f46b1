//! Drafts, and how one becomes a campaign: in one transaction the rules are frozen, the seed is committed to, the budget is
//! funded, the kind prepares, and what is due by time has moved before anybody hears of it.

use flash_types::side::SideRequest;
use serde::Deserialize;
use side_books::sql::{Get as _, Reads as _, Tx, query};
use side_books::{SideError, budget, note, wire};
use utoipa::ToSchema;

use super::refusal::Refusal;
use super::store::{Act, go, lock, put_version, seal_seed, written};
use super::{Campaign, moves, queries, solvency};
use crate::definition::Definition;
use crate::draws::{self, Seed};
use crate::shop::Shop;
use crate::state::State;

/// Body of a publish.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CampaignPublishBody {
    /// `insolvent`, `unbounded`: published though its worst case is not covered.
    pub(super) accept: Vec<String>,
}

/// Makes a draft.
pub(super) async fn draft(
    tx: &mut Tx,
    shop: &Shop,
    request: &SideRequest,
) -> Result<String, SideError> {
    let definition: Definition = wire::body(request)?;
    solvency::check(&shop.kinds, &definition)?;
    let insert = query(queries::INSERT_DRAFT)
        .bind(definition.campaign_id.clone())
        .bind(definition.kind.clone())
        .bind(written(&definition)?)
        .bind(definition.starts_at.0)
        .bind(definition.ends_at.0)
        .bind(request.now.0);
    if tx.execute(insert).await? == 0 {
        return Err(Refusal::Exists.into());
    }
    let note = note::Note {
        who: wire::who(request),
        what: "campaign.draft",
        campaign: Some(&definition.campaign_id),
        subject: None,
        detail: "",
    };
    note::write(tx, &note, request.now).await?;
    Ok(definition.campaign_id)
}

/// Replaces a draft.
pub(super) async fn replace(
    tx: &mut Tx,
    shop: &Shop,
    request: &SideRequest,
) -> Result<(), SideError> {
    let definition: Definition = wire::body(request)?;
    let id = &request.path[0];
    if definition.campaign_id != *id {
        let detail = format!("campaign_id is not {id}, as the path says");
        return Err(flash_types::side::SideProblem::malformed(detail).into());
    }
    solvency::check(&shop.kinds, &definition)?;
    let locked = lock(tx, id).await?.ok_or(Refusal::NotFound)?;
    need(
        locked.campaign.state,
        &[State::Draft],
        "a DRAFT: what was published changes by versions",
    )?;
    let update = query(queries::REPLACE_DRAFT)
        .bind(definition.kind.clone())
        .bind(written(&definition)?)
        .bind(definition.starts_at.0)
        .bind(definition.ends_at.0)
        .bind(id.clone());
    tx.execute(update).await?;
    let note = note::Note {
        who: wire::who(request),
        what: "campaign.replace",
        campaign: Some(id),
        subject: None,
        detail: "",
    };
    note::write(tx, &note, request.now).await
}

/// Publishes a draft.
pub(super) async fn publish(
    tx: &mut Tx,
    shop: &Shop,
    request: &SideRequest,
) -> Result<(), SideError> {
    let body: CampaignPublishBody = read_or_default(request)?;
    let (id, now) = (&request.path[0], request.now);
    let mut campaign = lock(tx, id).await?.ok_or(Refusal::NotFound)?.campaign;
    need(campaign.state, &[State::Draft], "a DRAFT")?;
    let definition = campaign.definition.clone();
    let worst = solvency::check(&shop.kinds, &definition)?;
    if definition.ends_at <= now {
        return Err(Refusal::EndPassed.into());
    }
    let accepted = solvency::cover(&worst, definition.budget_minor, &body.accept)?;
    alone(tx, shop, &definition).await?;

    let who = wire::who(request);
    let act = Act {
        who,
        reason: "published",
        now,
    };
    let seed = fresh_seed();
    commit_seed(tx, shop, &campaign, &seed, act).await?;
    go(tx, &mut campaign, State::Published, act).await?;
    put_version(tx, &mut campaign, definition, &worst, &seed, act).await?;
    campaign.published_at = Some(now);
    fund(tx, &campaign, campaign.definition.budget_minor, act).await?;
    // The check found the kind a moment ago.
    if let Some(kind) = shop.kinds.find(&campaign.definition.kind) {
        let commitment = kind.prepare(tx, &campaign, &seed, now).await?;
        let update = query(queries::COMMIT_ROOT)
            .bind(commitment.root)
            .bind(id.clone());
        tx.execute(update).await?;
    }
    let detail = accepted.iter().fold(
        format!("version 1, rules {}", campaign.rules_hash),
        |told, accepted| format!("{told}; {accepted}"),
    );
    let note = note::Note {
        who,
        what: "campaign.publish",
        campaign: Some(id),
        subject: None,
        detail: &detail,
    };
    note::write(tx, &note, now).await?;
    moves::by_time(tx, &mut campaign, now).await
}

/// Puts money into the budget of a version.
pub(super) async fn fund(
    tx: &mut Tx,
    campaign: &Campaign,
    amount_minor: i64,
    act: Act<'_>,
) -> Result<(), SideError> {
    let key = format!("fund|{}|{}", campaign.id, campaign.version);
    let currency = campaign.definition.currency.as_str();
    budget::fund(tx, &campaign.id, currency, amount_minor, &key, act.now).await
}

/// Sees to it that no other campaign is open at that time, where its kind wants that.
pub(super) async fn alone(
    tx: &mut Tx,
    shop: &Shop,
    definition: &Definition,
) -> Result<(), SideError> {
    let kind = shop.kinds.find(&definition.kind);
    if !kind.is_some_and(|kind| kind.is_single()) {
        return Ok(());
    }
    let touch = query(queries::TOUCH_SINGLE)
        .bind(definition.kind.clone())
        .bind(definition.campaign_id.clone());
    tx.execute(touch).await?;
    let select = query(queries::OVERLAPPING)
        .bind(definition.kind.clone())
        .bind(definition.campaign_id.clone())
        .bind(definition.starts_at.0)
        .bind(definition.ends_at.0);
    match tx.row(select).await? {
        None => Ok(()),
        Some(row) => Err(Refusal::NotAlone {
            other: row.text("id")?,
        }
        .into()),
    }
}

/// Refuses what cannot be done in a state.
pub(super) fn need(is: State, one_of: &[State], wanted: &'static str) -> Result<(), Refusal> {
    if one_of.contains(&is) {
        Ok(())
    } else {
        Err(Refusal::State { is, wanted })
    }
}

/// A body that may be left out.
pub(super) fn read_or_default<T: serde::de::DeserializeOwned + Default>(
    request: &SideRequest,
) -> Result<T, SideError> {
    if request.body.is_empty() {
        return Ok(T::default());
    }
    Ok(wire::body(request)?)
}

async fn commit_seed(
    tx: &mut Tx,
    shop: &Shop,
    campaign: &Campaign,
    seed: &Seed,
    act: Act<'_>,
) -> Result<(), SideError> {
    let update = query(queries::COMMIT_SEED)
        .bind(seal_seed(shop, &campaign.id, seed))
        .bind(draws::commitment(seed))
        .bind(act.now.0)
        .bind(campaign.id.clone());
    if tx.execute(update).await? != 1 {
        return Err(side_books::sql::SqlError::Conflict.into());
    }
    Ok(())
}

fn fresh_seed() -> Seed {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the machine gives random bytes");
    Seed(seed)
}
