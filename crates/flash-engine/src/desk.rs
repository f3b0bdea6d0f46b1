//! The engine as the side services see it: events of all sales, what is planned of one.
//!
//! Whoever asks again and again and has everything costs the store next to nothing: as long as no sale of this process has
//! something new, most questions are answered without a read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flash_store::EventPlace;
use flash_types::side::{BoxFuture, DeskEvent, DeskSale, SaleDesk};
use flash_types::{Refusal, SaleId, SaleState};
use parking_lot::Mutex;

use crate::{Engine, SaleEvent};

/// First pause after an answer that found nothing; it doubles from there.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause. Marks do not tell all: another node commits without moving those of this one, and a store may tell an
/// event only when the time that it bears has come. So it is asked once in a while in any case.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The engine, for side services.
pub struct Desk {
    engine: Arc<Engine>,
    quiet: Mutex<Option<Quiet>>,
}

/// There was nothing after an event, while the marks stood so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Quiet {
    after: Option<String>,
    marks: u64,
    pause: Duration,
    until: Instant,
}

impl Desk {
    /// Over an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            quiet: Mutex::new(None),
        }
    }

    /// Moves with every event that became durable through this process: marks only grow, and so does their sum.
    fn marks(&self) -> u64 {
        let sales = self.engine.sales();
        let marks = sales.iter().map(|sale| sale.events_mark());
        marks.fold(0, u64::wrapping_add)
    }

    fn is_quiet(&self, after: Option<&str>, marks: u64, at: Instant) -> bool {
        let quiet = self.quiet.lock();
        quiet.as_ref().is_some_and(|quiet| {
            quiet.after.as_deref() == after && quiet.marks == marks && at < quiet.until
        })
    }

    /// Nothing was found: the next read waits, longer each time, for a mark to move.
    fn found_nothing(&self, after: Option<&str>, marks: u64, at: Instant) {
        let mut quiet = self.quiet.lock();
        let same = quiet
            .as_ref()
            .filter(|quiet| quiet.after.as_deref() == after && quiet.marks == marks);
        let pause = same.map_or(PAUSE_MIN, |quiet| (quiet.pause * 2).min(PAUSE_MAX));
        *quiet = Some(Quiet {
            after: after.map(str::to_owned),
            marks,
            pause,
            until: at + pause,
        });
    }

    async fn read(&self, after: Option<&str>, limit: usize) -> Result<Vec<DeskEvent>, Refusal> {
        let place = match after {
            Some(id) => {
                let place = EventPlace::parse_event_id(id).ok_or(Refusal::NotFound)?;
                self.engine.numbered(place.0).ok_or(Refusal::NotFound)?;
                Some(place)
            }
            None => None,
        };
        let at = self.engine.clock().read().at;
        // Before the read: what becomes durable during it shows as another mark.
        let marks = self.marks();
        if self.is_quiet(after, marks, at) {
            return Ok(Vec::new());
        }
        let events = self.engine.all_events(place, limit).await?;
        if events.is_empty() {
            self.found_nothing(after, marks, at);
        }
        Ok(events.into_iter().map(desk_event).collect())
    }
}

impl SaleDesk for Desk {
    fn events<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>> {
        Box::pin(self.read(after, limit))
    }

    fn sale(&self, sale_id: &SaleId) -> Option<DeskSale> {
        let sale = self.engine.sale(sale_id)?;
        let state = sale.state();
        let plan = sale.definition();
        (state != SaleState::Draft).then(|| DeskSale {
            sale_id: plan.sale_id,
            title: plan.title.to_string(),
            starts_at: plan.starts_at,
            ends_at: plan.ends_at,
            currency: plan.currency,
            state,
        })
    }
}

fn desk_event(event: SaleEvent) -> DeskEvent {
    DeskEvent {
        id: event.id,
        kind: event.kind,
        at: event.at,
        sale_id: event.sale_id,
        data: event.data,
    }
}
