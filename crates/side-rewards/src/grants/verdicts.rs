//! What verdicts do to rewards: they wait, are taken back, or are given again once a person says that all was right.

use std::sync::Arc;
use std::time::Duration;

use flash_types::side::BoxFuture;
use flash_types::{BuyerId, Timestamp};
use side_books::sql::{Get as _, Reads as _, SqlError, Tx, query};
use side_books::step::Step;
use side_books::{SideError, books};
use side_campaign::entry;
use side_campaign::life::{self, Campaign};
use side_campaign::risk::{OnVerdict, Standing, Stands};
use side_campaign::shop::Shop;

use super::queries;
use super::{Grant, grant, take_back};

/// What the reason of a grant begins with that a verdict took back, or never let be given.
pub(super) const BY_VERDICT: &str = "verdict:";

/// Most grants of one buyer and campaign that are given again.
const AGAIN_MAX: i64 = 1_000;

/// Rewards go by verdicts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdicts;

impl OnVerdict for Verdicts {
    fn on_verdict<'a>(
        &'a self,
        tx: &'a mut Tx,
        stands: &'a Stands,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>> {
        Box::pin(async move {
            if books::is_frozen(tx, &stands.campaign).await? {
                // Its budget moves nothing now, and nobody else may wait for that.
                return put_off(tx, stands, now).await;
            }
            follow(tx, &Due::of(stands), stands.buyer, now).await
        })
    }
}

/// What a verdict asks for, as it is put off.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    campaign: String,
    is_denied: bool,
    is_allowed: bool,
    reason: String,
}

impl Due {
    fn of(stands: &Stands) -> Self {
        Self {
            campaign: stands.campaign.clone(),
            is_denied: stands.standing == Standing::Deny,
            is_allowed: stands.standing == Standing::Clear,
            reason: format!("{BY_VERDICT}{} {}", stands.verdict, stands.reason),
        }
    }
}

async fn follow(tx: &mut Tx, due: &Due, buyer: BuyerId, now: Timestamp) -> Result<(), SideError> {
    let (campaign, reason) = (&due.campaign, &due.reason);
    // Under review, what was given may be used; what is granted from now on waits.
    if due.is_denied || due.is_allowed {
        take_back::on_verdict(tx, campaign, buyer.as_str(), due.is_denied, reason, now).await?;
    }
    if due.is_allowed {
        give_again(tx, campaign, buyer, now).await?;
    }
    Ok(())
}

/// The last word about a buyer, to be followed once the campaign's budget moves again.
async fn put_off(tx: &mut Tx, stands: &Stands, now: Timestamp) -> Result<(), SideError> {
    let due = Due::of(stands);
    let insert = query(queries::PUT_OFF)
        .bind(due.campaign)
        .bind(stands.buyer.as_str().to_owned())
        .bind(i64::from(due.is_denied))
        .bind(i64::from(due.is_allowed))
        .bind(due.reason)
        .bind(now.0);
    tx.execute(insert).await?;
    Ok(())
}

/// Follows verdicts that were put off.
pub(super) struct PutOff {
    shop: Arc<Shop>,
}

impl PutOff {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn follow_one(&self, now: Timestamp) -> Result<bool, SideError> {
        let first = query(queries::FIRST_PUT_OFF);
        let Some(row) = self.shop.database.read().await?.row(first).await? else {
            return Ok(false);
        };
        let due = Due {
            campaign: row.text("campaign")?,
            is_denied: row.is("is_denied")?,
            is_allowed: row.is("is_allowed")?,
            reason: row.text("reason")?,
        };
        let buyer = BuyerId::parse(&row.text("buyer")?)
            .map_err(|bad| SqlError::Broken(format!("a buyer {bad}")))?;
        let mut tx = self.shop.database.begin().await?;
        entry::hold_entries(&mut tx, &due.campaign).await?;
        let taken = query(queries::TAKE_PUT_OFF)
            .bind(due.campaign.clone())
            .bind(buyer.as_str().to_owned())
            .bind(row.int("at_ms")?);
        if tx.execute(taken).await? == 1 {
            follow(&mut tx, &due, buyer, now).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}

impl Step for PutOff {
    fn name(&self) -> &'static str {
        "verdicts_put_off"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(self.follow_one(now))
    }
}

/// Gives what a verdict took back, once for each grant; what ran dry meanwhile stays taken.
async fn give_again(
    tx: &mut Tx,
    campaign_id: &str,
    buyer: BuyerId,
    now: Timestamp,
) -> Result<(), SideError> {
    let Some(campaign) = life::find(tx, campaign_id).await? else {
        return Ok(());
    };
    let select = query(queries::TAKEN_BY_VERDICT)
        .bind(campaign_id.to_owned())
        .bind(buyer.as_str().to_owned())
        .bind(BY_VERDICT)
        .bind(AGAIN_MAX);
    for row in tx.rows(select).await? {
        let order_id = row.text_or_null("order_id")?;
        let wanted = Grant {
            source: &format!("again:{}", row.text("id")?),
            reward: &row.text("reward")?,
            buyer,
            order_id: order_id.as_deref(),
            verdict: None,
        };
        again(tx, &campaign, &wanted, now).await?;
    }
    Ok(())
}

async fn again(
    tx: &mut Tx,
    campaign: &Campaign,
    wanted: &Grant<'_>,
    now: Timestamp,
) -> Result<(), SideError> {
    match grant(tx, campaign, wanted, now).await {
        // A version may have dropped no reward: one that is not named any more is damage, but not this buyer's.
        Err(SideError::Sql(SqlError::Broken(why))) => {
            tracing::error!(why, "a reward cannot be given again");
            Ok(())
        }
        other => other.map(drop),
    }
}
