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

/// Which endpoint, in the order of [`ENDPOINTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Record,
    List,
    Show,
    Receive,
    Refund,
}

const ROUTES: [Route; 5] = [
    Route::Record,
    Route::List,
    Route::Show,
    Route::Receive,
    Route::Refund,
];

static ENDPOINTS: [SideEndpoint; ROUTES.len()] = [
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

    async fn serve(&self, request: SideRequest) -> Result<SideAnswer, SideError> {
        let route = ROUTES.get(request.endpoint);
        match route.ok_or_else(|| SideProblem::not_found("endpoint"))? {
            Route::Record => self.record(&request).await,
            Route::List => self.list(&request).await,
            Route::Show => self.show(&request).await,
            Route::Receive => self.receive(&request).await,
            Route::Refund => self.refund(&request).await,
        }
    }

    async fn record(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let key = wire::key(request)?;
        let sent: NewOrder = wire::body(request)?;
        let is_time_told = sent.paid_at.is_some();
        let entry = sent.checked(request.now)?;
        let mut tx = self.shop.database.begin().await?;
        let scope = "POST /v1/orders|storefront";
        let taken = match command::take(&mut tx, scope, key, &request.body, request.now).await? {
            Take::Fresh(taken) => taken,
            Take::Replay(answer) => {
                tx.rollback().await;
                return Ok(answer);
            }
        };
        let status = if is_of_engine(&entry.order_id) {
            match find(&mut tx, &entry.order_id).await? {
                Some(_) => Ok(200),
                None => Err(Refusal::NotConfirmed),
            }
        } else {
            match book::record(&mut tx, &self.shop, &entry, request.now).await? {
                Recorded::New(_) => Ok(201),
                Recorded::Known => Ok(200),
            }
        };
        let status = match status {
            Ok(200) if !is_same(&mut tx, &entry, is_time_told).await? => Err(Refusal::OtherOrder),
            status => status,
        };
        let status = match status {
            Ok(status) => status,
            Err(refusal) => {
                tx.rollback().await;
                return Err(refusal.into());
            }
        };
        let mut answer = shown(&mut tx, &entry.order_id, status).await?;
        if status == 201 {
            answer.location = Some(format!("/v1/orders/{}", entry.order_id));
        }
        taken.answered(&mut tx, &answer).await?;
        tx.commit().await?;
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

    async fn receive(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let sent = OrderReceived { received_at: None };
        let sent = if request.body.is_empty() {
            sent
        } else {
            wire::body(request)?
        };
        let at = past("received_at", sent.received_at, request.now)?;
        let order_id = &request.path[0];
        let mut tx = self.shop.database.begin().await?;
        let received = book::receive(&mut tx, &self.shop, order_id, at, request.now).await;
        self.finish(tx, received.map(drop), order_id).await
    }

    async fn refund(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
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
        let mut tx = self.shop.database.begin().await?;
        let refunded = book::refund_money(&mut tx, &self.shop, &refund, &units, request.now).await;
        self.finish(tx, refunded.map(drop), order_id).await
    }

    /// Commits a change and shows the order, or leaves everything as it was.
    async fn finish(
        &self,
        mut tx: Tx,
        done: Result<(), SideError>,
        order_id: &str,
    ) -> Result<SideAnswer, SideError> {
        match done {
            Ok(()) => {
                let answer = shown(&mut tx, order_id, 200).await?;
                tx.commit().await?;
                Ok(answer)
            }
            Err(SideError::Refused(problem)) => {
                tx.rollback().await;
                Err(SideError::Refused(problem))
            }
            Err(SideError::Sql(error)) => Err(error.into()),
        }
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
    let view = serde_json::to_value(view).unwrap_or_default();
    Ok(SideAnswer::json(status, &view))
}

impl SideService for Orders {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        &ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        schemas()
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.serve(request).await.map_err(SideError::into_problem) })
    }
}
