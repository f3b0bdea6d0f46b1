//! The admin port: sales, their books, the audit log; metrics and health without a key.

use flash_engine::{AdminRefusal, PriceFinding, ReservationQuery, Sale, SaleCommand, Who as Admin};
use flash_types::{ItemId, Money, Refusal, SaleId, SaleState, Serial, bounds};
use http::{HeaderName, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::Role;
use crate::identity::Credential;
use crate::outcome::Problem;
use crate::rehearsal::RehearsalPlan;
use crate::reply::Reply;
use crate::request::{Query, path_id};
use crate::routes::Route;
use crate::sale_view::{AdminSaleView, PageView};
use crate::service::Call;
use crate::services::ReportFormat;
use crate::{bodies, public, reservation_csv, side, webhooks};

/// Where the next page of a CSV begins.
const X_NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// The plan of a sale may hold 500 items, which do not fit 16 KiB.
pub(crate) const PLAN_BYTES_MAX: usize = 256 * 1024;
/// All of a rehearsal is over within this.
const REHEARSAL_BOUND: Duration = Duration::from_secs(60);
/// Longest part of a refused command's reason that is noted, bytes.
const NOTE_BYTES_MAX: usize = 200;

/// Answers everything of the admin port.
pub(crate) async fn handle(
    call: &Call<'_>,
    body: Incoming,
    route: Route,
    names: [&str; 3],
) -> Result<Reply, Problem> {
    if let Route::Side(index) = route {
        return side::handle(call, body, index, names).await;
    }
    let answered = dispatch(call, body, route, names).await;
    answered.map_err(|problem| {
        let is_missing = problem == Problem::Refused(Refusal::NotFound);
        if is_missing && !is_sale(call, names[0]) {
            Problem::NoSuchSale
        } else {
            problem
        }
    })
}

/// Whether there is a sale of that name, drafts too.
fn is_sale(call: &Call<'_>, name: &str) -> bool {
    let sale_id = path_id("sale", name, SaleId::parse);
    sale_id.is_ok_and(|sale_id| call.engine().sale(&sale_id).is_some())
}

async fn dispatch(
    call: &Call<'_>,
    body: Incoming,
    route: Route,
    names: [&str; 3],
) -> Result<Reply, Problem> {
    match route {
        Route::Metrics => Ok(metrics(call)),
        Route::Healthz => Ok(Reply::json(StatusCode::OK, "{\"status\":\"ok\"}")),
        Route::Readyz => readyz(call),
        Route::OpenApi => Ok(Reply::json(
            StatusCode::OK,
            call.shared().admin_document.clone(),
        )),
        Route::AdminSales => sales(call),
        Route::AdminSale => one_sale(call, names[0]),
        Route::Audit => audit(call, names[0]).await,
        Route::AdminReservations => reservations(call, names[0]).await,
        Route::Rehearse => run(call, body, Command::Rehearse, names).await,
        Route::Loss => loss(call, names[0]).await,
        Route::AuditLog => audit_log(call).await,
        Route::Report => report(call, names[0]).await,
        Route::Webhooks => {
            admin(call, Role::Operator, "webhook.list", None)?;
            webhooks::list(call).await
        }
        Route::Redeliver => redeliver(call, body, names[0]).await,
        Route::PostSale => run(call, body, Command::Make, names).await,
        Route::PutSale => run(call, body, Command::Replace, names).await,
        Route::Publish => run(call, body, Command::Sale(SaleCommand::Publish), names).await,
        Route::Pause => run(call, body, Command::Sale(SaleCommand::Pause), names).await,
        Route::Resume => run(call, body, Command::Sale(SaleCommand::Resume), names).await,
        Route::Close => run(call, body, Command::Sale(SaleCommand::Close), names).await,
        Route::Unpublish => run(call, body, Command::Sale(SaleCommand::Unpublish), names).await,
        Route::Price => run(call, body, Command::Price, names).await,
        Route::Release => run(call, body, Command::Release, names).await,
        Route::ProtectPrices => run(call, body, Command::ProtectPrices, names).await,
        Route::PriceProtection => price_protection(call, names[0]).await,
        Route::Events => events(call).await,
        Route::Stock => run(call, body, Command::Stock, names).await,
        Route::AcceptLoss => run(call, body, Command::AcceptLoss, names).await,
        // Answered before, or on the other port.
        Route::Side(_)
        | Route::Time
        | Route::Sales
        | Route::Sale
        | Route::SaleEvents
        | Route::Purchase
        | Route::SaleReservations
        | Route::EventLog
        | Route::Extend
        | Route::Reservations
        | Route::Reservation
        | Route::Confirm
        | Route::Cancel
        | Route::Refund
        | Route::DemoLogin
        | Route::DemoPage => Err(Problem::NoSuchPath),
    }
}

// ---- without a key

fn metrics(call: &Call<'_>) -> Reply {
    let shared = call.shared();
    let mut text = String::with_capacity(16 * 1024);
    shared
        .metrics
        .write(&shared.engine, shared.hub.streams(), &mut text);
    text.push_str(&shared.prometheus.render());
    Reply::text("text/plain; version=0.0.4; charset=utf-8", text)
}

fn readyz(call: &Call<'_>) -> Result<Reply, Problem> {
    let mut health = call.engine().health();
    // Relaxed: a flag by itself.
    if call.shared().is_stopping.load(Ordering::Relaxed) && health.ready {
        health.ready = false;
        health.reasons.push("stopping".into());
    }
    let status = if health.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let side = call.shared().side.as_ref();
    let notes = side.map_or_else(Vec::new, |side| side.door.notes());
    let mut view = serde_json::to_value(&health).map_err(|_| Problem::Internal)?;
    if !notes.is_empty() {
        view["notes"] = json!(notes);
    }
    Reply::of(status, &view)
}

// ---- who

/// The admin who asks, with the role that it takes; what known admins may not do is noted.
pub(crate) fn admin(
    call: &Call<'_>,
    needed: Role,
    command: &str,
    sale_id: Option<&SaleId>,
) -> Result<Admin, Problem> {
    let key = match Credential::of(&call.head) {
        // An admin key may look like anything.
        Credential::Key(secret) | Credential::Token(secret) => call.shared().identity.admin(secret),
        Credential::None => None,
    };
    let key = key.ok_or(Problem::Unauthenticated)?;
    let who = Admin {
        name: key.name.clone(),
    };
    if key.roles.iter().any(|role| role.covers(needed)) {
        return Ok(who);
    }
    call.engine().note(&who, command, sale_id, "forbidden", "");
    Err(Problem::Forbidden)
}

// ---- reads

/// The sale in the path, for a viewer.
fn seen(call: &Call<'_>, name: &str, command: &str) -> Result<SaleId, Problem> {
    let sale_id = path_id("sale", name, SaleId::parse)?;
    admin(call, Role::Viewer, command, Some(&sale_id))?;
    Ok(sale_id)
}

fn one_sale(call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let sale_id = seen(call, name, "sale.read")?;
    let sale = call.engine().sale(&sale_id).ok_or(Refusal::NotFound)?;
    sale_reply(call, StatusCode::OK, &sale)
}

async fn audit(call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let sale_id = seen(call, name, "sale.audit")?;
    Reply::of(StatusCode::OK, &call.engine().audit(&sale_id).await?)
}

async fn reservations(call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let sale_id = seen(call, name, "sale.reservations")?;
    let known = [
        "state",
        "format",
        "item",
        "not_at_price_minor",
        "cursor",
        "limit",
    ];
    let query = Query::parse(call.parts.uri.query(), &known)?;
    let is_csv = query.read("format", |format| match format {
        "json" => Ok(false),
        "csv" => Ok(true),
        _ => Err("is not json or csv"),
    })?;
    let item = query.read("item", ItemId::parse)?;
    let price = query.read("not_at_price_minor", |text| {
        text.parse().map(Money).map_err(|_| "is no price")
    })?;
    let filter = ReservationQuery {
        state: query.read("state", public::reservation_state)?,
        other_price: match (item, price) {
            (Some(item), Some(price)) => {
                let index = call.engine().item_index(&sale_id, &item);
                Some((index.ok_or(Refusal::NotFound)?, price))
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Problem::malformed(
                    "item and not_at_price_minor stand together",
                ));
            }
        },
        ..ReservationQuery::default()
    };
    let (after, limit) = (query.cursor()?, query.limit()?);
    let page = public::page_of(call, &sale_id, &filter, after, limit).await?;
    if is_csv != Some(true) {
        return Reply::of(StatusCode::OK, &page);
    }
    let rows = reservation_csv::write(&page.items);
    let reply = Reply::text("text/csv; charset=utf-8; header=present", rows);
    match page.next_cursor {
        Some(next) => {
            let next = next.try_into().map_err(|_| Problem::Internal)?;
            Ok(reply.with(X_NEXT_CURSOR, next))
        }
        None => Ok(reply),
    }
}

