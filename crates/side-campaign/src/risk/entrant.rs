//! What an entry tells: bursts from one address, devices that are shared.

use flash_types::{BuyerId, Timestamp};
use serde_json::{Value, json};
use side_books::SideError;
use side_books::sql::{Get as _, Query, Reads as _, Tx, query};

use super::rules::{self, Seen};
use super::verdicts::{Standing, keep_standing, parse_buyer, record_held, standing};
use super::{Found, queries};
use crate::entry::Hashes;
use crate::life::Campaign;
use crate::shop::Shop;

/// Most earlier participants who get a verdict with one entry; the rest of a larger burst get theirs with the next ones.
const MARKED_MAX: usize = 200;

/// Judges who was just let in, in the transaction of the entry; the earlier ones of a burst get verdicts too. Gives what
/// stands for the entrant, shadows left out.
pub(crate) async fn judge_entry(
    tx: &mut Tx,
    shop: &Shop,
    campaign: &Campaign,
    entrant: BuyerId,
    hashes: &Hashes,
    now: Timestamp,
) -> Result<Option<String>, SideError> {
    let risk = &campaign.definition.risk;
    if let Some(address) = &hashes.address
        && rules::is_on(risk.address_burst)
    {
        let select = query(queries::FROM_ADDRESS)
            .bind(campaign.id.clone())
            .bind(address.clone())
            .bind(rules::window_begin(risk, now).0)
            .bind(entrant.as_str().to_owned())
            .bind(rules::ADDRESS_BURST)
            .bind(i64::from(risk.is_shadow))
            .bind(risk.address_burst);
        let others = seen(tx, select).await?;
        if let Some(others) = rules::address_burst(risk, &others, now) {
            let evidence = json!({
                "participants_least": others.len() + 1,
                "threshold": risk.address_burst,
                "window_s": risk.address_window_s,
                "address_hash": shortened(address),
            });
            let rule = rules::ADDRESS_BURST;
            record_all(tx, shop, campaign, rule, entrant, &others, &evidence, now).await?;
        }
    }
    if let Some(device) = &hashes.device
        && rules::is_on(risk.device_shared)
    {
        let select = query(queries::ON_DEVICE)
            .bind(campaign.id.clone())
            .bind(device.clone())
            .bind(entrant.as_str().to_owned())
            .bind(rules::SHARED_DEVICE)
            .bind(i64::from(risk.is_shadow))
            .bind(risk.device_shared);
        let others = seen(tx, select).await?;
        if let Some(others) = rules::shared_device(risk, &others) {
            let evidence = json!({
                "participants_least": others.len() + 1,
                "threshold": risk.device_shared,
                "device_hash": shortened(device),
            });
            let rule = rules::SHARED_DEVICE;
            record_all(tx, shop, campaign, rule, entrant, &others, &evidence, now).await?;
        }
    }
    // Something may have been found of him before he came: by his help for others.
    let stands = standing(tx, &campaign.id, entrant).await?;
    if stands != Standing::Clear {
        keep_standing(tx, &campaign.id, entrant, stands).await?;
    }
    Ok(stands.as_verdict().map(str::to_owned))
}

async fn seen(tx: &mut Tx, select: Query<'_>) -> Result<Vec<Seen>, SideError> {
    let rows = tx.rows(select).await?;
    let seen = rows.iter().map(|row| {
        Ok(Seen {
            buyer: parse_buyer(&row.text("buyer")?)?,
            joined_at: Timestamp(row.int("joined_at_ms")?),
            is_marked: row.is("is_marked")?,
        })
    });
    seen.collect()
}

#[expect(
    clippy::too_many_arguments,
    reason = "one hit, spelled out once for each rule"
)]
async fn record_all(
    tx: &mut Tx,
    shop: &Shop,
    campaign: &Campaign,
    rule: &'static str,
    entrant: BuyerId,
    others: &[Seen],
    evidence: &Value,
    now: Timestamp,
) -> Result<(), SideError> {
    let unmarked = others.iter().filter(|seen| !seen.is_marked);
    let unmarked = unmarked.map(|seen| seen.buyer).take(MARKED_MAX);
    for subject in unmarked.chain([entrant]) {
        let found = Found {
            rule,
            subject,
            evidence,
        };
        // The entry holds them already.
        record_held(tx, &shop.verdict_listeners, campaign, &found, now).await?;
    }
    Ok(())
}

/// Enough of a keyed hash to see what belongs together.
fn shortened(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
