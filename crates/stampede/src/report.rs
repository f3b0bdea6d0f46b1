//! Reports of sales: what the engine has is paged into the accumulator, on a thread of its own.
//!
//! A report of a large sale reads much. It is no purchase: after each page it rests for as long as the page took, so that
//! it takes at most half of what the store can read; at most two are made at a time; one that takes too long is given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flash_engine::{Engine, EventPlace, ReservationQuery, Sale};
use flash_front::{ReportFormat, Reports};
use flash_settle::sale_report::{Accumulator, Event, Plan, Report, csv};
use flash_types::{ItemIndex, Refusal, Reservation, SaleId, SaleState, Serial};
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot};

/// Reports that are made at a time.
const REPORTS_MAX: usize = 2;
/// Rows of a page: well under a millisecond of the ledger, a few of the store.
const PAGE_ROWS: usize = 1_000;
/// Longest rest after a page.
const REST_MAX: Duration = Duration::from_millis(50);
/// A report is made in this time, or not at all.
const REPORT_BOUND: Duration = Duration::from_secs(120);
/// Of that time, what may go by before earlier sales are no longer looked through.
const EARLIER_BOUND: Duration = Duration::from_secs(80);
/// When to ask again where others are being made.
const RETRY_AFTER_MS: u32 = 2_000;

const BUSY: Refusal = Refusal::Overloaded {
    retry_after_ms: RETRY_AFTER_MS,
};

/// Makes them.
pub(crate) struct Reporter {
    engine: Arc<Engine>,
    turns: Arc<Semaphore>,
}

impl Reporter {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            turns: Arc::new(Semaphore::new(REPORTS_MAX)),
        }
    }
}

impl Reports for Reporter {
    fn report(
        &self,
        sale_id: SaleId,
        format: ReportFormat,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let turn = Arc::clone(&self.turns).try_acquire_owned();
            let turn = turn.map_err(|_| BUSY)?;
            let engine = Arc::clone(&self.engine);
            let (send, receive) = oneshot::channel();
            let thread = std::thread::Builder::new().name("report".into());
            let started = thread.spawn(move || {
                // Freed on every way out, a panic too.
                let _turn = turn;
                run(&engine, &sale_id, format, send);
            });
            if let Err(error) = started {
                tracing::error!(%error, "cannot start a thread for a report");
                return Err(BUSY);
            }
            receive.await.unwrap_or(Err(BUSY))
        })
    }
}

type Answer = oneshot::Sender<Result<Bytes, Refusal>>;

/// Makes and writes a report, unless nobody waits for it any more.
fn run(engine: &Engine, sale_id: &SaleId, format: ReportFormat, mut answer: Answer) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no event loop for a report");
            return;
        }
    };
    let made = runtime.block_on(async {
        tokio::select! {
            () = answer.closed() => None,
            made = tokio::time::timeout(REPORT_BOUND, make(engine, sale_id)) => Some(made),
        }
    });
    let written = match made {
        None => return,
        Some(Err(_)) => {
            tracing::warn!(sale = sale_id.as_str(), "a report took too long");
            Err(BUSY)
        }
        Some(Ok(Err(refusal))) => Err(refusal),
        Some(Ok(Ok(report))) => written(&report, format),
    };
    // Whoever asked may be gone.
    let _ = answer.send(written);
}

fn written(report: &Report, format: ReportFormat) -> Result<Bytes, Refusal> {
    match format {
        ReportFormat::Csv => Ok(csv(report).into()),
        // Our own types: they can be written.
        ReportFormat::Json => serde_json::to_vec(report)
            .map(Bytes::from)
            .map_err(|_| BUSY),
    }
}

/// Reads everything there is of a sale, and who paid in earlier ones.
async fn make(engine: &Engine, sale_id: &SaleId) -> Result<Report, Refusal> {
    let begun = Instant::now();
    let sale = engine.sale(sale_id).ok_or(Refusal::NotFound)?;
    let mut report = Accumulator::new(plan(engine, &sale).await?);
    for row in engine.attempts(sale_id).await? {
        report.add_attempts(&row);
    }
    reservations(engine, sale_id, |one| report.add_reservation(one)).await?;
    events(engine, sale_id, &mut report).await?;
    let mut earlier = earlier_than(engine, &sale);
    while let Some(other) = earlier.pop() {
        let spent = begun.elapsed();
        let rest = EARLIER_BOUND.saturating_sub(spent);
        let other_id = other.definition().sale_id;
        let looked = reservations(engine, &other_id, |one| report.add_earlier(one));
        match tokio::time::timeout(rest, looked).await {
            Ok(looked) => looked?,
            Err(_) => {
                report.left_out_earlier(earlier.len() + 1);
                break;
            }
        }
    }
    Ok(report.finish(engine.clock().read().wall))
}

async fn plan(engine: &Engine, sale: &Sale) -> Result<Plan, Refusal> {
    let definition = sale.definition().clone();
    let counted = engine.audit(&definition.sale_id).await?;
    let units: HashMap<_, _> = counted
        .items
        .iter()
        .map(|item| (item.item, item.units))
        .collect();
    let now = engine.clock().read().wall;
    let indices = (0u16..).take(definition.items.len()).map(ItemIndex);
    Ok(Plan {
        prices_minor: indices.map(|index| sale.price(index).0).collect(),
        units: definition
            .items
            .iter()
            .map(|item| units.get(&item.item).copied().unwrap_or_default())
            .collect(),
        state: sale.shown_state(now),
        is_retired: sale.is_retired(),
        definition,
    })
}

/// All reservations of a sale, page by page.
async fn reservations(
    engine: &Engine,
    sale_id: &SaleId,
    mut add: impl FnMut(&Reservation),
) -> Result<(), Refusal> {
    let query = ReservationQuery::default();
    let mut after = Serial(0);
    loop {
        let begun = Instant::now();
        let page = engine
            .reservations(sale_id, &query, after, PAGE_ROWS)
            .await?;
        page.iter().for_each(&mut add);
        match page.last() {
            Some(last) if page.len() == PAGE_ROWS => after = last.reservation_id.serial,
            Some(_) | None => return Ok(()),
        }
        rest(begun).await;
    }
}

/// All events of a sale, page by page.
async fn events(
    engine: &Engine,
    sale_id: &SaleId,
    report: &mut Accumulator,
) -> Result<(), Refusal> {
    let mut after = EventPlace::default();
    loop {
        let begun = Instant::now();
        let page = engine.events(sale_id, after, PAGE_ROWS).await?;
        for event in &page {
            report.add_event(&Event {
                kind: &event.kind,
                at: event.at,
                reservation: event.reservation,
                data: &event.data,
            });
        }
        match page.last() {
            Some(last) if page.len() == PAGE_ROWS => after = last.place(),
            Some(_) | None => return Ok(()),
        }
        rest(begun).await;
    }
}

/// Sales that began before this one, the earliest first.
fn earlier_than(engine: &Engine, sale: &Sale) -> Vec<Arc<Sale>> {
    let starts_at = sale.definition().starts_at;
    let mut earlier = engine.sales();
    earlier.retain(|other| {
        other.sale_no() != sale.sale_no()
            && other.state() != SaleState::Draft
            && other.definition().starts_at < starts_at
    });
    earlier.sort_by_key(|other| other.definition().starts_at);
    earlier
}

/// Leaves the store to others for as long as a page took.
async fn rest(begun: Instant) {
    tokio::time::sleep(begun.elapsed().min(REST_MAX)).await;
}
