//! Writing orders down, and telling what happened to them.

use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, Tx, query};

use super::refusal::Refusal;
use super::{OrderLine, lines, queries, reads, tell};
use crate::fact::{Fact, Order};
use crate::shop::Shop;

/// Who tells of an order or a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The engine, by an event.
    Engine,
    /// The shop.
    Shop,
}

impl Source {
    /// The word in the books and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Shop => "shop",
        }
    }
}

/// An order on its way into the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub order_id: String,
    /// Who tells it.
    pub source: Source,
    /// Whose.
    pub buyer: BuyerId,
    /// Of which sale.
    pub sale_id: Option<String>,
    /// ISO 4217.
    pub currency: String,
    /// What was paid, minor units.
    pub paid_minor: i64,
    /// When.
    pub paid_at: Timestamp,
    /// What was bought.
    pub lines: Vec<EntryLine>,
}

/// A line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryLine {
    /// Of what.
    pub item: String,
    /// For people.
    pub title: Option<String>,
    /// How many.
    pub quantity: i64,
    /// Price of one, minor units.
    pub unit_price_minor: i64,
}

/// What [`record`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It is new, and was told.
    New(Order),
    /// An order of this id is in the books; nothing was changed, whatever it holds.
    Known,
}

/// Writes an order down, and tells that it was paid. Two at once: one is new.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn record(
    tx: &mut Tx,
    shop: &Shop,
    entry: &Entry,
    now: Timestamp,
) -> Result<Recorded, SideError> {
    let insert = query(queries::INSERT)
        .bind(entry.order_id.clone())
        .bind(entry.source.as_str())
        .bind(entry.buyer.as_str().to_owned())
        .bind(entry.sale_id.clone())
        .bind(entry.currency.clone())
        .bind(entry.paid_minor)
        .bind(entry.paid_at.0);
    if tx.execute(insert).await? == 0 {
        return Ok(Recorded::Known);
    }
    for (place, line) in (0_i64..).zip(&entry.lines) {
        let insert = query(queries::INSERT_LINE)
            .bind(entry.order_id.clone())
            .bind(place)
            .bind(line.item.clone())
            .bind(line.title.clone())
            .bind(line.quantity)
            .bind(line.unit_price_minor);
        tx.execute(insert).await?;
    }
    let first = query(queries::INSERT_FIRST)
        .bind(entry.buyer.as_str().to_owned())
        .bind(entry.order_id.clone())
        .bind(entry.paid_at.0);
    let is_first = tx.execute(first).await? == 1;
    if is_first {
        tx.execute(query(queries::MARK_FIRST).bind(entry.order_id.clone()))
            .await?;
    } else {
        let earlier = query(queries::FIRST_WAS_EARLIER)
            .bind(entry.paid_at.0)
            .bind(entry.buyer.as_str().to_owned());
        tx.execute(earlier).await?;
    }
    let order = Order {
        order_id: entry.order_id.clone(),
        buyer: entry.buyer,
        sale_id: entry.sale_id.clone(),
        currency: entry.currency.clone(),
        paid_minor: entry.paid_minor,
        refunded_minor: 0,
        paid_at: entry.paid_at,
        received_at: None,
        is_first,
    };
    tell(tx, shop, &Fact::Paid(order.clone()), now).await?;
    Ok(Recorded::New(order))
}

/// Corrects when an order was paid: its refund may have been seen before its payment.
pub(crate) async fn paid_no_later(
    tx: &mut Tx,
    order_id: &str,
    buyer: &BuyerId,
    at: Timestamp,
) -> Result<(), SideError> {
    let update = query(queries::PAID_NO_LATER)
        .bind(at.0)
        .bind(order_id.to_owned())
        .bind(at.0);
    if tx.execute(update).await? == 1 {
        let update = query(queries::FIRST_PAID_AT_LAST)
            .bind(at.0)
            .bind(buyer.as_str().to_owned())
            .bind(order_id.to_owned());
        tx.execute(update).await?;
    }
    Ok(())
}

/// Writes down when an order arrived; the first time holds.
///
/// # Errors
/// A refusal; the database's.
pub(super) async fn receive(
    tx: &mut Tx,
    shop: &Shop,
    order_id: &str,
    at: Timestamp,
    now: Timestamp,
) -> Result<Order, SideError> {
    let update = query(queries::RECEIVE).bind(at.0).bind(order_id.to_owned());
    let is_new = tx.execute(update).await? == 1;
    let order = reads::find(tx, order_id).await?;
    let order = order.ok_or(Refusal::NoSuchOrder)?;
    if is_new {
        tell(tx, shop, &Fact::Received(order.clone()), now).await?;
    }
    Ok(order)
}

/// The order, which nobody else changes from here to the end of the transaction. Whoever changes refunds or lines begins
/// with it.
async fn lock(tx: &mut Tx, order_id: &str) -> Result<Option<Order>, SideError> {
    let row = tx
        .row(query(queries::LOCK).bind(order_id.to_owned()))
        .await?;
    row.as_ref().map(reads::order).transpose()
}

