//! Endpoints of orders: the shop's server tells and reads them.

use std::sync::Arc;

use flash_types::BuyerId;
use flash_types::side::{
    BoxFuture, SideAnswer, SideCaller, SideEndpoint, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::Value;
use side_books::SideError;
use side_books::command::{self, Take};
use side_books::sql::{Reads, Tx};
use side_books::wire;

use super::book::{self, Entry, Recorded, Refund, Source};
use super::refusal::Refusal;
use super::wire::{
    NewOrder, NewOrderRefund, OrderReceived, OrderView, REFUNDS_SHOWN_MAX, cursor, is_of_engine,
    past, schemas,
};
use super::{find, lines, of_buyer, refunds};
use crate::shop::Shop;

/// In the order of [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    Record,
    List,
    Show,
    Receive,
    Refund,
}

const ORDER: [Endpoint; 5] = [
    Endpoint::Record,
    Endpoint::List,
    Endpoint::Show,
    Endpoint::Receive,
    Endpoint::Refund,
];

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        method: "POST",
        path: "/v1/orders",
        who: SideWho::Storefront,
        summary: "Tells of a paid order of the shop. Confirmed reservations become orders by themselves.",
        body: Some("NewOrder"),
        needs_key: true,
        answers: &[(200, "OrderView"), (201, "OrderView")],
        problems: &[(409, "state_conflict"), (422, "idempotency_key_reused")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        path: "/v1/orders",
        who: SideWho::Storefront,
        summary: "Orders of a buyer, the newest first.",
        query: &["buyer", "cursor", "limit"],
        answers: &[(200, "OrderList")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        path: "/v1/orders/{order}",
        who: SideWho::Storefront,
        summary: "An order with its lines and refunds; a confirmed reservation is an order with the same id.",
        answers: &[(200, "OrderView")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/orders/{order}/received",
        who: SideWho::Storefront,
        summary: "Tells that an order arrived at its buyer; the first time holds.",
        body: Some("OrderReceived"),
        answers: &[(200, "OrderView")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/orders/{order}/refunds",
        who: SideWho::Storefront,
        summary: "Tells that money of an order went back, once for each refund_ref, never more than was paid. What goes \
                  back through a reservation is told by itself.",
        body: Some("NewOrderRefund"),
        answers: &[(200, "OrderView")],
        problems: &[(404, "not_found"), (409, "state_conflict")],
        ..SideEndpoint::BASE
    },
];

/// The service.
pub struct Orders {
    shop: Arc<Shop>,
}

impl Orders {
    /// Of a shop.
    pub fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint).copied();
        match endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))? {
            Endpoint::List => self.list(request).await,
            Endpoint::Show => self.show(request).await,
            Endpoint::Record => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.record(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Receive => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.receive(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Refund => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.refund(&mut tx, request).await;
                tx.end(answer).await
            }
        }
    }

    async fn record(&self, tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let key = wire::key(request)?;
        let sent: NewOrder = wire::body(request)?;
        let is_time_told = sent.paid_at.is_some();
        let entry = sent.checked(request.now)?;
        let scope = "POST /v1/orders|storefront";
        let taken = match command::take(tx, scope, key, &request.body, request.now).await? {
            Take::Fresh(taken) => taken,
            Take::Replay(answer) => return Ok(answer),
        };
        let is_new = if is_of_engine(&entry.order_id) {
            let known = find(tx, &entry.order_id).await?;
            known.ok_or(Refusal::NotConfirmed)?;
            false
        } else {
            match book::record(tx, &self.shop, &entry, request.now).await? {
                Recorded::New(_) => true,
                Recorded::Known => false,
            }
        };
        if !is_new && !is_same(tx, &entry, is_time_told).await? {
            return Err(Refusal::OtherOrder.into());
        }
        let mut answer = shown(tx, &entry.order_id, if is_new { 201 } else { 200 }).await?;
        if is_new {
            answer.location = Some(format!("/v1/orders/{}", entry.order_id));
        }
        taken.answered(tx, &answer).await?;
        Ok(answer)
    }

    async fn list(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let buyer = match (request.parameter("buyer"), &request.caller) {
            (Some(text), _) => BuyerId::parse(text)
                .map_err(|bad| SideProblem::malformed(format!("the parameter buyer {bad}")))?,
            (None, SideCaller::Storefront(Some(buyer))) => *buyer,
            (None, _) => {
                return Err(SideProblem::malformed("the parameter buyer is missing").into());
            }
        };
        let beyond = request.parameter("cursor").map(cursor).transpose()?;
        let limit = wire::limit(request)?;
        let mut reader = self.shop.database.read().await?;
        let orders = of_buyer(&mut reader, &buyer, beyond, limit + 1).await?;
        let views = orders.into_iter().map(OrderView::short).collect();
        Ok(wire::page(views, limit, OrderView::cursor))
    }

    async fn show(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let mut reader = self.shop.database.read().await?;
        shown(&mut reader, &request.path[0], 200).await
    }

    async fn receive(&self, tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let sent = OrderReceived { received_at: None };
        let sent = if request.body.is_empty() {
            sent
        } else {
            wire::body(request)?
        };
        let at = past("received_at", sent.received_at, request.now)?;
        let order_id = &request.path[0];
        book::receive(tx, &self.shop, order_id, at, request.now).await?;
        shown(tx, order_id, 200).await
    }

    async fn refund(&self, tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let sent: NewOrderRefund = wire::body(request)?;
        let units = sent.checked()?;
        let order_id = &request.path[0];
        let refund = Refund {
            order_id,
            refund_ref: sent.refund_ref.as_str(),
            amount_minor: sent.amount_minor,
            at: request.now,
            told_by: Source::Shop,
        };
        book::refund_money(tx, &self.shop, &refund, &units, request.now).await?;
        shown(tx, order_id, 200).await
    }
}

/// Whether the order in the books is the one that was sent.
async fn is_same(tx: &mut Tx, entry: &Entry, is_time_told: bool) -> Result<bool, SideError> {
    let Some(order) = find(tx, &entry.order_id).await? else {
        return Ok(false);
    };
    let known = lines(tx, &entry.order_id).await?;
    let are_lines = known.len() == entry.lines.len()
        && known.iter().zip(&entry.lines).all(|(known, sent)| {
            known.item == sent.item
                && known.quantity == sent.quantity
                && known.unit_price_minor == sent.unit_price_minor
        });
    // The time of a reservation's payment is the engine's.
    let is_time = !is_time_told || order.sale_id.is_some() || order.paid_at == entry.paid_at;
    Ok(are_lines
        && is_time
        && order.buyer == entry.buyer
        && order.currency == entry.currency
        && order.paid_minor == entry.paid_minor)
}

async fn shown(
    reads: &mut impl Reads,
    order_id: &str,
    status: u16,
) -> Result<SideAnswer, SideError> {
    let order = find(reads, order_id).await?.ok_or(Refusal::NoSuchOrder)?;
    let lines = lines(reads, order_id).await?;
    let refunds = refunds(reads, order_id, REFUNDS_SHOWN_MAX).await?;
    let view = OrderView::whole(order, lines, refunds);
    Ok(SideAnswer::json(status, &view))
}

impl SideService for Orders {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        schemas()
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}
