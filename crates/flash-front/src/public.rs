//! The public port besides purchases: reads, and commands on reservations.

use std::hash::Hasher;

use flash_engine::{Caller, EventPlace, Reading, ReservationQuery, SaleEvent};
use flash_types::{
    IdempotencyKey, Outcome, PaymentRef, Refusal, Reservation, ReservationId, ReservationState,
    SaleId, SaleNo, SaleState, Serial, Timestamp, bounds,
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use siphasher::sip::SipHasher13;

use crate::identity::Credential;
use crate::outcome::Problem;
use crate::reply::{Reply, ReplyBody};
use crate::request::{Query, path_id};
use crate::routes::Route;
use crate::sale_view::{PageView, SaleView};
use crate::service::Call;
use crate::{bodies, demo, reservation_json, side};

const ONE_SECOND: HeaderValue = HeaderValue::from_static("public, max-age=1");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers everything of the public port but purchases.
pub(crate) async fn handle(
    call: &Call<'_>,
    body: Incoming,
    route: Route,
    names: [&str; 3],
) -> Result<Reply, Problem> {
    let name = names[0];
    let sale = || path_id("sale", name, SaleId::parse);
    match route {
        Route::Time => time(call),
        Route::Sales => sales(call),
        Route::Sale => one_sale(call, &sale()?),
        Route::SaleEvents => events(call, &sale()?),
        Route::EventLog => event_log(call, &sale()?).await,
        Route::Extend => extend(call, body, name).await,
        Route::SaleReservations => reservations_of_sale(call, &sale()?).await,
        Route::Reservations => reservations(call).await,
        Route::Reservation => one_reservation(call, name).await,
        Route::Confirm => confirm(call, body, name).await,
        Route::Cancel => cancel(call, body, name).await,
        Route::Refund => refund(call, body, name).await,
        Route::OpenApi => Ok(Reply::json(
            StatusCode::OK,
            call.shared().public_document.clone(),
        )),
        Route::Side(index) => side::handle(call, body, index, names).await,
        Route::DemoLogin => demo::login(call, body).await,
        Route::DemoPage => Ok(demo::page()),
        // Answered before, or on the other port.
        Route::Purchase
        | Route::AdminSales
        | Route::AdminSale
        | Route::PostSale
        | Route::PutSale
        | Route::Publish
        | Route::Pause
        | Route::Resume
        | Route::Close
        | Route::Unpublish
        | Route::Price
        | Route::Release
        | Route::PriceProtection
        | Route::ProtectPrices
        | Route::Events
        | Route::Stock
        | Route::Audit
        | Route::AdminReservations
        | Route::Rehearse
        | Route::Loss
        | Route::AcceptLoss
        | Route::AuditLog
        | Route::Report
        | Route::Webhooks
        | Route::Redeliver
        | Route::Metrics
        | Route::Healthz
        | Route::Readyz => Err(Problem::NoSuchPath),
    }
}

fn time(call: &Call<'_>) -> Result<Reply, Problem> {
    let now = call.engine().clock().read().wall;
    Reply::of(StatusCode::OK, &json!({"now": now, "epoch_ms": now.0}))
}

// ---- sales

/// Which sales a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Upcoming,
    Open,
    Ended,
}

impl Phase {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "upcoming" => Ok(Self::Upcoming),
            "open" => Ok(Self::Open),
            "ended" => Ok(Self::Ended),
            _ => Err("is not upcoming, open or ended"),
        }
    }

    /// A sale that stands still for a while is still on.
    fn of(state: SaleState) -> Option<Self> {
        match state {
            SaleState::Draft => None,
            SaleState::Published => Some(Self::Upcoming),
            SaleState::Open | SaleState::Paused | SaleState::Frozen => Some(Self::Open),
            SaleState::Closed => Some(Self::Ended),
        }
    }
}

