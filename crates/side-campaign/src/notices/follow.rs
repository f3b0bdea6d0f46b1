//! What notices do when something happened to an order: reminders to pay, and which order followed which notice.

use std::time::Duration;

use flash_types::side::BoxFuture;
use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, Tx};

use super::calendar::Subject;
use super::outbox::{ToBuyer, put, withdraw};
use super::queries;
use crate::fact::{Fact, Order, React};

/// Below this, nobody is reminded to pay.
const WINDOW_MIN: Duration = Duration::from_secs(120);
/// An order follows a notice that was sent so long before it at most.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Goes by facts: one of the shop's reactors.
#[derive(Debug, Clone, Copy, Default)]
pub struct Follow;

impl React for Follow {
    fn react<'a>(
        &'a self,
        tx: &'a mut Tx,
        fact: &'a Fact,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>> {
        Box::pin(async move {
            match fact {
                Fact::Reserved {
                    reservation_id,
                    sale_id,
                    buyer,
                    expires_at,
                } => remind_to_pay(tx, reservation_id, sale_id, buyer, *expires_at, now).await,
                Fact::Closed { reservation_id } => withdraw(tx, &pay_key(reservation_id)).await,
                Fact::Paid(order) => follow(tx, order).await,
                Fact::Refunded { order, .. } => {
                    let update = queries::refund_order(&order.order_id, order.refunded_minor);
                    tx.execute(update).await?;
                    Ok(())
                }
                Fact::Received(_) => Ok(()),
            }
        })
    }
}

fn pay_key(reservation_id: &str) -> String {
    format!("pay_reminder|{reservation_id}")
}

/// When half of the window is left, which is a minute at least. Told again with a later end, it moves with it.
async fn remind_to_pay(
    tx: &mut Tx,
    reservation_id: &str,
    sale_id: &str,
    buyer: &BuyerId,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), SideError> {
    let window = now.until(expires_at);
    if window < WINDOW_MIN {
        return Ok(());
    }
    let due_at = now.plus(window / 2);
    let key = pay_key(reservation_id);
    let words = format!(
        "Your reservation waits to be paid until {}; then its units go to others",
        expires_at.text().as_str()
    );
    let is_new = put(
        tx,
        &ToBuyer {
            key: &key,
            kind: "pay_reminder",
            buyer: buyer.as_str(),
            words: &words,
            subject: &Subject::Sale(sale_id.to_owned()),
            due_at,
            until: Some(expires_at),
        },
        now,
    )
    .await?;
    if !is_new {
        tx.execute(queries::move_notice(&key, &words, due_at.0, expires_at.0))
            .await?;
    }
    Ok(())
}

/// The order counts for the last reminder or care message that was sent to its buyer within a week before it, once.
async fn follow(tx: &mut Tx, order: &Order) -> Result<(), SideError> {
    let to = order.paid_at.0;
    let within = i64::try_from(FOLLOWS_WITHIN.as_millis()).unwrap_or(i64::MAX);
    let last = queries::last_sent(order.buyer.as_str(), to.saturating_sub(within), to);
    let Some(notice) = tx.row(last).await? else {
        return Ok(());
    };
    let subject = notice.text_or_null("subject")?;
    let (id, kind) = (notice.text("id")?, notice.text("kind")?);
    tx.execute(queries::insert_order(order, &id, subject, kind))
        .await?;
    Ok(())
}
