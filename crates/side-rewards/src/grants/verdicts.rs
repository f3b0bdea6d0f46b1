//! What verdicts do to rewards: they wait, are taken back, or are given again once a person says that all was right.

use flash_types::side::BoxFuture;
use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, SqlError, Tx, query};
use side_campaign::life::{self, Campaign};
use side_campaign::risk::{Decision, OnVerdict, Standing, Stands};

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
            let buyer = stands.buyer.as_str();
            let reason = format!("{BY_VERDICT}{} {}", stands.verdict, stands.reason);
            match stands.standing {
                // What was given may be used; what is granted from now on waits.
                Standing::Review => Ok(()),
                Standing::Deny => {
                    take_back::on_verdict(tx, &stands.campaign, buyer, true, &reason, now).await?;
                    Ok(())
                }
                Standing::Clear => {
                    take_back::on_verdict(tx, &stands.campaign, buyer, false, &reason, now).await?;
                    if stands.decision == Some(Decision::Allow) {
                        give_again(tx, &stands.campaign, stands.buyer, now).await?;
                    }
                    Ok(())
                }
            }
        })
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