fn sales(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::parse(
        call.parts.uri.query(),
        &["state", "series", "cursor", "limit"],
    )?;
    let phase = query.read("state", Phase::parse)?;
    let (after, limit) = (query.cursor()?, query.limit()?);
    let now = call.engine().clock().read().wall;
    let mut sales = call.engine().sales();
    sales.retain(|sale| {
        let shown = Phase::of(sale.shown_state(now));
        u64::from(sale.sale_no().0) > after
            && shown.is_some()
            && (phase.is_none() || shown == phase)
            && query
                .text("series")
                .is_none_or(|series| sale.definition().series.as_deref() == Some(series))
    });
    let is_more = sales.len() > limit;
    sales.truncate(limit);
    let buckets = &call.shared().config.stock_buckets;
    let page = PageView {
        next_cursor: sales
            .last()
            .filter(|_| is_more)
            .map(|sale| sale.sale_no().0.to_string()),
        items: sales
            .iter()
            .filter_map(|sale| SaleView::of(sale, now, buckets))
            .collect(),
    };
    let etag = etag(&page)?;
    if is_known(call, &etag) {
        return Ok(not_modified(etag));
    }
    let items = page.items.into_iter().map(|view| view.at(now)).collect();
    let page = PageView {
        items,
        next_cursor: page.next_cursor,
    };
    Ok(for_a_second(Reply::of(StatusCode::OK, &page)?, etag))
}

fn one_sale(call: &Call<'_>, sale_id: &SaleId) -> Result<Reply, Problem> {
    let sale = call.engine().sale(sale_id).ok_or(Refusal::NotFound)?;
    let now = call.engine().clock().read().wall;
    let view =
        SaleView::of(&sale, now, &call.shared().config.stock_buckets).ok_or(Refusal::NotFound)?;
    let etag = etag(&view)?;
    if is_known(call, &etag) {
        return Ok(not_modified(etag));
    }
    Ok(for_a_second(
        Reply::of(StatusCode::OK, &view.at(now))?,
        etag,
    ))
}

/// A weak tag over what is shown, the server's time left out.
fn etag(shown: &impl serde::Serialize) -> Result<HeaderValue, Problem> {
    let text = serde_json::to_vec(shown).map_err(|_| Problem::Internal)?;
    // Not a secret: the same after a restart.
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(&text);
    HeaderValue::try_from(format!("W/\"{:016x}\"", hasher.finish())).map_err(|_| Problem::Internal)
}

/// `If-None-Match`, compared weakly (RFC 9110, 13.1.2).
fn is_known(call: &Call<'_>, etag: &HeaderValue) -> bool {
    let Ok(etag) = etag.to_str() else {
        return false;
    };
    let opaque = etag.trim_start_matches("W/");
    call.parts
        .headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == opaque)
}

fn not_modified(etag: HeaderValue) -> Reply {
    for_a_second(
        Reply::json(StatusCode::NOT_MODIFIED, bytes::Bytes::new()),
        etag,
    )
}

fn for_a_second(mut reply: Reply, etag: HeaderValue) -> Reply {
    reply.cache_control = ONE_SECOND;
    reply.with(header::ETAG, etag)
}

fn events(call: &Call<'_>, sale_id: &SaleId) -> Result<Reply, Problem> {
    let sale = call.engine().sale(sale_id).ok_or(Refusal::NotFound)?;
    if sale.state() == SaleState::Draft {
        return Err(Refusal::NotFound.into());
    }
    let mut reply = Reply::text("text/event-stream", bytes::Bytes::new());
    if call.parts.method != http::Method::HEAD {
        let last = call
            .parts
            .headers
            .get(LAST_EVENT_ID)
            .map(HeaderValue::as_bytes);
        reply.body = ReplyBody::Events(Box::new(call.shared().hub.open(&sale, last)?));
    }
    // Proxies that hold answers back until they are whole would hold these for ever.
    Ok(reply.with(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    ))
}

// ---- reservations

/// Who asks: the engine shows a buyer only what is theirs.
fn caller(call: &Call<'_>, now: Reading) -> Result<Caller, Problem> {
    let for_buyer = call.head.buyer()?;
    let identity = &call.shared().identity;
    match (Credential::of(&call.head), for_buyer) {
        (Credential::Token(_), Some(_)) => Err(Problem::malformed(
            "the header X-Buyer-Id stands beside a buyer's token: the token names the buyer",
        )),
        (Credential::Token(token), None) => identity
            .buyer(token, now.wall)
            .map(Caller::Buyer)
            .ok_or(Problem::Unauthenticated),
        (Credential::Key(secret), for_buyer) => {
            let key = identity
                .storefront(secret)
                .ok_or(Problem::Unauthenticated)?;
            identity
                .storefront_rate(key, now.at)
                .map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })?;
            Ok(for_buyer.map_or(Caller::Storefront, Caller::Buyer))
        }
        (Credential::None, _) => Err(Problem::Unauthenticated),
    }
}

