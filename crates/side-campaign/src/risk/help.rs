//! Who helped whom, and the worker that looks for rings around whoever helped, a buyer at a time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flash_types::side::BoxFuture;
use flash_types::{BuyerId, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, Tx, query};
use side_books::step::Step;

use super::rules::{self, Help};
use super::verdicts::{counts, parse_buyer, publish, record};
use super::{Found, queries};
use crate::life::{self, Campaign};
use crate::shop::Shop;

/// Most buyers that one look visits.
const BUYERS_MAX: usize = 100;
/// Most help of one buyer that is followed, the newest.
const HELPS_MAX: i64 = 50;
/// How long counted verdicts are good enough for metrics.
const COUNT_EVERY_MS: u64 = 60_000;
/// Buyers that one step looks around.
const LOOKS_OF_A_STEP: usize = 10;

/// Writes down that one buyer helped another, once per session and helper, and that somebody should look for a ring.
/// `false`: it was there.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn note_help(
    tx: &mut Tx,
    campaign: &str,
    session: &str,
    helper: BuyerId,
    owner: BuyerId,
    now: Timestamp,
) -> Result<bool, SideError> {
    let insert = query(queries::INSERT_HELP)
        .bind(campaign.to_owned())
        .bind(session.to_owned())
        .bind(helper.as_str().to_owned())
        .bind(owner.as_str().to_owned())
        .bind(now.0);
    if tx.execute(insert).await? == 0 {
        return Ok(false);
    }
    // A new edge closes rings only through itself, so a look around its beginning is enough.
    let due = query(queries::INSERT_DUE)
        .bind(campaign.to_owned())
        .bind(helper.as_str().to_owned())
        .bind(now.0);
    tx.execute(due).await?;
    Ok(true)
}

/// Looks for a ring around a buyer; all in it get verdicts. Gives how many of them are new.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn look_around(
    tx: &mut Tx,
    shop: &Shop,
    campaign: &Campaign,
    buyer: BuyerId,
    now: Timestamp,
) -> Result<usize, SideError> {
    let (helps, is_whole) = helps_around(tx, &campaign.id, buyer).await?;
    let risk = &campaign.definition.risk;
    let Some(ring) = rules::ring_around(risk, &helps, buyer) else {
        return Ok(0);
    };
    let members: Vec<&str> = ring.iter().map(BuyerId::as_str).take(20).collect();
    let evidence = json!({
        "size": ring.len(),
        "threshold": risk.ring,
        "is_whole": is_whole,
        "members": members,
    });
    let mut found_count = 0;
    for subject in &ring {
        let found = Found {
            rule: rules::HELP_RING,
            subject: *subject,
            evidence: &evidence,
        };
        let is_new = record(tx, &shop.verdict_listeners, campaign, &found, now).await?;
        found_count += usize::from(is_new);
    }
    Ok(found_count)
}

/// Whatever help leads away from a buyer, near first, up to the bounds. A ring comes back to him, so all of it is there.
async fn helps_around(
    tx: &mut Tx,
    campaign: &str,
    buyer: BuyerId,
) -> Result<(Vec<Help>, bool), SideError> {
    let mut helps = Vec::new();
    let mut known = HashSet::from([buyer]);
    let mut waiting = VecDeque::from([buyer]);
    let mut is_whole = true;
    while let Some(helper) = waiting.pop_front() {
        let select = query(queries::HELPED_BY)
            .bind(campaign.to_owned())
            .bind(helper.as_str().to_owned())
            .bind(HELPS_MAX);
        let rows = tx.rows(select).await?;
        is_whole &= (rows.len() as u64) < HELPS_MAX.unsigned_abs();
        for row in &rows {
            let owner = parse_buyer(&row.text("owner")?)?;
            helps.push((helper, owner));
            if known.contains(&owner) {
                continue;
            }
            if known.len() < BUYERS_MAX {
                known.insert(owner);
                waiting.push_back(owner);
            } else {
                is_whole = false;
            }
        }
    }
    Ok((helps, is_whole))
}

/// The worker: looks around whoever helped, and counts verdicts for metrics when nothing is left to do.
pub struct Rings {
    shop: Arc<Shop>,
    /// When verdicts were last counted.
    counted_at: Mutex<Option<Timestamp>>,
}

impl Rings {
    /// For a shop.
    pub fn new(shop: Arc<Shop>) -> Self {
        Self {
            shop,
            counted_at: Mutex::new(None),
        }
    }

    /// Counts all verdicts, which reads them all: not at every step.
    async fn count(&self, now: Timestamp) -> Result<(), SideError> {
        let is_due = {
            let mut counted_at = self.counted_at.lock();
            let is_due = counted_at.is_none_or(|at| now.0.abs_diff(at.0) >= COUNT_EVERY_MS);
            if is_due {
                *counted_at = Some(now);
            }
            is_due
        };
        if is_due {
            publish(counts(&mut self.shop.database.read().await?).await?);
        }
        Ok(())
    }

    /// `false`: nobody is left.
    async fn look(&self, now: Timestamp) -> Result<bool, SideError> {
        let mut tx = self.shop.database.begin().await?;
        let Some(row) = tx.row(query(queries::FIRST_DUE)).await? else {
            tx.rollback().await;
            return Ok(false);
        };
        let (campaign, buyer) = (row.text("campaign")?, row.text("buyer")?);
        // Taken out first: it waits for whoever is just adding help, which the look then sees.
        let delete = query(queries::DELETE_DUE)
            .bind(campaign.clone())
            .bind(buyer.clone());
        if tx.execute(delete).await? == 1
            && let Err(error) = self.around(&mut tx, &campaign, &buyer, now).await
        {
            if error.is_conflict() {
                return Err(error);
            }
            tracing::warn!(%campaign, %error, "a ring cannot be looked for; tried again");
            tx.rollback().await;
            return self.put_off(campaign, buyer, now).await;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn around(
        &self,
        tx: &mut Tx,
        campaign: &str,
        buyer: &str,
        now: Timestamp,
    ) -> Result<(), SideError> {
        if let Some(campaign) = life::find(tx, campaign).await? {
            look_around(tx, &self.shop, &campaign, parse_buyer(buyer)?, now).await?;
        }
        Ok(())
    }

    /// Behind all others; `false`, so that one that cannot be done is not asked for again and again.
    async fn put_off(
        &self,
        campaign: String,
        buyer: String,
        now: Timestamp,
    ) -> Result<bool, SideError> {
        let mut tx = self.shop.database.begin().await?;
        let later = query(queries::PUT_OFF_DUE).bind(now.0);
        tx.execute(later.bind(campaign).bind(buyer)).await?;
        tx.commit().await?;
        Ok(false)
    }
}

impl Step for Rings {
    fn name(&self) -> &'static str {
        "rings"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(async move {
            for _ in 0..LOOKS_OF_A_STEP {
                if !self.look(now).await? {
                    self.count(now).await?;
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}
