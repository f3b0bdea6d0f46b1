//! The engine's events on their way into the books: read in order, each piece applied in one transaction with the place up
//! to which it goes.
//!
//! Exactly once, in two layers:
//! - The cursor moves in the transaction of the effects, and only from where it stood. A crash undoes both; of two nodes
//!   that apply the same piece, the second finds another cursor and takes everything back.
//! - What an event brings about goes by how far its reservation and its order are known to have gone, which only ever goes
//!   on. After an accepted loss the engine may tell again, under other ids and at lower places, what was told before: no
//!   list of ids would recognize that, so none is kept, however short. The stage of each reservation is kept for as long as
//!   the engine keeps the reservation: a late payment may come at any time.
//!
//! An event that cannot be read stops the inbox rather than being left out: [`lag_ms`] grows, and somebody looks.

mod apply;
mod queries;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use flash_types::side::{BoxFuture, DeskEvent, SideProblem};
use flash_types::{Refusal, Timestamp};
use parking_lot::Mutex;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, SqlError, query};
use side_books::step::Step;

use crate::shop::Shop;

/// Most events of one transaction.
const PIECE_EVENTS_MAX: usize = 256;
/// How soon events are asked for again; where there are none, the desk answers from memory.
const REST: Duration = Duration::from_millis(200);

/// Age of the oldest event that was not applied, as of the last step of this process.
static LAG_MS: AtomicI64 = AtomicI64::new(0);

/// Age of the oldest event of the engine that is not applied, in ms, as of the last step; 0 where all are. While events
/// cannot be read at all, the time since when.
pub fn lag_ms() -> i64 {
    // Relaxed: a number to be looked at, nothing goes by it.
    LAG_MS.load(Ordering::Relaxed)
}

/// What goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    vec![Arc::new(Inbox::new(Arc::clone(shop)))]
}

/// The reader of events.
pub struct Inbox {
    shop: Arc<Shop>,
    /// Where the cursor was seen last; unknown after anything went wrong.
    cursor: Mutex<Option<String>>,
    /// Most events of the next transaction: fewer where it took too long or met another one.
    piece_events: AtomicUsize,
    /// Time of the oldest event that is not applied, or since when nothing can be read; 0 where all is well.
    behind_since_ms: AtomicI64,
}

impl Inbox {
    /// Of a shop.
    pub fn new(shop: Arc<Shop>) -> Self {
        Self {
            shop,
            cursor: Mutex::new(None),
            piece_events: AtomicUsize::new(PIECE_EVENTS_MAX),
            behind_since_ms: AtomicI64::new(0),
        }
    }

    /// Reads a piece and applies it. `true`: there may be more.
    async fn pull(&self, now: Timestamp) -> Result<bool, SideError> {
        let from = self.cursor().await?;
        // Relaxed: steps of one inbox follow each other.
        let limit = self.piece_events.load(Ordering::Relaxed);
        let after = (!from.is_empty()).then_some(from.as_str());
        let events = self.shop.desk.events(after, limit).await;
        let events = events.map_err(|refusal| unread(&from, &refusal))?;
        let Some(last) = events.last() else {
            self.stands_at(None);
            return Ok(false);
        };
        self.stands_at(events.first().map(|event| event.at));
        let is_mine = self.apply(&from, &events, last, now).await?;
        if is_mine {
            *self.cursor.lock() = Some(last.id.clone());
        } else {
            // Another node was here; go on from where it went.
            self.cursor.lock().take();
        }
        let is_more = !is_mine || events.len() >= limit;
        self.stands_at(is_more.then_some(last.at));
        self.piece_events
            .store((limit * 2).min(PIECE_EVENTS_MAX), Ordering::Relaxed);
        Ok(is_more)
    }

    /// Moves the cursor and does what follows from the events, all or nothing; `false`: another node did.
    async fn apply(
        &self,
        from: &str,
        events: &[DeskEvent],
        last: &DeskEvent,
        now: Timestamp,
    ) -> Result<bool, SideError> {
        let mut tx = self.shop.database.begin().await?;
        // First of all: another node waits here, not after having done everything.
        let advance = query(queries::ADVANCE)
            .bind(last.id.clone())
            .bind(last.at.0)
            .bind(from.to_owned());
        if tx.execute(advance).await? == 0 {
            tx.rollback().await;
            return Ok(false);
        }
        for event in events {
            apply::apply(&mut tx, &self.shop, event, now).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn cursor(&self) -> Result<String, SideError> {
        let known = self.cursor.lock().clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let mut reader = self.shop.database.read().await?;
        let row = reader.row(query(queries::CURSOR)).await?;
        let row = row.ok_or_else(|| SqlError::Broken("the inbox has no cursor".into()))?;
        Ok(row.text("event_id")?)
    }

    fn stands_at(&self, behind_since: Option<Timestamp>) {
        let since_ms = behind_since.map_or(0, |at| at.0.max(1));
        self.behind_since_ms.store(since_ms, Ordering::Relaxed);
    }

    /// What [`lag_ms`] tells of this one, as of `now`.
    pub fn lag_ms(&self, now: Timestamp) -> i64 {
        match self.behind_since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since_ms => (now.0 - since_ms).max(0),
        }
    }

    /// Nothing is known for sure any more; the next piece is smaller, in case this one was too large for its deadline.
    fn failed(&self, now: Timestamp) {
        self.cursor.lock().take();
        let piece = self.piece_events.load(Ordering::Relaxed);
        self.piece_events
            .store((piece / 2).max(1), Ordering::Relaxed);
        if self.behind_since_ms.load(Ordering::Relaxed) == 0 {
            self.stands_at(Some(now));
        }
    }
}

impl Step for Inbox {
    fn name(&self) -> &'static str {
        "inbox"
    }

    fn rest(&self) -> Duration {
        REST
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(async move {
            let pulled = self.pull(now).await;
            if pulled.is_err() {
                self.failed(now);
            }
            LAG_MS.store(self.lag_ms(now), Ordering::Relaxed);
            pulled
        })
    }
}

/// Why there are no events.
fn unread(from: &str, refusal: &Refusal) -> SideError {
    if *refusal == Refusal::NotFound {
        // Starting over would mix the orders of two engines.
        return SqlError::Broken(format!(
            "the engine knows no event {from}, up to which its events are applied: this database belongs to another store"
        ))
        .into();
    }
    SideProblem::new(
        503,
        "store_unavailable",
        "the engine's events cannot be read now",
    )
    .into()
}