/// Only the storefront's servers may do it; a buyer whom they act for makes no difference.
fn storefront(call: &Call<'_>, now: Reading) -> Result<(), Problem> {
    caller(call, now)?;
    match Credential::of(&call.head) {
        Credential::Key(_) => Ok(()),
        Credential::Token(_) | Credential::None => Err(Problem::Forbidden),
    }
}

/// What is no id of ours names nothing: 404, as for any other that does not exist.
fn reservation_id(segment: &str) -> Result<ReservationId, Problem> {
    path_id("reservation", segment, str::parse).map_err(|_| Refusal::NotFound.into())
}

async fn one_reservation(call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let now = call.engine().clock().read();
    let caller = caller(call, now)?;
    let id = reservation_id(name)?;
    let reservation = call.engine().reservation(caller, id).await?;
    Ok(Reply::json(
        StatusCode::OK,
        reservation_json::write(&reservation),
    ))
}

async fn reservations(call: &Call<'_>) -> Result<Reply, Problem> {
    let known = ["sale", "idempotency_key", "cursor", "limit"];
    let query = Query::parse(call.parts.uri.query(), &known)?;
    let sale = query
        .read("sale", SaleId::parse)?
        .ok_or_else(|| Problem::malformed("the parameter sale is missing"))?;
    let key = query.read("idempotency_key", IdempotencyKey::parse)?;
    let (after, limit) = (query.cursor()?, query.limit()?);
    let now = call.engine().clock().read();
    let buyer = match caller(call, now)? {
        Caller::Buyer(buyer) => Some(buyer),
        Caller::Storefront => None,
    };
    let Some(key) = key else {
        let query = ReservationQuery {
            buyer,
            ..ReservationQuery::default()
        };
        return page(call, &sale, &query, after, limit).await;
    };
    let buyer = buyer.ok_or_else(|| {
        Problem::malformed("the header X-Buyer-Id is missing: a key belongs to a sale and a buyer")
    })?;
    let reservation = call
        .engine()
        .reservation_by_key(&sale, &buyer, &key)
        .await?;
    Ok(Reply::json(
        StatusCode::OK,
        reservation_json::write(&reservation),
    ))
}

async fn reservations_of_sale(call: &Call<'_>, sale: &SaleId) -> Result<Reply, Problem> {
    let known = ["updated_after", "payment_ref", "state", "cursor", "limit"];
    let query = Query::parse(call.parts.uri.query(), &known)?;
    let filter = ReservationQuery {
        state: query.read("state", reservation_state)?,
        updated_after: query.read("updated_after", Timestamp::parse)?,
        payment_ref: query.read("payment_ref", PaymentRef::parse)?,
        ..ReservationQuery::default()
    };
    let (after, limit) = (query.cursor()?, query.limit()?);
    storefront(call, call.engine().clock().read())?;
    page(call, sale, &filter, after, limit).await
}

async fn event_log(call: &Call<'_>, sale_id: &SaleId) -> Result<Reply, Problem> {
    let query = Query::parse(call.parts.uri.query(), &["after", "limit"])?;
    let (after, limit) = (query.read("after", event_id)?, query.limit()?);
    storefront(call, call.engine().clock().read())?;
    events_of_sale(call, sale_id, after, limit).await
}

/// The name of an event.
pub(crate) fn event_id(text: &str) -> Result<(SaleNo, EventPlace), &'static str> {
    EventPlace::parse_event_id(text).ok_or("is not the id of an event")
}

