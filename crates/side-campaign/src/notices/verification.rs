//! Verifying a telephone number by a code that is sent to it.
//!
//! A code is six digits, good for five minutes and five tries. A try is taken by a conditional update before the code is
//! looked at: a hundred guesses at once get five looks together. Codes and numbers are stored as keyed hashes. Whether a
//! number is known is told only to who has the code.

use std::net::IpAddr;
use std::time::Duration;

use flash_types::side::SideAnswer;
use flash_types::{BuyerId, Timestamp};
use serde::{Deserialize, Serialize};
use side_books::sql::{Get as _, Reads as _, SqlError, Tx};
use side_books::{SideError, id};
use utoipa::ToSchema;

use super::outbox::{URGENT, send_until, withdraw};
use super::phone::normal;
use super::refusal::Refusal;
use super::{Notice, Recipient, queries};
use crate::entry;
use crate::shop::Shop;

/// How long a code is good.
const CODE_FOR: Duration = Duration::from_secs(5 * 60);
/// Looks at one code.
const TRIES_MAX: i64 = 5;
/// Codes are below this.
const CODES: u32 = 1_000_000;

/// So many within so long.
type Limits = [(i64, Duration); 3];
/// For one buyer.
const LIMITS: Limits = [
    (1, Duration::from_secs(60)),
    (5, Duration::from_secs(3_600)),
    (10, Duration::from_secs(24 * 3_600)),
];
/// For one number: more than one buyer can use up, so that nobody keeps its owner out alone.
const PHONE_LIMITS: Limits = [
    (3, Duration::from_secs(60)),
    (15, Duration::from_secs(3_600)),
    (30, Duration::from_secs(24 * 3_600)),
];
/// For one address, which may be that of a whole office.
const ADDRESS_LIMITS: Limits = [
    (10, Duration::from_secs(60)),
    (60, Duration::from_secs(3_600)),
    (200, Duration::from_secs(24 * 3_600)),
];

/// Body of a request for a code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PhoneBody {
    /// `+` and 8-15 digits; or the eleven digits of a Chinese mobile number.
    phone: String,
}

/// Body of a confirmation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CodeBody {
    /// Six digits.
    code: String,
}

