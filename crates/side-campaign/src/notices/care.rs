//! A merchant's message to the buyers of certain orders, sent in pieces.

use std::sync::Arc;
use std::time::Duration;

use flash_types::side::{BoxFuture, SideAnswer};
use flash_types::{SaleId, Timestamp};
use serde::{Deserialize, Serialize};
use side_books::note::{self, Note};
use side_books::sql::{Get as _, Reads as _, Row, Tx};
use side_books::step::Step;
use side_books::{SideError, id};
use utoipa::ToSchema;

use super::calendar::{Planned, Subject};
use super::outbox::{ToBuyer, put};
use super::queries::{self, NewCare};
use super::refusal::Refusal;
use crate::shop::Shop;

/// Orders in one transaction.
const PIECE: i64 = 200;
/// Longest text.
const TEXT_CHARS_MAX: usize = 500;

/// Body of a care message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CareBody {
    /// What it says: 1-500 characters.
    text: String,
    /// Orders paid from then on; absent: from the campaign's start. RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    paid_after: Option<Timestamp>,
    /// Orders paid before then; absent: until now. RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    paid_before: Option<Timestamp>,
    /// Only orders of this sale.
    sale: Option<String>,
    /// Only orders that are not known to have arrived.
    #[serde(default)]
    not_received: bool,
}

impl CareBody {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let wrong = |detail: &str| Err(Refusal::Malformed(detail.to_owned()));
        let is_text = |text: &str| {
            let chars = text.chars().count();
            let has_control = text.chars().any(|it| it.is_control() && it != '\n');
            (1..=TEXT_CHARS_MAX).contains(&chars) && !has_control && !text.trim().is_empty()
        };
        if !is_text(&self.text) {
            return wrong("text is not 1-500 characters without control characters");
        }
        if let Some(Err(bad)) = self.sale.as_deref().map(SaleId::parse) {
            return wrong(&format!("sale {bad}"));
        }
        match (self.paid_after, self.paid_before) {
            (Some(after), Some(before)) if after >= before => {
                wrong("paid_after is not before paid_before")
            }
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }
}

/// A care message that is being sent.
#[derive(Serialize, ToSchema)]
pub(super) struct Care {
    care_id: String,
    /// Orders paid from then on.
    #[schema(value_type = String, format = DateTime)]
    paid_after: Timestamp,
    /// Orders paid before then.
    #[schema(value_type = String, format = DateTime)]
    paid_before: Timestamp,
}

/// Writes a care message down to be sent.
pub(super) async fn begin(
    tx: &mut Tx,
    campaign: &str,
    planned: &Planned,
    body: &CareBody,
    who: &str,
    now: Timestamp,
) -> Result<SideAnswer, SideError> {
    let care_id = id::fresh("ca", now);
    // What is paid from now on is not what the merchant looked at.
    let before = body.paid_before.unwrap_or(now).min(now);
    let after = body.paid_after.unwrap_or(planned.starts_at);
    let new = NewCare {
        id: &care_id,
        campaign,
        words: &body.text,
        paid_after_ms: after.0,
        paid_before_ms: before.0,
        only_sale: body.sale.as_deref(),
        not_received: body.not_received,
        at_ms: now.0,
    };
    tx.execute(queries::insert_care(&new)).await?;
    let note = Note {
        who,
        what: "campaign.care",
        campaign: Some(campaign),
        subject: Some(&care_id),
        detail: &body.text,
    };
    note::write(tx, &note, now).await?;
    let begun = Care {
        care_id,
        paid_after: after,
        paid_before: before,
    };
    Ok(SideAnswer::json(202, &begun))
}

/// Sends care messages.
pub struct CareStep {
    shop: Arc<Shop>,
}

impl CareStep {
    /// Of this shop.
    pub fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn piece(&self, now: Timestamp) -> Result<bool, SideError> {
        let mut reader = self.shop.database.read().await?;
        let care = reader.row(queries::due_care()).await?;
        drop(reader);
        let Some(care) = care else {
            return Ok(false);
        };
        let mut tx = self.shop.database.begin().await?;
        let (from_ms, from) = (care.int("after_ms")?, care.text("after_order")?);
        let before_ms = care.int("paid_before_ms")?;
        let orders = queries::orders_between(from_ms, &from, before_ms, PIECE);
        let orders = tx.rows(orders).await?;
        let (to_ms, to) = match orders.last() {
            Some(last) => (last.int("paid_at_ms")?, last.text("id")?),
            None => (from_ms, from.clone()),
        };
        let is_done = orders.len() < usize::try_from(PIECE).unwrap_or(usize::MAX);
        let care_id = care.text("id")?;
        let advance = queries::advance_care(&care_id, (from_ms, &from), (to_ms, &to), is_done);
        if tx.execute(advance).await? == 1 {
            tell(&mut tx, &care, &care_id, &orders, now).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// Each buyer of these orders once.
async fn tell(
    tx: &mut Tx,
    care: &Row,
    care_id: &str,
    orders: &[Row],
    now: Timestamp,
) -> Result<(), SideError> {
    let only_sale = care.text_or_null("only_sale")?;
    let not_received = care.is("not_received")?;
    let mut buyers = Vec::new();
    for order in orders {
        let is_of_sale = only_sale.is_none() || order.text_or_null("sale_id")? == only_sale;
        let has_come = order.int_or_null("received_at_ms")?.is_some();
        if is_of_sale && order.is("is_whole")? && !(not_received && has_come) {
            buyers.push(order.text("buyer")?);
        }
    }
    buyers.sort_unstable();
    buyers.dedup();
    let words = care.text("words")?;
    let subject = Subject::Campaign(care.text("campaign")?);
    for buyer in &buyers {
        put(
            tx,
            &ToBuyer {
                key: &format!("order_care|{care_id}|{buyer}"),
                kind: "order_care",
                buyer,
                words: &words,
                subject: &subject,
                due_at: now,
                until: None,
            },
            now,
        )
        .await?;
    }
    Ok(())
}

impl Step for CareStep {
    fn name(&self) -> &'static str {
        "order-care"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(self.piece(now))
    }
}