async fn report(call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let sale_id = seen(call, name, "sale.report")?;
    let query = Query::parse(call.parts.uri.query(), &["format"])?;
    let format = query.read("format", |format| match format {
        "json" => Ok(ReportFormat::Json),
        "csv" => Ok(ReportFormat::Csv),
        "html" => Err("html is not built: take json or csv"),
        _ => Err("is not json or csv"),
    })?;
    let format = format.unwrap_or(ReportFormat::Json);
    let reports = call.shared().services.reports.as_ref();
    let reports = reports.ok_or(Problem::NoSuchPath)?;
    let written = reports.report(sale_id, format).await?;
    Ok(match format {
        ReportFormat::Json => Reply::json(StatusCode::OK, written),
        ReportFormat::Csv => Reply::text("text/csv; charset=utf-8; header=present", written),
    })
}

async fn events(call: &Call<'_>) -> Result<Reply, Problem> {
    admin(call, Role::Operator, "events.read", None)?;
    let query = Query::parse(call.parts.uri.query(), &["after", "sale", "limit"])?;
    let (after, limit) = (query.read("after", public::event_id)?, query.limit()?);
    match query.read("sale", SaleId::parse)? {
        Some(sale_id) => public::events_of_sale(call, &sale_id, after, limit).await,
        None => {
            if after.is_some_and(|(sale_no, _)| call.engine().numbered(sale_no).is_none()) {
                return Err(Problem::malformed(
                    "the parameter after names an event of a sale that is not there",
                ));
            }
            public::event_page(call.engine().all_events(after, limit + 1).await?, limit)
        }
    }
}

