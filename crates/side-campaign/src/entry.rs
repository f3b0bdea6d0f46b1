//! Who may take part in a campaign, and who does: the checks of an entry, its place, block lists, sign-up tasks, and what
//! buyers were refused.
//!
//! Owns: participants and their count, block lists, sign-ups, refusals. Does not know what taking part brings.
//! Invariant: the count is the number of participants, and never above the campaign's most. An entry that is refused, or
//! was there already, leaves the count as it was.

mod blocklist;
mod endpoints;
mod queries;
mod refusal;
mod refused;
mod sign_up;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use flash_types::side::SideService;
use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::seal::Sealer;
use side_books::sql::{Get as _, Reads, SqlError, Tx, query};

use crate::life::Campaign;
use crate::notices::{self, Subject};
use crate::risk;
use crate::shop::Shop;
use crate::state::State;

pub use blocklist::{Block, BlockList, block, is_blocked, unblock};
pub use refusal::EntryRefusal;
pub use refused::{REFUSALS_KEPT_MAX, Refused, note_refusal};
pub use sign_up::sign_up;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(endpoints::EntryService::new(shop.clone()))]
}

/// Who wants to take part, and what is known of where from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrant {
    /// Who.
    pub buyer: BuyerId,
    /// Where from.
    pub address: Option<IpAddr>,
    /// On what.
    pub device: Option<String>,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Taking part already; nothing was changed.
    pub was_in: bool,
    /// Never paid an order before the campaign's start.
    pub is_new_buyer: bool,
    /// When.
    pub joined_at: Timestamp,
    /// Rewards must wait for a person, or are denied: the verdict, unless in shadow mode.
    pub verdict: Option<String>,
}

/// Where an entrant comes from, as it is stored: keyed hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hashes {
    /// Of the address.
    pub address: Option<String>,
    /// Of the device.
    pub device: Option<String>,
}

impl Hashes {
    /// Those of an entrant.
    pub fn of(sealer: &Sealer, entrant: &Entrant) -> Self {
        let address = entrant.address.map(|address| address_hash(sealer, address));
        let device = entrant.device.as_deref();
        Self {
            address,
            device: device.map(|device| device_hash(sealer, device)),
        }
    }
}

/// What an address counts as: IPv4 whole, IPv6 by its /64 (one household), a mapped IPv4 address as what it is.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// The hash of its [`network`].
pub fn address_hash(sealer: &Sealer, address: IpAddr) -> String {
    sealer.keyed_hash("address", &network(address).to_string())
}

/// The hash of a device.
pub fn device_hash(sealer: &Sealer, device: &str) -> String {
    sealer.keyed_hash("device", device)
}

/// Lets a buyer take part, once: state and window, block list, verification, new buyers only, sign-up task, capacity.
///
/// Who takes part already is told so in every state. Entries of one campaign go one after the other, from the moment that
/// they take a place, so a burst is seen whole.
///
/// # Errors
/// A refusal with its own outcome for each cause; the database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn enter(
    tx: &mut Tx,
    shop: &Shop,
    campaign: &Campaign,
    entrant: &Entrant,
    now: Timestamp,
) -> Result<Entered, SideError> {
    if let Some(entered) = find(tx, &campaign.id, entrant.buyer).await? {
        return Ok(entered);
    }
    if let Some(refusal) = closed(campaign, now) {
        return Err(refusal.into());
    }
    let hashes = Hashes::of(&shop.sealer, entrant);
    let known = may_enter(tx, campaign, entrant.buyer, &hashes).await?;
    if !take_place(tx, campaign).await? {
        // Another call of the same buyer may have had the last place.
        let entered = find(tx, &campaign.id, entrant.buyer).await?;
        return entered.ok_or_else(|| EntryRefusal::Full.into());
    }
    let insert = query(queries::INSERT_PARTICIPANT)
        .bind(campaign.id.clone())
        .bind(entrant.buyer.as_str().to_owned())
        .bind(now.0)
        .bind(i64::from(known.is_new))
        .bind(campaign.version)
        .bind(hashes.address.clone())
        .bind(hashes.device.clone())
        .bind(known.phone_hash);
    if tx.execute(insert).await? == 0 {
        tx.execute(query(queries::GIVE_PLACE_BACK).bind(campaign.id.clone()))
            .await?;
        let entered = find(tx, &campaign.id, entrant.buyer).await?;
        return entered.ok_or_else(|| SqlError::Conflict.into());
    }
    let subject = Subject::Campaign(campaign.id.clone());
    notices::reacted(tx, &subject, &entrant.buyer, now).await?;
    let verdict = risk::judge_entry(tx, shop, campaign, entrant.buyer, &hashes, now).await?;
    Ok(Entered {
        was_in: false,
        is_new_buyer: known.is_new,
        joined_at: now,
        verdict,
    })
}