/// A refund on its way into the books.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refund<'a> {
    pub order_id: &'a str,
    pub refund_ref: &'a str,
    pub amount_minor: i64,
    pub at: Timestamp,
    pub told_by: Source,
}

/// Writes a refund of a locked order down and tells it; the caller has seen that it is not more than is left. `None`: it
/// was there.
async fn put_refund(
    tx: &mut Tx,
    shop: &Shop,
    mut order: Order,
    refund: &Refund<'_>,
    now: Timestamp,
) -> Result<Option<Order>, SideError> {
    let insert = query(queries::INSERT_REFUND)
        .bind(refund.order_id.to_owned())
        .bind(refund.refund_ref.to_owned())
        .bind(refund.amount_minor)
        .bind(refund.at.0)
        .bind(refund.told_by.as_str());
    if tx.execute(insert).await? == 0 {
        return Ok(None);
    }
    let add = query(queries::ADD_REFUND)
        .bind(refund.amount_minor)
        .bind(refund.order_id.to_owned())
        .bind(refund.amount_minor);
    if tx.execute(add).await? == 0 {
        let left_minor = order.paid_minor - order.refunded_minor;
        return Err(Refusal::MoreThanPaid { left_minor }.into());
    }
    order.refunded_minor += refund.amount_minor;
    let fact = Fact::Refunded {
        order: order.clone(),
        refund_ref: refund.refund_ref.to_owned(),
        amount_minor: refund.amount_minor,
    };
    tell(tx, shop, &fact, now).await?;
    Ok(Some(order))
}

/// Amount of a refund that is in the books, and who told it.
async fn known_refund(
    tx: &mut Tx,
    order_id: &str,
    refund_ref: &str,
) -> Result<Option<(i64, String)>, SideError> {
    let select = query(queries::FIND_REFUND)
        .bind(order_id.to_owned())
        .bind(refund_ref.to_owned());
    let row = tx.row(select).await?;
    let known = row.map(|row| Ok::<_, SideError>((row.int("amount_minor")?, row.text("told_by")?)));
    known.transpose()
}

/// A refund as the shop tells it: an amount, perhaps the units (by item) that it is for. The same again changes nothing.
///
/// # Errors
/// A refusal; the database's.
pub(super) async fn refund_money(
    tx: &mut Tx,
    shop: &Shop,
    refund: &Refund<'_>,
    units: &[(String, i64)],
    now: Timestamp,
) -> Result<Order, SideError> {
    let order = lock(tx, refund.order_id).await?;
    let order = order.ok_or(Refusal::NoSuchOrder)?;
    match known_refund(tx, refund.order_id, refund.refund_ref).await? {
        Some((amount_minor, _)) if amount_minor == refund.amount_minor => return Ok(order),
        Some(_) => return Err(Refusal::OtherRefund.into()),
        None => {}
    }
    let known = lines(tx, refund.order_id).await?;
    for (line, refunded_units) in spread(&known, units)? {
        raise(tx, refund.order_id, line, refunded_units).await?;
    }
    let put = put_refund(tx, shop, order.clone(), refund, now).await?;
    Ok(put.unwrap_or(order))
}

/// Lays units by item on the lines of that item, the first ones first; gives the lines that change, with what is refunded
/// of them in all.
fn spread(known: &[OrderLine], units: &[(String, i64)]) -> Result<Vec<(i64, i64)>, Refusal> {
    let mut refunded: Vec<i64> = known.iter().map(|line| line.refunded_units).collect();
    for (item, quantity) in units {
        let mut left = *quantity;
        for (line, refunded) in known.iter().zip(&mut refunded) {
            if line.item == *item {
                let more = left.min(line.quantity - *refunded);
                *refunded += more;
                left -= more;
            }
        }
        if left > 0 {
            return Err(Refusal::MoreThanBought);
        }
    }
    let changed = known.iter().zip(refunded);
    let changed = changed.filter(|(line, refunded)| *refunded > line.refunded_units);
    Ok(changed
        .map(|(line, refunded)| (line.line, refunded))
        .collect())
}

/// Units of a line that were refunded in all, as the engine tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineUnits {
    pub line: i64,
    pub refunded_units: i64,
}

/// A refund as the engine tells it: how many units of each line went back *in all*. What is known already is not told
/// again, so it may come twice, or after a later one. `refund.amount_minor` is not looked at; `event_id` names the refund
/// where its own name is taken by another one.
///
/// What the shop told itself under the same name is the same money; in no case goes back more than was paid.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub(crate) async fn refund_units(
    tx: &mut Tx,
    shop: &Shop,
    refund: &Refund<'_>,
    event_id: &str,
    told: &[LineUnits],
    now: Timestamp,
) -> Result<(), SideError> {
    let Some(order) = lock(tx, refund.order_id).await? else {
        return Ok(());
    };
    let known = lines(tx, refund.order_id).await?;
    let (changed, worth_minor) = news(&known, told);
    if changed.is_empty() {
        return Ok(());
    }
    for (line, refunded_units) in changed {
        raise(tx, refund.order_id, line, refunded_units).await?;
    }
    let (refund_ref, rest_minor) =
        match known_refund(tx, refund.order_id, refund.refund_ref).await? {
            Some((amount_minor, told_by)) if told_by == Source::Shop.as_str() => {
                if amount_minor >= worth_minor {
                    return Ok(());
                }
                (event_id, worth_minor - amount_minor)
            }
            Some(_) => (event_id, worth_minor),
            None => (refund.refund_ref, worth_minor),
        };
    let left_minor = order.paid_minor - order.refunded_minor;
    let put = Refund {
        refund_ref,
        amount_minor: rest_minor.min(left_minor),
        ..*refund
    };
    put_refund(tx, shop, order, &put, now).await?;
    Ok(())
}