async fn price_protection(call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let sale_id = seen(call, name, "sale.price_protection")?;
    protection_page(call, &sale_id, None).await.map_err(refused)
}

async fn protection_page(
    call: &Call<'_>,
    sale_id: &SaleId,
    who: Option<Admin>,
) -> Result<Reply, AdminRefusal> {
    let malformed = |problem| {
        if let Problem::Malformed(detail) = problem {
            AdminRefusal::Malformed(detail.into_owned())
        } else {
            AdminRefusal::Refused(Refusal::NotFound)
        }
    };
    let query = Query::parse(call.parts.uri.query(), &["cursor", "limit"]).map_err(malformed)?;
    let after = query.cursor().map_err(malformed)?;
    let limit = query.limit().map_err(malformed)?;
    let page = call
        .engine()
        .protection(sale_id, Serial(after), limit, who)
        .await?;
    let view = json!({
        "items": page.items,
        "emitted": page.emitted,
        "next_cursor": page.next.map(|serial| serial.0.to_string()),
    });
    Ok(Reply::json(StatusCode::OK, view.to_string()))
}

/// What a frozen sale's store lost.
async fn loss(call: &Call<'_>, name: &str) -> Result<Reply, Problem> {
    let sale_id = path_id("sale", name, SaleId::parse)?;
    admin(call, Role::Operator, "sale.loss", Some(&sale_id))?;
    let query = Query::parse(call.parts.uri.query(), &["cursor", "limit"])?;
    let (after, limit) = (query.cursor()?, query.limit()?);
    let losses = call.engine().loss(&sale_id).await.map_err(refused)?;
    let (mut items, differences) = (losses.lost, losses.differences);
    items.retain(|one| one.reservation.reservation_id.serial.0 > after);
    let is_more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| is_more);
    let next_cursor = last.map(|last| last.reservation.reservation_id.serial.0.to_string());
    let page = json!({"items": items, "differences": differences, "next_cursor": next_cursor});
    Reply::of(StatusCode::OK, &page)
}

