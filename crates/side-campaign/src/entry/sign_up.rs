//! Sign-up tasks that the storefront reports as done.

use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::{Get as _, Reads, SqlError, Tx, query};

use super::{EntryRefusal, queries};
use crate::life::Campaign;
use crate::state::State;

/// Writes down that a buyer did the task that the campaign asks for, once; gives the time of the first report.
/// It may be done before the start.
///
/// # Errors
/// A refusal where the campaign is over, or asks for another task; the database's.
///
/// # Cancel safety
/// The caller's transaction is rolled back.
pub async fn sign_up(
    tx: &mut Tx,
    campaign: &Campaign,
    buyer: BuyerId,
    task: &str,
    now: Timestamp,
) -> Result<(bool, Timestamp), SideError> {
    match campaign.state {
        State::Draft => return Err(EntryRefusal::NoSuchCampaign.into()),
        State::Ended | State::Settling | State::Settled | State::Archived | State::Cancelled => {
            return Err(EntryRefusal::Ended.into());
        }
        State::Published | State::Warmup | State::Running | State::Paused => {}
    }
    let asked = &campaign.definition.eligibility.sign_up_task;
    if asked.as_deref() != Some(task) {
        return Err(EntryRefusal::OtherTask(asked.clone()).into());
    }
    let insert = query(queries::INSERT_SIGN_UP)
        .bind(campaign.id.clone())
        .bind(buyer.as_str().to_owned())
        .bind(task.to_owned())
        .bind(now.0);
    let is_first = tx.execute(insert).await? == 1;
    let done_at = find(tx, &campaign.id, buyer, task).await?;
    Ok((is_first, done_at.ok_or(SqlError::Conflict)?))
}

/// Whether it was done.
pub(super) async fn is_done(
    reads: &mut impl Reads,
    campaign: &str,
    buyer: BuyerId,
    task: &str,
) -> Result<bool, SideError> {
    Ok(find(reads, campaign, buyer, task).await?.is_some())
}

async fn find(
    reads: &mut impl Reads,
    campaign: &str,
    buyer: BuyerId,
    task: &str,
) -> Result<Option<Timestamp>, SideError> {
    let select = query(queries::FIND_SIGN_UP)
        .bind(campaign.to_owned())
        .bind(buyer.as_str().to_owned())
        .bind(task.to_owned());
    let row = reads.row(select).await?;
    Ok(row.map(|row| row.int("at_ms").map(Timestamp)).transpose()?)
}
