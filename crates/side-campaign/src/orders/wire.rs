//! Orders as they are sent and shown.

use flash_types::side::SideProblem;
use flash_types::{BuyerId, Currency, ItemId, RefundRef, ReservationId, Timestamp, bounds};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use side_books::wire::{schema, within};
use utoipa::ToSchema;

use super::{Entry, EntryLine, OrderLine, OrderRefund, Source};
use crate::fact::Order;

/// Most lines of an order.
pub const LINES_MAX: usize = 100;
/// Most units of a line of an order.
const LINE_UNITS_MAX: i64 = 1_000_000;
/// Most refunds that an order is shown with.
pub const REFUNDS_SHOWN_MAX: i64 = 200;
/// How far ahead another clock may be.
const AHEAD_MS_MAX: i64 = 60_000;

/// An order of the shop.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// The shop's name for it, unique: 1-64 of A-Z a-z 0-9 _ . : -
    pub order_id: String,
    /// Who bought.
    #[schema(value_type = String)]
    pub buyer_id: BuyerId,
    /// ISO 4217.
    #[schema(value_type = String)]
    pub currency: Currency,
    /// What was paid in all, minor units; it need not be the sum of the lines.
    pub paid_minor: i64,
    /// When; now where it is left out.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub paid_at: Option<Timestamp>,
    /// What was bought, 1-100 lines.
    pub lines: Vec<NewOrderLine>,
}

/// A line of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrderLine {
    /// The shop's name for what was bought.
    #[schema(value_type = String)]
    pub item: ItemId,
    /// For people.
    pub title: Option<String>,
    /// How many.
    pub quantity: i64,
    /// Price of one, minor units.
    pub unit_price_minor: i64,
}

/// An order arrived.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderReceived {
    /// When; now where it is left out.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub received_at: Option<Timestamp>,
}

/// Money of an order went back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrderRefund {
    /// The shop's name for it, unique within the order; of a reservation that is refunded, the same as there.
    #[schema(value_type = String)]
    pub refund_ref: RefundRef,
    /// How much, minor units.
    pub amount_minor: i64,
    /// Which units it is for, where it is for any.
    pub lines: Option<Vec<OrderRefundLine>>,
}

/// Units of an item that went back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRefundLine {
    /// The shop's name for what was bought.
    #[schema(value_type = String)]
    pub item: ItemId,
    /// How many.
    pub quantity: i64,
}

/// An order as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderView {
    order_id: String,
    /// `engine` for a confirmed reservation, `shop` for others.
    source: &'static str,
    buyer_id: String,
    /// Of a confirmed reservation.
    sale_id: Option<String>,
    currency: String,
    paid_minor: i64,
    refunded_minor: i64,
    #[schema(value_type = String, format = DateTime)]
    paid_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    received_at: Option<Timestamp>,
    /// The books held no earlier order of this buyer when it came.
    is_first: bool,
    /// Left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<OrderLineView>>,
    /// The first 200; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    refunds: Option<Vec<OrderRefundView>>,
}

/// A line of an order.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderLineView {
    /// Its place: 0 for the first.
    line: i64,
    item: String,
    title: Option<String>,
    quantity: i64,
    unit_price_minor: i64,
    refunded_units: i64,
}

/// Money that went back.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderRefundView {
    refund_ref: String,
    amount_minor: i64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// Orders of a buyer.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderList {
    items: Vec<OrderView>,
    next_cursor: Option<String>,
}

impl NewOrder {
    /// Checks it; `paid_at` where it says none.
    pub fn checked(self, now: Timestamp) -> Result<Entry, SideProblem> {
        // The charset of all ids; any type of id checks it.
        ItemId::parse(&self.order_id)
            .map_err(|bad| SideProblem::malformed(format!("order_id {bad}")))?;
        within("paid_minor", self.paid_minor, 0, bounds::PRICE_MINOR_MAX)?;
        count("lines", self.lines.len())?;
        let lines = self.lines.into_iter().enumerate();
        let lines = lines.map(|(place, line)| line.checked(place));
        Ok(Entry {
            order_id: self.order_id,
            source: Source::Shop,
            buyer: self.buyer_id,
            sale_id: None,
            currency: self.currency.as_str().to_owned(),
            paid_minor: self.paid_minor,
            paid_at: past("paid_at", self.paid_at, now)?,
            lines: lines.collect::<Result<_, _>>()?,
        })
    }
}