fn sales(call: &Call<'_>) -> Result<Reply, Problem> {
    admin(call, Role::Viewer, "sale.list", None)?;
    let query = Query::parse(call.parts.uri.query(), &["cursor", "limit"])?;
    let (after, limit) = (query.cursor()?, query.limit()?);
    let now = call.engine().clock().read().wall;
    let mut sales = call.engine().sales();
    sales.retain(|sale| u64::from(sale.sale_no().0) > after);
    let is_more = sales.len() > limit;
    sales.truncate(limit);
    let last = sales.last().filter(|_| is_more);
    let page = PageView {
        next_cursor: last.map(|sale| sale.sale_no().0.to_string()),
        items: sales
            .iter()
            .map(|sale| AdminSaleView::of(sale, now))
            .collect(),
    };
    Reply::of(StatusCode::OK, &page)
}

async fn audit_log(call: &Call<'_>) -> Result<Reply, Problem> {
    admin(call, Role::Viewer, "audit_log.read", None)?;
    let query = Query::parse(call.parts.uri.query(), &["cursor", "limit"])?;
    let (after, limit) = (query.cursor()?, query.limit()?);
    let mut notes = call.engine().admin_notes(after, limit + 1).await?;
    let is_more = notes.len() > limit;
    notes.truncate(limit);
    let last = notes.last().filter(|_| is_more);
    let page = PageView {
        next_cursor: last.map(|(number, _)| number.to_string()),
        items: notes
            .iter()
            .map(|(number, note)| {
                json!({
                    "number": number, "at": note.at, "who": note.who, "command": note.command,
                    "sale_id": note.sale_id, "outcome": note.outcome, "detail": note.detail,
                })
            })
            .collect(),
    };
    Reply::of(StatusCode::OK, &page)
}

fn sale_reply(call: &Call<'_>, status: StatusCode, sale: &Sale) -> Result<Reply, Problem> {
    let now = call.engine().clock().read().wall;
    Reply::of(status, &AdminSaleView::of(sale, now))
}

// ---- commands

/// Delivers an event again; noted, whatever comes of it.
async fn redeliver(call: &Call<'_>, body: Incoming, event: &str) -> Result<Reply, Problem> {
    const COMMAND: &str = "webhook.redeliver";
    let who = admin(call, Role::Operator, COMMAND, None)?;
    let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
    let done = webhooks::redeliver(call, event, &body).await;
    let outcome = match &done {
        Ok(_) => "done",
        Err(problem) => problem.render().word.as_str(),
    };
    let detail = &event[..event.floor_char_boundary(NOTE_BYTES_MAX)];
    call.engine().note(&who, COMMAND, None, outcome, detail);
    done
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Make,
    Replace,
    Sale(SaleCommand),
    Stock,
    Price,
    Release,
    ProtectPrices,
    Rehearse,
    AcceptLoss,
}

impl Command {
    /// Its name in the audit log.
    fn as_str(self) -> &'static str {
        match self {
            Self::Make => "sale.create",
            Self::Replace => "sale.replace",
            Self::Sale(SaleCommand::Publish) => "sale.publish",
            Self::Sale(SaleCommand::Pause) => "sale.pause",
            Self::Sale(SaleCommand::Resume) => "sale.resume",
            Self::Sale(SaleCommand::Close) => "sale.close",
            Self::Sale(SaleCommand::Unpublish) => "sale.unpublish",
            Self::Price => "sale.change_price",
            Self::Release => "sale.release",
            Self::ProtectPrices => "sale.protect_prices",
            Self::Stock => "sale.change_stock",
            Self::Rehearse => "sale.rehearse",
            Self::AcceptLoss => "sale.accept_loss",
        }
    }

    /// Who may give it.
    fn role(self) -> Role {
        match self {
            Self::Make
            | Self::Replace
            | Self::Sale(_)
            | Self::Stock
            | Self::Rehearse
            | Self::Price
            | Self::Release
            | Self::ProtectPrices => Role::Merchant,
            Self::AcceptLoss => Role::Operator,
        }
    }
}

/// Carries out a command. One that is done is noted with its change; one that is refused changes nothing and is noted here.
async fn run(
    call: &Call<'_>,
    body: Incoming,
    command: Command,
    [name, item, _]: [&str; 3],
) -> Result<Reply, Problem> {
    let named = if name.is_empty() {
        Ok(None)
    } else {
        path_id("sale", name, SaleId::parse).map(Some)
    };
    let known = named.as_ref().ok().copied().flatten();
    let who = admin(call, command.role(), command.as_str(), known.as_ref())?;
    let done = match named {
        Ok(sale_id) => carry_out(call, body, command, sale_id, item, who.clone()).await,
        Err(problem) => Err(Refused::Here(problem)),
    };
    done.map_err(|by| {
        let problem = match by {
            Refused::Here(problem) => problem,
            // It may be done yet, and then its note is there.
            Refused::ByEngine(AdminRefusal::Unknown) => return refused(AdminRefusal::Unknown),
            Refused::ByEngine(refusal) => refused(refusal),
        };
        let rendered = problem.render();
        let detail = why(&problem);
        let end = detail.floor_char_boundary(NOTE_BYTES_MAX);
        let word = rendered.word.as_str();
        call.engine()
            .note(&who, command.as_str(), known.as_ref(), word, &detail[..end]);
        problem
    })
}

