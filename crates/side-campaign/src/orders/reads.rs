//! Reading orders.

use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::{Get as _, Reads, Row, SqlError, query};

use super::queries;
use crate::fact::Order;

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    /// Its place: 0 for the first.
    pub line: i64,
    /// Of what.
    pub item: String,
    /// For people.
    pub title: Option<String>,
    /// How many.
    pub quantity: i64,
    /// Price of one, minor units.
    pub unit_price_minor: i64,
    /// How many of them were given back as money.
    pub refunded_units: i64,
}

/// Money that went back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRefund {
    /// Unique within the order.
    pub refund_ref: String,
    /// How much, minor units.
    pub amount_minor: i64,
    /// When.
    pub at: Timestamp,
}

/// An order by its id.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn find(reads: &mut impl Reads, order_id: &str) -> Result<Option<Order>, SideError> {
    let row = reads
        .row(query(queries::FIND).bind(order_id.to_owned()))
        .await?;
    row.as_ref().map(order).transpose()
}

/// When this buyer paid for the first time, as far as the books tell; orders that were refunded count.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn first_paid_at(
    reads: &mut impl Reads,
    buyer: &BuyerId,
) -> Result<Option<Timestamp>, SideError> {
    let select = query(queries::FIRST_PAID_AT).bind(buyer.as_str().to_owned());
    let row = reads.row(select).await?;
    let at = row.map(|row| row.int_or_null("at_ms")).transpose()?;
    Ok(at.flatten().map(Timestamp))
}

/// Orders of a buyer, the newest first, beyond one that was seen (by when it was paid, and its id), at most `limit`.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn of_buyer(
    reads: &mut impl Reads,
    buyer: &BuyerId,
    beyond: Option<(Timestamp, &str)>,
    limit: i64,
) -> Result<Vec<Order>, SideError> {
    let (at, id) = beyond.unwrap_or((Timestamp(i64::MAX), ""));
    let select = query(queries::OF_BUYER)
        .bind(buyer.as_str().to_owned())
        .bind(at.0)
        .bind(at.0)
        .bind(id.to_owned())
        .bind(limit);
    let rows = reads.rows(select).await?;
    rows.iter().map(order).collect()
}

/// Lines of an order, in their order.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn lines(reads: &mut impl Reads, order_id: &str) -> Result<Vec<OrderLine>, SideError> {
    let select = query(queries::LINES).bind(order_id.to_owned());
    let rows = reads.rows(select).await?;
    let lines = rows.iter().map(|row| {
        Ok(OrderLine {
            line: row.int("line")?,
            item: row.text("item")?,
            title: row.text_or_null("title")?,
            quantity: row.int("quantity")?,
            unit_price_minor: row.int("unit_price_minor")?,
            refunded_units: row.int("refunded_units")?,
        })
    });
    lines.collect()
}

/// The first refunds of an order, in time, at most `limit`.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn refunds(
    reads: &mut impl Reads,
    order_id: &str,
    limit: i64,
) -> Result<Vec<OrderRefund>, SideError> {
    let select = query(queries::REFUNDS)
        .bind(order_id.to_owned())
        .bind(limit);
    let rows = reads.rows(select).await?;
    let refunds = rows.iter().map(|row| {
        Ok(OrderRefund {
            refund_ref: row.text("refund_ref")?,
            amount_minor: row.int("amount_minor")?,
            at: Timestamp(row.int("at_ms")?),
        })
    });
    refunds.collect()
}

/// A row of `shop_order`.
pub(super) fn order(row: &Row) -> Result<Order, SideError> {
    let buyer = row.text("buyer")?;
    let buyer = BuyerId::parse(&buyer)
        .map_err(|bad| SqlError::Broken(format!("the buyer of an order {bad}")))?;
    Ok(Order {
        order_id: row.text("id")?,
        buyer,
        sale_id: row.text_or_null("sale_id")?,
        currency: row.text("currency")?,
        paid_minor: row.int("paid_minor")?,
        refunded_minor: row.int("refunded_minor")?,
        paid_at: Timestamp(row.int("paid_at_ms")?),
        received_at: row.int_or_null("received_at_ms")?.map(Timestamp),
        is_first: row.is("is_first")?,
    })
}
