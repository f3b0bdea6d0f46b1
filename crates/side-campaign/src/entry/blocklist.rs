//! Block lists of a campaign: buyers, addresses, devices. The latter two are kept as keyed hashes only: who put one in can
//! take it out by naming it again, nobody can read it back.

use flash_types::side::SideProblem;
use flash_types::{BuyerId, Timestamp};
use side_books::note::{self, Note};
use side_books::seal::Sealer;
use side_books::sql::{Reads, Tx, query};
use side_books::{SideError, wire};

use super::{Hashes, address_hash, device_hash, queries};

/// A block list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockList {
    /// By id.
    Buyers,
    /// By address; IPv6 by its /64.
    Addresses,
    /// By device.
    Devices,
}

impl BlockList {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Buyers, Self::Addresses, Self::Devices];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buyers => "buyers",
            Self::Addresses => "addresses",
            Self::Devices => "devices",
        }
    }

    /// The list of that word.
    ///
    /// # Errors
    /// 404 `not_found`.
    pub fn parse(text: &str) -> Result<Self, SideProblem> {
        let list = Self::ALL.into_iter().find(|list| list.as_str() == text);
        list.ok_or_else(|| {
            SideProblem::not_found("block list: there are buyers, addresses and devices")
        })
    }

    /// A value of it as it is stored.
    ///
    /// # Errors
    /// 400 `malformed`.
    pub fn stored(self, sealer: &Sealer, value: &str) -> Result<String, SideProblem> {
        match self {
            Self::Buyers => BuyerId::parse(value)
                .map(|buyer| buyer.as_str().to_owned())
                .map_err(|bad| SideProblem::malformed(format!("the buyer {bad}"))),
            Self::Addresses => value
                .parse()
                .map(|address| address_hash(sealer, address))
                .map_err(|_| SideProblem::malformed("the value is not an IP address")),
            // The same characters as in the header that is compared with it.
            Self::Devices => BuyerId::parse(value)
                .map(|_| device_hash(sealer, value))
                .map_err(|bad| SideProblem::malformed(format!("the device {bad}"))),
        }
    }
}

/// Something to be put on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Of which campaign.
    pub campaign: &'a str,
    /// Which list.
    pub list: BlockList,
    /// As stored.
    pub stored: &'a str,
    /// Who does it.
    pub who: &'a str,
    /// Why, for people.
    pub reason: &'a str,
}

/// Puts a value on a list; `false`: it was there.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn block(tx: &mut Tx, block: &Block<'_>, now: Timestamp) -> Result<bool, SideError> {
    let insert = query(queries::INSERT_BLOCK)
        .bind(block.campaign.to_owned())
        .bind(block.list.as_str())
        .bind(block.stored.to_owned())
        .bind(block.reason.to_owned())
        .bind(block.who.to_owned())
        .bind(now.0);
    let is_new = tx.execute(insert).await? == 1;
    if is_new {
        write_note(tx, block, "blocklist.add", now).await?;
    }
    Ok(is_new)
}

/// Takes a value off a list; `false`: it was not there.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn unblock(tx: &mut Tx, block: &Block<'_>, now: Timestamp) -> Result<bool, SideError> {
    let delete = query(queries::DELETE_BLOCK)
        .bind(block.campaign.to_owned())
        .bind(block.list.as_str())
        .bind(block.stored.to_owned());
    let was_there = tx.execute(delete).await? == 1;
    if was_there {
        write_note(tx, block, "blocklist.remove", now).await?;
    }
    Ok(was_there)
}

/// Whether a buyer, or where he comes from, is on a list of the campaign.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn is_blocked(
    reads: &mut impl Reads,
    campaign: &str,
    buyer: BuyerId,
    hashes: &Hashes,
) -> Result<bool, SideError> {
    let select = query(queries::IS_BLOCKED)
        .bind(campaign.to_owned())
        .bind(buyer.as_str().to_owned())
        .bind(hashes.address.clone().unwrap_or_default())
        .bind(hashes.device.clone().unwrap_or_default());
    Ok(reads.row(select).await?.is_some())
}

async fn write_note(
    tx: &mut Tx,
    block: &Block<'_>,
    what: &str,
    now: Timestamp,
) -> Result<(), SideError> {
    // A reason is free text and may name whom it is about: it stays with the list.
    let note = Note {
        who: block.who,
        what,
        campaign: Some(block.campaign),
        subject: Some(block.stored),
        detail: block.list.as_str(),
    };
    note::write(tx, &note, now).await
}

/// A reason as it may be stored.
pub(super) fn checked_reason(reason: Option<String>) -> Result<String, SideProblem> {
    let reason = reason.unwrap_or_default();
    let length = i64::try_from(reason.chars().count()).unwrap_or(i64::MAX);
    wire::within("the length of reason", length, 0, 500)?;
    Ok(reason)
}