/// What the log tells of a refusal beside its word.
fn why(problem: &Problem) -> &str {
    if let Problem::Malformed(detail) = problem {
        detail
    } else if let Problem::Conflict(detail) | Problem::PriceGuard(detail) = problem {
        detail
    } else {
        ""
    }
}

fn findings_view(findings: &[PriceFinding]) -> Value {
    let shown = findings.iter().map(
        |found| json!({"code": found.code.as_str(), "item": found.item, "detail": found.detail}),
    );
    shown.collect()
}

fn refused(refusal: AdminRefusal) -> Problem {
    match refusal {
        AdminRefusal::Refused(refusal) => refusal.into(),
        AdminRefusal::Malformed(detail) => Problem::malformed(detail),
        AdminRefusal::Conflict(detail) => Problem::Conflict(detail),
        AdminRefusal::PriceGuard(findings) => {
            Problem::PriceGuard(findings_view(&findings).to_string())
        }
        AdminRefusal::Unknown => Problem::Unknown(None),
    }
}

/// Who said no.
enum Refused {
    Here(Problem),
    ByEngine(AdminRefusal),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Here(problem)
    }
}

impl From<AdminRefusal> for Refused {
    fn from(refusal: AdminRefusal) -> Self {
        Self::ByEngine(refusal)
    }
}

async fn carry_out(
    call: &Call<'_>,
    body: Incoming,
    command: Command,
    sale_id: Option<SaleId>,
    item: &str,
    who: Admin,
) -> Result<Reply, Refused> {
    let engine = call.engine();
    match (command, sale_id) {
        (Command::Make, _) => {
            let plan = bodies::sale(&call.body(body, PLAN_BYTES_MAX).await?)?;
            let sale = engine.put_draft(plan, false, who).await?;
            let location = format!("/v1/admin/sales/{}", sale.definition().sale_id);
            let reply = sale_reply(call, StatusCode::CREATED, &sale)?;
            let location = location.try_into().map_err(|_| Problem::Internal)?;
            Ok(reply.with(header::LOCATION, location))
        }
        (Command::Replace, Some(sale_id)) => {
            let plan = bodies::sale(&call.body(body, PLAN_BYTES_MAX).await?)?;
            if plan.sale_id != sale_id {
                return Err(Problem::malformed("sale_id is not the one in the path").into());
            }
            let sale = engine.put_draft(plan, true, who).await?;
            Ok(sale_reply(call, StatusCode::OK, &sale)?)
        }
        (Command::Sale(command), Some(sale_id)) => {
            let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
            let sale = match command {
                SaleCommand::Publish => {
                    let accepted = bodies::publish(&body)?;
                    engine.publish(&sale_id, &accepted, who).await?
                }
                SaleCommand::Pause
                | SaleCommand::Resume
                | SaleCommand::Close
                | SaleCommand::Unpublish => {
                    bodies::nothing(&body)?;
                    engine.command(&sale_id, command, who).await?
                }
            };
            Ok(sale_reply(call, StatusCode::OK, &sale)?)
        }
        (Command::Stock, Some(sale_id)) => {
            let item = path_id("item", item, ItemId::parse)?;
            let key = call.head.idempotency_key()?;
            let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
            let (delta_units, reason) = bodies::stock(&body)?;
            let applied = engine
                .change_stock(&sale_id, &item, &key, delta_units, &reason, who)
                .await?;
            let view = json!({"applied_delta_units": applied});
            Ok(Reply::of(StatusCode::OK, &view)?)
        }
        (Command::Price, Some(sale_id)) => {
            let item = path_id("item", item, ItemId::parse)?;
            let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
            let (price, reason) = bodies::price(&body)?;
            let changed = engine
                .change_price(&sale_id, &item, price, &reason, who)
                .await?;
            let is_more = changed.reservations.len() == bounds::PAGE_ITEMS_MAX;
            let last = changed.reservations.last().filter(|_| is_more);
            let view = json!({
                "item": item,
                "old_price_minor": changed.old_price_minor,
                "sale_price_minor": changed.sale_price_minor,
                "findings": findings_view(&changed.findings),
                "reservations": changed.reservations,
                // Goes on in the sale's list of reservations, with item and not_at_price_minor.
                "next_cursor": last.map(|last| last.reservation_id.serial.0.to_string()),
            });
            Ok(Reply::of(StatusCode::OK, &view)?)
        }
        (Command::Release, Some(sale_id)) => {
            let item = path_id("item", item, ItemId::parse)?;
            let key = call.head.optional_idempotency_key()?;
            let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
            let units = bodies::release(&body)?;
            let released = engine.release(&sale_id, &item, key, units, who).await?;
            Ok(Reply::of(
                StatusCode::OK,
                &json!({"released_units": released}),
            )?)
        }
        (Command::ProtectPrices, Some(sale_id)) => {
            bodies::nothing(&call.body(body, bounds::BODY_BYTES_MAX).await?)?;
            Ok(protection_page(call, &sale_id, Some(who)).await?)
        }
        (Command::Rehearse, Some(sale_id)) => {
            let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
            Ok(rehearse(call, &body, &sale_id, &who).await?)
        }
        (Command::AcceptLoss, Some(sale_id)) => {
            bodies::nothing(&call.body(body, bounds::BODY_BYTES_MAX).await?)?;
            let loss = engine.accept_loss(&sale_id, who).await?;
            Ok(Reply::of(StatusCode::OK, &loss)?)
        }
        (
            Command::Replace
            | Command::Sale(_)
            | Command::Stock
            | Command::Price
            | Command::Release
            | Command::ProtectPrices
            | Command::Rehearse
            | Command::AcceptLoss,
            None,
        ) => Err(Problem::NoSuchPath.into()),
    }
}