impl NewOrderLine {
    fn checked(self, place: usize) -> Result<EntryLine, SideProblem> {
        let of = |field: &str| format!("lines[{place}].{field}");
        let is_long = |title: &String| title.is_empty() || title.len() > bounds::TITLE_BYTES_MAX;
        if self.title.as_ref().is_some_and(is_long) {
            let detail = format!("{} is not 1-{} bytes", of("title"), bounds::TITLE_BYTES_MAX);
            return Err(SideProblem::malformed(detail));
        }
        Ok(EntryLine {
            item: self.item.as_str().to_owned(),
            title: self.title,
            quantity: within(&of("quantity"), self.quantity, 1, LINE_UNITS_MAX)?,
            unit_price_minor: within(
                &of("unit_price_minor"),
                self.unit_price_minor,
                0,
                bounds::PRICE_MINOR_MAX,
            )?,
        })
    }
}

impl NewOrderRefund {
    /// Units by item, checked together with the amount.
    pub fn checked(&self) -> Result<Vec<(String, i64)>, SideProblem> {
        within(
            "amount_minor",
            self.amount_minor,
            0,
            bounds::PRICE_MINOR_MAX,
        )?;
        let Some(lines) = &self.lines else {
            return Ok(Vec::new());
        };
        count("lines", lines.len())?;
        let units = lines.iter().enumerate().map(|(place, line)| {
            let field = format!("lines[{place}].quantity");
            let quantity = within(&field, line.quantity, 1, LINE_UNITS_MAX)?;
            Ok((line.item.as_str().to_owned(), quantity))
        });
        units.collect()
    }
}

fn count(field: &str, lines: usize) -> Result<(), SideProblem> {
    if (1..=LINES_MAX).contains(&lines) {
        Ok(())
    } else {
        Err(SideProblem::malformed(format!(
            "{field} holds {lines} lines, not 1-{LINES_MAX}"
        )))
    }
}

/// A time that was told, or now; it may lie ahead by what clocks differ.
pub fn past(
    field: &str,
    told: Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, SideProblem> {
    let at = told.unwrap_or(now);
    if at.0.saturating_sub(now.0) > AHEAD_MS_MAX {
        return Err(SideProblem::malformed(format!(
            "{field} lies in the future: tell it when it has happened"
        )));
    }
    Ok(at)
}

/// Whether an id is one that only the engine gives.
pub fn is_of_engine(order_id: &str) -> bool {
    order_id.parse::<ReservationId>().is_ok()
}

impl OrderView {
    /// As in a list.
    pub fn short(order: Order) -> Self {
        let source = if order.sale_id.is_some() {
            Source::Engine
        } else {
            Source::Shop
        };
        Self {
            order_id: order.order_id,
            source: source.as_str(),
            buyer_id: order.buyer.as_str().to_owned(),
            sale_id: order.sale_id,
            currency: order.currency,
            paid_minor: order.paid_minor,
            refunded_minor: order.refunded_minor,
            paid_at: order.paid_at,
            received_at: order.received_at,
            is_first: order.is_first,
            lines: None,
            refunds: None,
        }
    }

    /// With everything.
    pub fn whole(order: Order, lines: Vec<OrderLine>, refunds: Vec<OrderRefund>) -> Self {
        let lines = lines.into_iter().map(|line| OrderLineView {
            line: line.line,
            item: line.item,
            title: line.title,
            quantity: line.quantity,
            unit_price_minor: line.unit_price_minor,
            refunded_units: line.refunded_units,
        });
        let refunds = refunds.into_iter().map(|refund| OrderRefundView {
            refund_ref: refund.refund_ref,
            amount_minor: refund.amount_minor,
            at: refund.at,
        });
        Self {
            lines: Some(lines.collect()),
            refunds: Some(refunds.collect()),
            ..Self::short(order)
        }
    }

    /// Where the list goes on after it.
    pub fn cursor(&self) -> String {
        format!("{}_{}", self.paid_at.0, self.order_id)
    }
}

/// Reads a cursor.
pub fn cursor(text: &str) -> Result<(Timestamp, &str), SideProblem> {
    let read = text.split_once('_').and_then(|(at, id)| {
        let at: i64 = at.parse().ok()?;
        ItemId::parse(id).is_ok().then_some((Timestamp(at), id))
    });
    read.ok_or_else(|| {
        SideProblem::malformed("the parameter cursor is not a next_cursor of this list")
    })
}

/// All schemas by name.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        schema::<NewOrder>("NewOrder"),
        schema::<NewOrderLine>("NewOrderLine"),
        schema::<OrderReceived>("OrderReceived"),
        schema::<NewOrderRefund>("NewOrderRefund"),
        schema::<OrderRefundLine>("OrderRefundLine"),
        schema::<OrderView>("OrderView"),
        schema::<OrderLineView>("OrderLineView"),
        schema::<OrderRefundView>("OrderRefundView"),
        schema::<OrderList>("OrderList"),
    ]
}
