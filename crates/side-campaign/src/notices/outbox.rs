//! Putting notices into the outbox, and taking them back.

use flash_types::Timestamp;
use serde::{Deserialize, Serialize};
use side_books::seal::{BadSeal, Sealer};
use side_books::sql::Tx;
use side_books::{SideError, id};

use super::calendar::Subject;
use super::queries::{self, NewNotice};
use super::{Notice, Recipient};
use crate::shop::Shop;

/// The kind that is sent before all others.
pub(super) const URGENT: &str = "verification";

/// What must not be read from the database alone.
#[derive(Serialize, Deserialize)]
pub(super) struct Secret {
    /// A telephone number, where it does not go to a buyer.
    pub(super) phone: Option<String>,
    pub(super) text: String,
    pub(super) code: Option<String>,
}

impl Secret {
    fn seal(&self, sealer: &Sealer, notice_id: &str) -> String {
        // Text and options of text: there is nothing that JSON could not hold.
        let plain = serde_json::to_string(self).unwrap_or_default();
        sealer.seal(&context(notice_id), &plain)
    }

    pub(super) fn open(sealer: &Sealer, notice_id: &str, sealed: &str) -> Result<Self, BadSeal> {
        let plain = sealer.open(&context(notice_id), sealed)?;
        serde_json::from_str(&plain).map_err(|_| BadSeal)
    }
}

fn context(notice_id: &str) -> String {
    format!("notice|{notice_id}")
}

/// As [`super::send`], but not worth sending from `until` on (absent: until a day after the first try).
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// Part of the caller's transaction.
pub async fn send_until(
    tx: &mut Tx,
    shop: &Shop,
    notice: &Notice<'_>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), SideError> {
    let notice_id = id::fresh("nt", now);
    let (buyer, phone) = match &notice.to {
        Recipient::Buyer(buyer) => (Some(buyer.as_str()), None),
        Recipient::Phone(phone) => (None, Some(phone.clone())),
    };
    let is_secret = phone.is_some() || notice.code.is_some();
    let secret = is_secret.then(|| Secret {
        phone,
        text: notice.text.to_owned(),
        code: notice.code.map(str::to_owned),
    });
    let subject = notice
        .campaign
        .map(|id| Subject::Campaign(id.to_owned()).to_string());
    let insert = queries::insert_notice(NewNotice {
        id: &notice_id,
        key: notice.key,
        kind: notice.kind,
        is_urgent: notice.kind == URGENT,
        buyer,
        words: (!is_secret).then_some(notice.text),
        sealed: secret.map(|secret| secret.seal(&shop.sealer, &notice_id)),
        subject: subject.as_deref(),
        due_at_ms: notice.due_at.0,
        give_up_ms: until.map(|until| until.0),
        made_at_ms: now.0,
    });
    tx.execute(insert).await?;
    Ok(())
}

/// A notice of a subject to a buyer, without secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToBuyer<'a> {
    /// Unique for ever: it is told once.
    pub key: &'a str,
    /// As in [`Notice`].
    pub kind: &'static str,
    /// To whom.
    pub buyer: &'a str,
    /// In words.
    pub words: &'a str,
    /// What it is about.
    pub subject: &'a Subject,
    /// Not before.
    pub due_at: Timestamp,
    /// Not worth sending from then on; absent: until a day after the first try.
    pub until: Option<Timestamp>,
}

/// Puts it into the outbox; `false` if its key is there.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// Part of the caller's transaction.
pub async fn put(tx: &mut Tx, notice: &ToBuyer<'_>, now: Timestamp) -> Result<bool, SideError> {
    let insert = queries::insert_notice(NewNotice {
        id: &id::fresh("nt", now),
        key: notice.key,
        kind: notice.kind,
        is_urgent: false,
        buyer: Some(notice.buyer),
        words: Some(notice.words),
        sealed: None,
        subject: Some(&notice.subject.to_string()),
        due_at_ms: notice.due_at.0,
        give_up_ms: notice.until.map(|until| until.0),
        made_at_ms: now.0,
    });
    Ok(tx.execute(insert).await? == 1)
}

/// Takes a notice back unless it was sent.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// Part of the caller's transaction.
pub async fn withdraw(tx: &mut Tx, key: &str) -> Result<(), SideError> {
    tx.execute(queries::withdraw(key)).await?;
    Ok(())
}