/// Runs a sale against a copy. The sale itself, its books and its events are not touched; one note says that it was done.
async fn rehearse(
    call: &Call<'_>,
    body: &[u8],
    sale_id: &SaleId,
    who: &Admin,
) -> Result<Reply, Problem> {
    let (buyers, seconds, while_selling) = bodies::rehearse(body)?;
    let engine = call.engine();
    let rehearsals = call.shared().services.rehearsals.as_ref();
    let rehearsals = rehearsals.ok_or(Problem::NoSuchPath)?;
    let sale = engine.sale(sale_id).ok_or(Refusal::NotFound)?;
    let now = engine.clock().read().wall;
    match sale.shown_state(now) {
        SaleState::Draft | SaleState::Published => {}
        state @ (SaleState::Open | SaleState::Paused | SaleState::Closed | SaleState::Frozen) => {
            let detail = format!(
                "the sale is {}: only a draft or a published sale is rehearsed",
                state.as_str()
            );
            return Err(Problem::Conflict(detail));
        }
    }
    if !while_selling {
        let soon = now.plus(REHEARSAL_BOUND);
        let in_the_way = engine.sales().into_iter().find(|sale| {
            let is_soon = sale.definition().starts_at <= soon;
            match sale.shown_state(now) {
                SaleState::Open => true,
                SaleState::Published => is_soon,
                SaleState::Draft | SaleState::Paused | SaleState::Closed | SaleState::Frozen => {
                    false
                }
            }
        });
        if let Some(other) = in_the_way {
            return Err(Problem::Conflict(format!(
                "sale {} is open or opens within a minute, and a rehearsal would take time from its buyers: \
                 wait, or say \"while_selling\":true",
                other.definition().sale_id
            )));
        }
    }
    let plan = RehearsalPlan {
        definition: sale.plan(),
        buyers,
        seconds,
    };
    let rehearsing = rehearsals.begin(plan).map_err(Problem::Conflict)?;
    // Noted now: whoever asked may be gone when it ends.
    engine.note(who, Command::Rehearse.as_str(), Some(sale_id), "ok", "");
    match rehearsing.await {
        Ok(report) => Reply::of(StatusCode::OK, &report),
        Err(why) => Err(Problem::Conflict(format!(
            "the rehearsal could not be run: {why}"
        ))),
    }
}
