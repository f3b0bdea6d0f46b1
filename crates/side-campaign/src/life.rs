//! The life of campaigns: drafts, publishing (rules frozen and hashed, seed committed to, budget funded, worst case covered),
//! moves by hand and by time, further versions, plan B.
//!
//! Who changes a campaign has its row to itself until its transaction ends (`queries::LOCK`), so each move is made once,
//! however many nodes try.

mod canonical;
mod moves;
mod publish;
mod queries;
mod refusal;
mod schemas;
mod service;
mod solvency;
mod step;
mod store;
mod versions;
mod view;

use std::sync::Arc;

use flash_types::Timestamp;
use flash_types::side::SideService;
use side_books::SideError;
use side_books::sql::{Get as _, Reads, Row, SqlError, Tx, query};
use side_books::step::Step;

pub use canonical::public_definition;
pub(crate) use canonical::public_of_stored;

use crate::definition::Definition;
use crate::draws::Seed;
use crate::shop::Shop;
use crate::state::State;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(service::Life::new(Arc::clone(shop)))]
}

/// What goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    vec![Arc::new(step::LifeStep::new(Arc::clone(shop)))]
}

/// A campaign as it stands, with the version that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// The version in force: 1 at publish, 0 for a draft.
    pub version: i64,
    /// The definition of that version; of a draft, the draft.
    pub definition: Definition,
    /// SHA-256 of the canonical JSON of the definition as buyers see it ([`public_definition`]), hexadecimal; empty for a
    /// draft.
    pub rules_hash: String,
    /// When it was published.
    pub published_at: Option<Timestamp>,
}

/// A campaign by its id, with the version in force: the one that counts for what begins now.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn find(
    reads: &mut impl Reads,
    campaign_id: &str,
) -> Result<Option<Campaign>, SideError> {
    let row = reads
        .row(query(queries::FIND).bind(campaign_id.to_owned()))
        .await?;
    Ok(row.as_ref().map(read_campaign).transpose()?)
}

/// As [`find`], and nobody moves it before this transaction ends.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn hold(tx: &mut Tx, campaign_id: &str) -> Result<Option<Campaign>, SideError> {
    Ok(store::lock(tx, campaign_id)
        .await?
        .map(|held| held.campaign))
}

/// A campaign with one of its versions: the one under which something began.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn at_version(
    reads: &mut impl Reads,
    campaign_id: &str,
    version: i64,
) -> Result<Option<Campaign>, SideError> {
    let select = query(queries::AT_VERSION)
        .bind(campaign_id.to_owned())
        .bind(version);
    let row = reads.row(select).await?;
    Ok(row.as_ref().map(read_campaign).transpose()?)
}

/// The seed of a published campaign, for its draws: never to be told before the end.
///
/// # Errors
/// The database's; `Broken` where there is none, or its seal does not open.
///
/// # Cancel safety
/// A read.
pub async fn seed(
    reads: &mut impl Reads,
    shop: &Shop,
    campaign_id: &str,
) -> Result<Seed, SideError> {
    let row = reads
        .row(query(queries::SEED).bind(campaign_id.to_owned()))
        .await?;
    let sealed = row.map(|row| row.text_or_null("seed_sealed")).transpose()?;
    let sealed = sealed
        .flatten()
        .ok_or_else(|| SqlError::Broken(format!("{campaign_id} has no seed")))?;
    Ok(store::open_seed(shop, campaign_id, &sealed)?)
}

/// The seed in hexadecimal digits once the campaign is settled; `None` before.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn revealed_seed(
    reads: &mut impl Reads,
    campaign_id: &str,
) -> Result<Option<String>, SideError> {
    let row = reads
        .row(query(queries::SEED).bind(campaign_id.to_owned()))
        .await?;
    Ok(row
        .map(|row| row.text_or_null("seed"))
        .transpose()?
        .flatten())
}

fn read_campaign(row: &Row) -> Result<Campaign, SqlError> {
    let state = row.text("state")?;
    Ok(Campaign {
        id: row.text("id")?,
        state: store::parse_state(&state)?,
        version: row.int("version")?,
        definition: store::parse_definition(&row.text("definition")?)?,
        rules_hash: row.text_or_null("rules_hash")?.unwrap_or_default(),
        published_at: row.int_or_null("published_at_ms")?.map(Timestamp),
    })
}