/// A page of a sale's events.
pub(crate) async fn events_of_sale(
    call: &Call<'_>,
    sale_id: &SaleId,
    after: Option<(SaleNo, EventPlace)>,
    limit: usize,
) -> Result<Reply, Problem> {
    let sale = call.engine().sale(sale_id).ok_or(Refusal::NotFound)?;
    let after = match after {
        Some((sale_no, _)) if sale_no != sale.sale_no() => {
            return Err(Problem::malformed(
                "the parameter after is the id of an event of another sale",
            ));
        }
        Some((_, place)) => place,
        None => EventPlace::default(),
    };
    let events = call.engine().events(sale_id, after, limit + 1).await?;
    event_page(events, limit)
}

/// A page of events; the cursor is the id of its last one, to be given as `after`.
pub(crate) fn event_page(mut items: Vec<SaleEvent>, limit: usize) -> Result<Reply, Problem> {
    let is_more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| is_more);
    let next_cursor = last.map(|event| event.id.clone());
    Reply::of(StatusCode::OK, &PageView { items, next_cursor })
}

/// The word of a reservation's state.
pub(crate) fn reservation_state(text: &str) -> Result<ReservationState, &'static str> {
    [
        ReservationState::Unknown,
        ReservationState::Reserved,
        ReservationState::Confirmed,
        ReservationState::Released,
        ReservationState::Expired,
        ReservationState::Refunded,
    ]
    .into_iter()
    .find(|state| state.as_str() == text)
    .ok_or("is not unknown, reserved, confirmed, released, expired or refunded")
}

/// One page of a sale's reservations.
async fn page(
    call: &Call<'_>,
    sale: &SaleId,
    query: &ReservationQuery,
    after: u64,
    limit: usize,
) -> Result<Reply, Problem> {
    let page = page_of(call, sale, query, after, limit).await?;
    Reply::of(StatusCode::OK, &page)
}

/// The same, not written yet; the cursor is the last serial of it.
pub(crate) async fn page_of(
    call: &Call<'_>,
    sale: &SaleId,
    query: &ReservationQuery,
    after: u64,
    limit: usize,
) -> Result<PageView<Reservation>, Problem> {
    let mut items: Vec<Reservation> = call
        .engine()
        .reservations(sale, query, Serial(after), limit + 1)
        .await?;
    let is_more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| is_more);
    let next_cursor = last.map(|last| last.reservation_id.serial.0.to_string());
    Ok(PageView { items, next_cursor })
}

async fn confirm(call: &Call<'_>, body: Incoming, name: &str) -> Result<Reply, Problem> {
    let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
    let (payment_ref, amount) = bodies::confirm(&body)?;
    let now = call.engine().clock().read();
    storefront(call, now)?;
    let id = reservation_id(name)?;
    done(call.engine().confirm(id, &payment_ref, amount, now).await)
}

async fn cancel(call: &Call<'_>, body: Incoming, name: &str) -> Result<Reply, Problem> {
    bodies::nothing(&call.body(body, bounds::BODY_BYTES_MAX).await?)?;
    let now = call.engine().clock().read();
    let caller = caller(call, now)?;
    let id = reservation_id(name)?;
    done(call.engine().cancel(caller, id, now).await)
}

async fn extend(call: &Call<'_>, body: Incoming, name: &str) -> Result<Reply, Problem> {
    bodies::nothing(&call.body(body, bounds::BODY_BYTES_MAX).await?)?;
    let now = call.engine().clock().read();
    storefront(call, now)?;
    let id = reservation_id(name)?;
    done(call.engine().extend(id, now).await)
}

async fn refund(call: &Call<'_>, body: Incoming, name: &str) -> Result<Reply, Problem> {
    let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
    let request = bodies::refund(&body)?;
    let now = call.engine().clock().read();
    storefront(call, now)?;
    let id = reservation_id(name)?;
    done(call.engine().refund(id, &request, now).await)
}

fn done(outcome: Outcome) -> Result<Reply, Problem> {
    match outcome {
        Outcome::Reserved(reservation) | Outcome::Stands(reservation) => Ok(Reply::json(
            StatusCode::OK,
            reservation_json::write(&reservation),
        )),
        Outcome::Refused(refusal) => Err(refusal.into()),
        Outcome::Unknown(id) => Err(Problem::Unknown(Some(id))),
    }
}
