//! Rows of campaigns.

use flash_types::Timestamp;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, SqlError, Tx, query};

use super::canonical::{private_hash, public_definition};
use super::solvency::Worst;
use super::{Campaign, queries};
use crate::canonical::hash;
use crate::definition::Definition;
use crate::draws::Seed;
use crate::shop::Shop;
use crate::state::State;

/// A campaign that nobody else changes before this transaction ends.
pub(super) struct Locked {
    pub(super) campaign: Campaign,
    pub(super) seed_sealed: Option<String>,
}

/// Who does something, why, when.
#[derive(Clone, Copy)]
pub(super) struct Act<'a> {
    pub(super) who: &'a str,
    pub(super) reason: &'a str,
    pub(super) now: Timestamp,
}

/// Takes the row, waiting for whoever has it.
pub(super) async fn lock(tx: &mut Tx, id: &str) -> Result<Option<Locked>, SideError> {
    let Some(row) = tx.row(query(queries::LOCK).bind(id.to_owned())).await? else {
        return Ok(None);
    };
    // What it says was committed by whoever had it before.
    let campaign = super::find(tx, id).await?.ok_or(SqlError::Conflict)?;
    Ok(Some(Locked {
        campaign,
        seed_sealed: row.text_or_null("seed_sealed")?,
    }))
}

impl Locked {
    pub(super) fn seed(&self, shop: &Shop) -> Result<Seed, SqlError> {
        let sealed = self.seed_sealed.as_deref();
        let none = || SqlError::Broken(format!("{} has no seed", self.campaign.id));
        open_seed(shop, &self.campaign.id, sealed.ok_or_else(none)?)
    }
}

/// Makes a move that the state machine knows, and writes it down.
pub(super) async fn go(
    tx: &mut Tx,
    campaign: &mut Campaign,
    to: State,
    act: Act<'_>,
) -> Result<(), SideError> {
    let from = campaign.state;
    assert!(from.may_become(to), "{from:?} does not become {to:?}");
    let update = query(queries::MOVE)
        .bind(to.as_str())
        .bind(due_at(to, &campaign.definition))
        .bind(campaign.id.clone())
        .bind(from.as_str());
    if tx.execute(update).await? != 1 {
        return Err(SqlError::Conflict.into());
    }
    let insert = query(queries::INSERT_MOVE)
        .bind(campaign.id.clone())
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(act.who.to_owned())
        .bind(act.reason.to_owned())
        .bind(act.now.0);
    tx.execute(insert).await?;
    campaign.state = to;
    Ok(())
}

/// When the step has to look at a campaign in that state.
pub(super) fn due_at(state: State, definition: &Definition) -> Option<i64> {
    match state {
        State::Published => Some(definition.warmup_at.unwrap_or(definition.starts_at).0),
        State::Warmup => Some(definition.starts_at.0),
        State::Running | State::Paused => Some(definition.ends_at.0),
        State::Ended | State::Settling => Some(0),
        State::Draft | State::Settled | State::Archived | State::Cancelled => None,
    }
}

/// Puts the next version in force: writes it down with its hash.
pub(super) async fn put_version(
    tx: &mut Tx,
    campaign: &mut Campaign,
    definition: Definition,
    worst: &Worst,
    seed: &Seed,
    act: Act<'_>,
) -> Result<(), SideError> {
    let private = private_hash(&definition, seed);
    let rules_hash = hash(&public_definition(&definition, &private));
    let before = campaign.version;
    let insert = query(queries::INSERT_VERSION)
        .bind(campaign.id.clone())
        .bind(before + 1)
        .bind(written(&definition)?)
        .bind(rules_hash.clone())
        .bind(written(worst)?)
        .bind(private)
        .bind(act.reason.to_owned())
        .bind(act.who.to_owned())
        .bind(act.now.0);
    tx.execute(insert).await?;
    let update = query(queries::SET_VERSION)
        .bind(before + 1)
        .bind(definition.starts_at.0)
        .bind(definition.ends_at.0)
        .bind(due_at(campaign.state, &definition))
        .bind(campaign.id.clone())
        .bind(before);
    if tx.execute(update).await? != 1 {
        return Err(SqlError::Conflict.into());
    }
    campaign.version = before + 1;
    campaign.definition = definition;
    campaign.rules_hash = rules_hash;
    Ok(())
}

/// As it is stored.
pub(super) fn written(value: &impl serde::Serialize) -> Result<String, SqlError> {
    serde_json::to_string(value).map_err(|error| SqlError::Broken(error.to_string()))
}

pub(super) fn parse_definition(text: &str) -> Result<Definition, SqlError> {
    serde_json::from_str(text)
        .map_err(|error| SqlError::Broken(format!("a definition cannot be read: {error}")))
}

pub(super) fn parse_state(text: &str) -> Result<State, SqlError> {
    State::parse(text).ok_or_else(|| SqlError::Broken(format!("{text} is no state")))
}

/// Seals a seed for its row.
pub(super) fn seal_seed(shop: &Shop, id: &str, seed: &Seed) -> String {
    let clear = side_books::command::hex(&seed.0);
    shop.sealer.seal(&seed_context(id), &clear)
}

pub(super) fn open_seed(shop: &Shop, id: &str, sealed: &str) -> Result<Seed, SqlError> {
    let broken = |what: &str| SqlError::Broken(format!("the seed of {id}: {what}"));
    let clear = shop.sealer.open(&seed_context(id), sealed);
    let clear = clear.map_err(|bad| broken(&bad.to_string()))?;
    let seed = side_books::command::unhex(&clear);
    seed.map(Seed).ok_or_else(|| broken("is not 64 digits"))
}

fn seed_context(id: &str) -> String {
    format!("campaign|{id}|seed")
}