/// The participation of a buyer, if there is one.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn find(
    reads: &mut impl Reads,
    campaign: &str,
    buyer: BuyerId,
) -> Result<Option<Entered>, SideError> {
    let select = query(queries::FIND_PARTICIPANT)
        .bind(campaign.to_owned())
        .bind(buyer.as_str().to_owned());
    let Some(row) = reads.row(select).await? else {
        return Ok(None);
    };
    Ok(Some(Entered {
        was_in: true,
        is_new_buyer: row.is("is_new")?,
        joined_at: Timestamp(row.int("joined_at_ms")?),
        verdict: row.text_or_null("verdict")?,
    }))
}

/// How many take part.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn participants(reads: &mut impl Reads, campaign: &str) -> Result<i64, SideError> {
    let select = query(queries::COUNT).bind(campaign.to_owned());
    let row = reads.row(select).await?;
    Ok(row
        .map(|row| row.int("participants"))
        .transpose()?
        .unwrap_or(0))
}

/// Makes entries and verdicts of a campaign wait for the end of this transaction, so that what it reads of them next is
/// the last word.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn hold_entries(tx: &mut Tx, campaign: &str) -> Result<(), SideError> {
    tx.execute(query(queries::OPEN_COUNT).bind(campaign.to_owned()))
        .await?;
    tx.execute(query(queries::HOLD_COUNT).bind(campaign.to_owned()))
        .await?;
    Ok(())
}

/// Why nobody new may take part now, if so.
fn closed(campaign: &Campaign, now: Timestamp) -> Option<EntryRefusal> {
    let (starts_at, ends_at) = (campaign.definition.starts_at, campaign.definition.ends_at);
    let not_started = EntryRefusal::NotStarted { starts_at, now };
    match campaign.state {
        State::Draft => Some(EntryRefusal::NoSuchCampaign),
        State::Ended | State::Settling | State::Settled | State::Archived | State::Cancelled => {
            Some(EntryRefusal::Ended)
        }
        State::Published | State::Warmup => Some(not_started),
        // Its state follows the clock a step later.
        State::Running | State::Paused if now < starts_at => Some(not_started),
        State::Running | State::Paused if now >= ends_at => Some(EntryRefusal::Ended),
        State::Paused => Some(EntryRefusal::Paused),
        State::Running => None,
    }
}

/// What is known of an entrant who may enter if there is a place.
struct Known {
    is_new: bool,
    phone_hash: Option<String>,
}

async fn may_enter(
    tx: &mut Tx,
    campaign: &Campaign,
    buyer: BuyerId,
    hashes: &Hashes,
) -> Result<Known, SideError> {
    let eligibility = &campaign.definition.eligibility;
    if is_blocked(tx, &campaign.id, buyer, hashes).await? {
        return Err(EntryRefusal::Blocked.into());
    }
    let select = query(queries::VERIFIED_PHONE).bind(buyer.as_str().to_owned());
    let row = tx.row(select).await?;
    let phone_hash = row.map(|row| row.text("phone_hash")).transpose()?;
    if eligibility.phone_verification && phone_hash.is_none() {
        return Err(EntryRefusal::VerificationRequired.into());
    }
    let select = query(queries::FIRST_ORDER).bind(buyer.as_str().to_owned());
    let row = tx.row(select).await?;
    let first_paid_at = row.map(|row| row.int("paid_at_ms")).transpose()?;
    let is_new = first_paid_at.is_none_or(|at_ms| at_ms >= campaign.definition.starts_at.0);
    if eligibility.new_buyers_only && !is_new {
        return Err(EntryRefusal::NotNew.into());
    }
    if let Some(task) = &eligibility.sign_up_task
        && !sign_up::is_done(tx, &campaign.id, buyer, task).await?
    {
        return Err(EntryRefusal::TaskRequired(task.clone()).into());
    }
    Ok(Known { is_new, phone_hash })
}

/// `false`: there is none left, and nothing was changed.
async fn take_place(tx: &mut Tx, campaign: &Campaign) -> Result<bool, SideError> {
    let most = campaign.definition.eligibility.participants_max;
    tx.execute(query(queries::OPEN_COUNT).bind(campaign.id.clone()))
        .await?;
    let update = query(queries::TAKE_PLACE)
        .bind(campaign.id.clone())
        .bind(most.unwrap_or(i64::MAX));
    Ok(tx.execute(update).await? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hashed_by_household() {
        let sealer = Sealer::new(&[7; 32]);
        let hash = |text: &str| address_hash(&sealer, text.parse().unwrap());
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:1"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_eq!(hash("::ffff:10.0.0.1"), hash("10.0.0.1"));
        assert_ne!(hash("10.0.0.2"), hash("10.0.0.1"));
    }
}