/// A code is on its way.
#[derive(Serialize, ToSchema)]
pub(super) struct Verification {
    verification_id: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// The number is verified.
#[derive(Serialize, ToSchema)]
pub(super) struct Verified {
    #[schema(value_type = String, format = DateTime)]
    verified_at: Timestamp,
}

/// Sends a code.
pub(super) async fn ask(
    tx: &mut Tx,
    shop: &Shop,
    buyer: &BuyerId,
    address: Option<IpAddr>,
    body: &PhoneBody,
    now: Timestamp,
) -> Result<SideAnswer, SideError> {
    let phone = normal(&body.phone).ok_or_else(|| {
        Refusal::Malformed("phone is not a number such as +8613800138000".to_owned())
    })?;
    let phone_hash = shop.sealer.keyed_hash("phone", &phone);
    count(tx, shop, buyer, &phone_hash, address, now).await?;
    for row in tx.rows(queries::supersede(buyer.as_str())).await? {
        withdraw(tx, &notice_key(&row.text("id")?)).await?;
    }
    let verification_id = id::fresh("vf", now);
    let code = code();
    let expires_at = now.plus(CODE_FOR);
    tx.execute(queries::insert_verification(
        &verification_id,
        buyer.as_str(),
        phone_hash,
        shop.sealer
            .keyed_hash(&code_context(&verification_id), &code),
        now.0,
        expires_at.0,
    ))
    .await?;
    let notice = Notice {
        key: &notice_key(&verification_id),
        kind: URGENT,
        to: Recipient::Phone(phone),
        text: &format!("Your code is {code}. It is good for 5 minutes; give it to nobody."),
        code: Some(&code),
        campaign: None,
        due_at: now,
    };
    send_until(tx, shop, &notice, Some(expires_at), now).await?;
    let asked = Verification {
        verification_id,
        expires_at,
    };
    Ok(SideAnswer::json(202, &asked))
}

/// What a confirmation found; all but [`Confirmed::Refused`] is to be committed.
pub(super) enum Confirmed {
    /// It is verified.
    Yes(SideAnswer),
    /// A no that changed something: a try is used, or the code is.
    No(Refusal),
    /// A no that changed nothing.
    Refused(Refusal),
}

/// Compares a code.
pub(super) async fn confirm(
    tx: &mut Tx,
    shop: &Shop,
    buyer: &BuyerId,
    verification_id: &str,
    body: &CodeBody,
    now: Timestamp,
) -> Result<Confirmed, SideError> {
    if body.code.len() != 6 || !body.code.bytes().all(|byte| byte.is_ascii_digit()) {
        let detail = "code is not six digits".to_owned();
        return Ok(Confirmed::Refused(Refusal::Malformed(detail)));
    }
    let take = queries::take_try(verification_id, buyer.as_str(), now.0, TRIES_MAX);
    let Some(row) = tx.row(take).await? else {
        return why_no_try(tx, buyer, verification_id, now).await;
    };
    let hash = row.text("code_hash")?;
    let context = code_context(verification_id);
    if !shop.sealer.is_keyed_hash(&context, &body.code, &hash) {
        let left = (TRIES_MAX - row.int("tries")?).max(0);
        return Ok(Confirmed::No(Refusal::CodeWrong(left)));
    }
    withdraw(tx, &notice_key(verification_id)).await?;
    if !own(tx, buyer, &row.text("phone_hash")?, now).await? {
        let close = queries::close_verification(verification_id, "REFUSED", None);
        tx.execute(close).await?;
        return Ok(Confirmed::No(Refusal::PhoneInUse));
    }
    let close = queries::close_verification(verification_id, "VERIFIED", Some(now.0));
    tx.execute(close).await?;
    Ok(Confirmed::Yes(verified(now)))
}

fn verified(at: Timestamp) -> SideAnswer {
    SideAnswer::json(200, &Verified { verified_at: at })
}

async fn why_no_try(
    tx: &mut Tx,
    buyer: &BuyerId,
    verification_id: &str,
    now: Timestamp,
) -> Result<Confirmed, SideError> {
    let select = queries::verification(verification_id, buyer.as_str());
    let Some(row) = tx.row(select).await? else {
        return Ok(Confirmed::Refused(Refusal::NotFound("verification")));
    };
    let (tries, expires_at_ms) = (row.int("tries")?, row.int("expires_at_ms")?);
    let refusal = match (
        row.text("state")?.as_str(),
        row.int_or_null("verified_at_ms")?,
    ) {
        // The answer was lost: it is given again.
        ("VERIFIED", Some(at_ms)) => return Ok(Confirmed::Yes(verified(Timestamp(at_ms)))),
        ("REFUSED", _) => Refusal::PhoneInUse,
        ("OPEN", _) if tries >= TRIES_MAX && expires_at_ms > now.0 => Refusal::TooManyTries,
        (_, _) => Refusal::CodeExpired,
    };
    Ok(Confirmed::Refused(refusal))
}

/// Makes the number the buyer's, in place of another one of theirs; `false` if it is another buyer's.
async fn own(
    tx: &mut Tx,
    buyer: &BuyerId,
    phone_hash: &str,
    now: Timestamp,
) -> Result<bool, SideError> {
    let buyer = buyer.as_str();
    if tx
        .execute(queries::insert_phone(buyer, phone_hash, now.0))
        .await?
        == 1
    {
        return Ok(true);
    }
    if let Some(owner) = tx.row(queries::phone_owner(phone_hash)).await? {
        let is_ours = owner.text("buyer")? == buyer;
        if is_ours {
            tx.execute(queries::renew_phone(buyer, now.0)).await?;
        }
        return Ok(is_ours);
    }
    tx.execute(queries::delete_phone(buyer)).await?;
    let insert = queries::insert_phone(buyer, phone_hash, now.0);
    if tx.execute(insert).await? == 1 {
        Ok(true)
    } else {
        // Somebody took it in between: the next try finds out.
        Err(SqlError::Conflict.into())
    }
}

/// Counts an ask for buyer, number and address, if all of them have one left.
async fn count(
    tx: &mut Tx,
    shop: &Shop,
    buyer: &BuyerId,
    phone_hash: &str,
    address: Option<IpAddr>,
    now: Timestamp,
) -> Result<(), SideError> {
    let scope = |what: &str, text: &str| shop.sealer.keyed_hash(what, text);
    let mut scopes = vec![
        (scope("ask|buyer", buyer.as_str()), LIMITS),
        (scope("ask|phone", phone_hash), PHONE_LIMITS),
    ];
    if let Some(address) = address {
        scopes.push((
            scope("ask|address", &entry::network(address).to_string()),
            ADDRESS_LIMITS,
        ));
    }
    // In one order everywhere, so that two asks never wait for each other in a circle.
    scopes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut wait = Duration::ZERO;
    for (scope, limits) in &scopes {
        tx.execute(queries::touch_scope(scope, now.0)).await?;
        for (most, within) in limits {
            let since = now.0 - i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
            let nth = queries::nth_last_ask(scope, since, most - 1);
            if let Some(row) = tx.row(nth).await? {
                let free_at = Timestamp(row.int("at_ms")?).plus(*within);
                wait = wait.max(now.until(free_at));
            }
        }
        tx.execute(queries::insert_ask(scope, now.0)).await?;
    }
    if wait.is_zero() {
        Ok(())
    } else {
        // Nothing of this is kept: a refused ask does not count.
        Err(Refusal::TooOften(wait).into())
    }
}

fn notice_key(verification_id: &str) -> String {
    format!("verification|{verification_id}")
}

fn code_context(verification_id: &str) -> String {
    format!("verification|{verification_id}|code")
}

/// Six digits, each code as likely as any other.
fn code() -> String {
    loop {
        let drawn = getrandom::u32().expect("the machine gives random bytes");
        if let Some(code) = code_of(drawn) {
            return code;
        }
    }
}

/// Drawn numbers of the last, incomplete million are drawn again: they would favour the lower codes.
fn code_of(drawn: u32) -> Option<String> {
    let whole = u32::MAX / CODES * CODES;
    (drawn < whole).then(|| format!("{:06}", drawn % CODES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_six_digits_without_favour() {
        assert_eq!(code_of(0).as_deref(), Some("000000"));
        assert_eq!(code_of(1_000_042).as_deref(), Some("000042"));
        assert_eq!(code_of(4_293_999_999).as_deref(), Some("999999"));
        assert_eq!(code_of(4_294_000_000), None);
        assert_eq!(code_of(u32::MAX), None);
        assert_eq!(code().len(), 6);
    }

    #[test]
    fn addresses_count_by_what_one_line_has() {
        let of = |text: &str| entry::network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
