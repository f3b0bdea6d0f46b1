//! What one event brings about. What must have happened before it is told first, so that events that were lost or come
//! late leave the same books and the same facts.
// waiting -> waiting (longer) | closed; and beside it: no order -> paid -> refunded units, which only grow.

use flash_types::side::DeskEvent;
use flash_types::{BuyerId, Timestamp};
use serde::Deserialize;
use side_books::SideError;
use side_books::sql::{SqlError, Tx, query};

use super::queries;
use crate::fact::Fact;
use crate::orders::{
    Entry, EntryLine, LineUnits, Recorded, Refund, Source, paid_no_later, record, refund_units,
    tell,
};
use crate::shop::Shop;

/// A reservation as events show it: the contract's JSON, of which further members are of no interest.
#[derive(Debug, Deserialize)]
struct Told {
    reservation_id: String,
    sale_id: String,
    buyer_id: BuyerId,
    lines: Vec<ToldLine>,
    amount_minor: i64,
    currency: String,
    expires_at: Timestamp,
    refund: Option<ToldRefund>,
}

#[derive(Debug, Deserialize)]
struct ToldLine {
    item: String,
    quantity: i64,
    unit_price_minor: i64,
    refunded_units: i64,
}

#[derive(Debug, Deserialize)]
struct ToldRefund {
    /// Absent where all was refunded without a name.
    refund_ref: Option<String>,
}

/// Applies an event.
///
/// # Errors
/// The database's; `Broken` for an event that cannot be read.
pub async fn apply(
    tx: &mut Tx,
    shop: &Shop,
    event: &DeskEvent,
    now: Timestamp,
) -> Result<(), SideError> {
    let (is_closed, is_paid, is_refunded) = match event.kind.as_str() {
        "reservation.reserved" | "reservation.extended" => (false, false, false),
        "reservation.released" | "reservation.expired" => (true, false, false),
        "reservation.confirmed" => (true, true, false),
        "reservation.refunded" => (true, true, true),
        // Of sales, of stock, of what is due: nothing that is kept here.
        _ => return Ok(()),
    };
    let told = Told::deserialize(&event.data).map_err(|error| {
        SqlError::Broken(format!("the event {} cannot be read: {error}", event.id))
    })?;
    open(tx, shop, &told, now).await?;
    if is_paid {
        pay(tx, shop, event, &told, now).await?;
    }
    if is_closed {
        close(tx, shop, &told, now).await?;
    }
    if is_refunded {
        refund(tx, shop, event, &told, now).await?;
    }
    Ok(())
}

async fn open(tx: &mut Tx, shop: &Shop, told: &Told, now: Timestamp) -> Result<(), SideError> {
    let open = query(queries::OPEN)
        .bind(told.reservation_id.clone())
        .bind(told.expires_at.0);
    let is_new = tx.execute(open).await? == 1;
    if !is_new && !extend(tx, told).await? {
        return Ok(());
    }
    let fact = Fact::Reserved {
        reservation_id: told.reservation_id.clone(),
        sale_id: told.sale_id.clone(),
        buyer: told.buyer_id,
        expires_at: told.expires_at,
    };
    tell(tx, shop, &fact, now).await
}

/// `false` where it is closed, or known to wait as long: events that come twice or late change nothing.
async fn extend(tx: &mut Tx, told: &Told) -> Result<bool, SqlError> {
    let extend = query(queries::EXTEND)
        .bind(told.expires_at.0)
        .bind(told.reservation_id.clone());
    Ok(tx.execute(extend).await? == 1)
}

async fn close(tx: &mut Tx, shop: &Shop, told: &Told, now: Timestamp) -> Result<(), SideError> {
    let close = query(queries::CLOSE).bind(told.reservation_id.clone());
    if tx.execute(close).await? == 0 {
        return Ok(());
    }
    let fact = Fact::Closed {
        reservation_id: told.reservation_id.clone(),
    };
    tell(tx, shop, &fact, now).await
}

async fn pay(
    tx: &mut Tx,
    shop: &Shop,
    event: &DeskEvent,
    told: &Told,
    now: Timestamp,
) -> Result<(), SideError> {
    let lines = told.lines.iter().map(|line| EntryLine {
        item: line.item.clone(),
        title: None,
        quantity: line.quantity,
        unit_price_minor: line.unit_price_minor,
    });
    let entry = Entry {
        order_id: told.reservation_id.clone(),
        source: Source::Engine,
        buyer: told.buyer_id,
        sale_id: Some(told.sale_id.clone()),
        currency: told.currency.clone(),
        paid_minor: told.amount_minor,
        paid_at: event.at,
        lines: lines.collect(),
    };
    match record(tx, shop, &entry, now).await? {
        Recorded::New(_) => Ok(()),
        Recorded::Known => paid_no_later(tx, &entry.order_id, &entry.buyer, event.at).await,
    }
}

async fn refund(
    tx: &mut Tx,
    shop: &Shop,
    event: &DeskEvent,
    told: &Told,
    now: Timestamp,
) -> Result<(), SideError> {
    let named = told.refund.as_ref();
    let named = named.and_then(|refund| refund.refund_ref.as_deref());
    let refund = Refund {
        order_id: &told.reservation_id,
        refund_ref: named.unwrap_or(&event.id),
        amount_minor: 0,
        at: event.at,
        told_by: Source::Engine,
    };
    let units = (0_i64..).zip(&told.lines).map(|(line, told)| LineUnits {
        line,
        refunded_units: told.refunded_units,
    });
    let units: Vec<LineUnits> = units.collect();
    refund_units(tx, shop, &refund, &event.id, &units, now).await
}