/// The lines of which more is refunded than was known, with what is refunded of them in all; and what the difference is
/// worth.
fn news(known: &[OrderLine], told: &[LineUnits]) -> (Vec<(i64, i64)>, i64) {
    let mut changed = Vec::new();
    let mut worth_minor: i64 = 0;
    for line in known {
        let told = told.iter().find(|told| told.line == line.line);
        let refunded = told.map_or(0, |told| told.refunded_units.min(line.quantity));
        if refunded > line.refunded_units {
            let units = refunded - line.refunded_units;
            worth_minor = worth_minor.saturating_add(units.saturating_mul(line.unit_price_minor));
            changed.push((line.line, refunded));
        }
    }
    (changed, worth_minor)
}

async fn raise(
    tx: &mut Tx,
    order_id: &str,
    line: i64,
    refunded_units: i64,
) -> Result<(), SideError> {
    let update = query(queries::RAISE_REFUNDED_UNITS)
        .bind(refunded_units)
        .bind(order_id.to_owned())
        .bind(line)
        .bind(refunded_units);
    tx.execute(update).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bought(lines: &[(u8, i64, i64)]) -> Vec<OrderLine> {
        let lines = (0..).zip(lines);
        let lines = lines.map(|(line, (item, quantity, price))| OrderLine {
            line,
            item: format!("i{item}"),
            title: None,
            quantity: *quantity,
            unit_price_minor: *price,
            refunded_units: 0,
        });
        lines.collect()
    }

    fn change(lines: &mut [OrderLine], changed: &[(i64, i64)]) {
        for (line, refunded) in changed {
            let line = &mut lines[usize::try_from(*line).unwrap()];
            assert!(*refunded > line.refunded_units && *refunded <= line.quantity);
            line.refunded_units = *refunded;
        }
    }

    proptest! {
        /// Totals in any order, any of them twice: in the end the greatest ones hold, and what was told of them adds up.
        #[test]
        fn totals_add_up_in_any_order(
            lines in prop::collection::vec((0_u8..3, 1_i64..20, 0_i64..1_000), 1..6),
            told in prop::collection::vec(prop::collection::vec(0_i64..30, 6), 0..12),
        ) {
            let mut known = bought(&lines);
            let mut sum = 0;
            for totals in &told {
                let totals: Vec<LineUnits> = (0_i64..).zip(totals)
                    .map(|(line, units)| LineUnits { line, refunded_units: *units })
                    .collect();
                let (changed, worth) = news(&known, &totals);
                change(&mut known, &changed);
                sum += worth;
                prop_assert_eq!(news(&known, &totals), (vec![], 0), "the same again");
            }
            for (place, line) in known.iter().enumerate() {
                let most = told.iter().map(|totals| totals[place].min(line.quantity)).max();
                prop_assert_eq!(line.refunded_units, most.unwrap_or(0));
            }
            let worth: i64 = known.iter().map(|line| line.refunded_units * line.unit_price_minor).sum();
            prop_assert_eq!(sum, worth);
        }

        /// Units by item land on lines of that item, all of them or none.
        #[test]
        fn units_are_spread_whole(
            lines in prop::collection::vec((0_u8..3, 1_i64..20, Just(1_i64)), 1..6),
            units in prop::collection::vec((0_u8..4, 1_i64..30), 1..4),
        ) {
            let mut known = bought(&lines);
            let asked: Vec<(String, i64)> =
                units.iter().map(|(item, units)| (format!("i{item}"), *units)).collect();
            let of = |item: &str| -> (i64, i64) {
                let asked = asked.iter().filter(|(name, _)| name == item).map(|(_, units)| units).sum();
                let there = known.iter().filter(|line| line.item == item).map(|line| line.quantity).sum();
                (asked, there)
            };
            let fits = asked.iter().all(|(item, _)| of(item).0 <= of(item).1);
            match spread(&known, &asked) {
                Ok(changed) => {
                    prop_assert!(fits);
                    change(&mut known, &changed);
                    let all: i64 = known.iter().map(|line| line.refunded_units).sum();
                    prop_assert_eq!(all, asked.iter().map(|(_, units)| units).sum::<i64>());
                }
                Err(refusal) => {
                    prop_assert!(!fits);
                    prop_assert_eq!(refusal, Refusal::MoreThanBought);
                }
            }
        }
    }
}
