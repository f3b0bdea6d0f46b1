//! Server-sent events of a sale: one pump per watched sale renders what changed, every stream copies it.
//!
//! A stream begins with a snapshot (its state and every item's units), told in the same events as the changes. The
//! id of an event is a fingerprint of all that is shown, so a client that comes back with the last one and missed
//! nothing gets no snapshot. A client that cannot follow is dropped and comes back by itself.
//! Bounded: streams by number, each stream's arrears by the channel, each item to five `stock` events a second.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hasher;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flash_engine::{Engine, Sale};
use flash_types::{ItemIndex, Refusal, SaleId, SaleState, Timestamp};
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;
use tokio::sync::broadcast;

use crate::outcome::Problem;
use crate::sale_view::{available, indexed, shown_units};

/// Time between two looks at a sale: at most five `stock` events a second per item.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Looks that a stream may lag behind before it is dropped.
const ARREARS_MAX: usize = 64;
/// Told to a client whose stream ended by itself, milliseconds.
const RETRY_MS: u32 = 2_000;

/// Which sales are watched, and by how many streams.
pub(crate) struct Hub {
    engine: Arc<Engine>,
    buckets: Vec<u32>,
    ping: Duration,
    streams_max: usize,
    streams: AtomicUsize,
    is_closed: AtomicBool,
    watched: Mutex<HashMap<SaleId, Watched>>,
}

/// A sale with a pump. What was told last and who hears the next change move together, under the lock: a snapshot is
/// what was told last, so it and the changes after it leave nothing out.
struct Watched {
    sender: broadcast::Sender<Bytes>,
    told: Shown,
}

/// What is shown of a sale at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    state: SaleState,
    units: Vec<u32>,
    /// Releases of further units so far.
    waves: usize,
    /// The next release of each item that is announced.
    next_waves: Vec<Option<(Timestamp, Option<u32>)>>,
}

impl Hub {
    pub(crate) fn new(
        engine: Arc<Engine>,
        buckets: Vec<u32>,
        ping: Duration,
        streams_max: usize,
    ) -> Self {
        Self {
            engine,
            buckets,
            ping,
            streams_max,
            streams: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            watched: Mutex::new(HashMap::new()),
        }
    }

    /// Opens a stream. Must be called within a runtime, which then runs the sale's pump if none runs yet.
    pub(crate) fn open(
        self: &Arc<Self>,
        sale: &Arc<Sale>,
        last_event_id: Option<&[u8]>,
    ) -> Result<EventStream, Problem> {
        // Relaxed here and below: a count and a flag by themselves.
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Problem::Refused(Refusal::Stopping));
        }
        if self.streams.fetch_add(1, Ordering::Relaxed) >= self.streams_max {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            return Err(Problem::Refused(Refusal::Overloaded {
                retry_after_ms: 5_000,
            }));
        }
        let guard = StreamGuard(Arc::clone(self));
        let (receiver, shown) = self.listen(sale);
        let mut first = format!("retry: {RETRY_MS}\n\n");
        if last_event_id == Some(shown.id().as_bytes()) {
            first.push_str(": nothing changed\n\n");
        } else {
            shown.write_changes(sale, None, &mut first);
        }
        Ok(EventStream {
            first: Some(Bytes::from(first)),
            next: Box::pin(next_event(receiver)),
            _guard: guard,
        })
    }

    /// Ends every stream soon, and opens no more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Streams at this moment.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn look(&self, sale: &Sale) -> Shown {
        let wall = self.engine.clock().read().wall;
        Shown::of(sale, wall, &self.buckets)
    }

    /// What was told last, and all that will be told after it.
    fn listen(self: &Arc<Self>, sale: &Arc<Sale>) -> (broadcast::Receiver<Bytes>, Shown) {
        let sale_id = sale.definition().sale_id;
        let shown = self.look(sale);
        let mut watched = self.watched.lock();
        if let Some(known) = watched.get(&sale_id) {
            return (known.sender.subscribe(), known.told.clone());
        }
        let (sender, receiver) = broadcast::channel(ARREARS_MAX);
        let told = shown.clone();
        watched.insert(sale_id, Watched { sender, told });
        drop(watched);
        tokio::spawn(Arc::clone(self).pump(sale_id, shown.clone()));
        (receiver, shown)
    }

    /// Tells every stream, or finds that nobody listens any more: the sale is then forgotten in the same moment.
    fn tell(&self, sale_id: &SaleId, shown: &Shown, text: Bytes) -> ControlFlow<()> {
        let mut watched = self.watched.lock();
        let Some(known) = watched.get_mut(sale_id) else {
            return ControlFlow::Break(());
        };
        if known.sender.receiver_count() == 0 || self.is_closed.load(Ordering::Relaxed) {
            watched.remove(sale_id);
            return ControlFlow::Break(());
        }
        if !text.is_empty() {
            known.told.clone_from(shown);
            // Receivers were counted a moment ago; one that left since does not mind.
            let _ = known.sender.send(text);
        }
        ControlFlow::Continue(())
    }

    /// Looks at a sale until nobody listens.
    async fn pump(self: Arc<Self>, sale_id: SaleId, mut last: Shown) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told_at = tokio::time::Instant::now();
        loop {
            let now = looks.tick().await;
            let mut text = String::new();
            // Looked up anew: a sale that left memory is another value.
            if let Some(sale) = self.engine.sale(&sale_id) {
                let shown = self.look(&sale);
                shown.write_changes(&sale, Some(&last), &mut text);
                last = shown;
            }
            if text.is_empty() && now.duration_since(told_at) >= self.ping {
                text.push_str(": ping\n\n");
            }
            if !text.is_empty() {
                told_at = now;
            }
            if self.tell(&sale_id, &last, Bytes::from(text)).is_break() {
                return;
            }
        }
    }
}

impl Shown {
    fn of(sale: &Sale, wall: Timestamp, buckets: &[u32]) -> Self {
        Self {
            state: sale.shown_state(wall),
            units: indexed(sale.definition())
                .map(|(index, _)| shown_units(available(sale, index), buckets))
                .collect(),
            waves: sale.waves_count(),
            next_waves: indexed(sale.definition())
                .map(|(index, _)| sale.next_wave(index, wall))
                .collect(),
        }
    }

    /// A fingerprint: not a secret, so the key is fixed and the same after a restart.
    fn id(&self) -> String {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(self.state.as_str().as_bytes());
        for units in &self.units {
            hasher.write_u32(*units);
        }
        for (at, units) in self.next_waves.iter().flatten() {
            hasher.write_i64(at.0);
            hasher.write_u32(units.unwrap_or(0));
        }
        format!("{:016x}", hasher.finish())
    }

    /// Writes what differs from `last`, or all of it.
    fn write_changes(&self, sale: &Sale, last: Option<&Self>, out: &mut String) {
        if last == Some(self) {
            return;
        }
        let plan = sale.definition();
        let id = self.id();
        // Writing to a String cannot fail.
        if last.is_none_or(|last| last.state != self.state) {
            let _ = write!(
                out,
                "id: {id}\nevent: state\ndata: {{\"sale_id\":\"{}\",\"state\":\"{}\",\"starts_at\":\"{}\",\"ends_at\":\"{}\"}}\n\n",
                plan.sale_id,
                self.state.as_str(),
                plan.starts_at,
                plan.ends_at
            );
        }
        self.write_waves(sale, last, &id, out);
        for ((index, item), units) in indexed(plan).zip(&self.units) {
            let before = last.and_then(|last| last.units.get(usize::from(index.0)));
            if before != Some(units) {
                let _ = write!(
                    out,
                    "id: {id}\nevent: stock\ndata: {{\"item\":\"{}\",\"available_units\":{units}}}\n\n",
                    item.item
                );
            }
        }
    }
}

impl Shown {
    /// Releases since `last`, and what is announced for their items; at the begin what is announced.
    fn write_waves(&self, sale: &Sale, last: Option<&Self>, id: &str, out: &mut String) {
        let released = match last {
            Some(last) => sale.waves_after(last.waves),
            None => Vec::new(),
        };
        let announced = indexed(sale.definition())
            .map(|(index, _)| (index, 0))
            .filter(|(index, _)| last.is_none() && self.next_wave(*index).is_some());
        for (index, units) in released.into_iter().chain(announced) {
            let Some(item) = sale.definition().items.get(usize::from(index.0)) else {
                continue;
            };
            let next = match self.next_wave(index) {
                Some((at, Some(units))) => format!("{{\"at\":\"{at}\",\"units\":{units}}}"),
                Some((at, None)) => format!("{{\"at\":\"{at}\"}}"),
                None => "null".to_owned(),
            };
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "id: {id}\nevent: wave\ndata: {{\"item\":\"{}\",\"released_units\":{units},\"next_wave\":{next}}}\n\n",
                item.item
            );
        }
    }

    fn next_wave(&self, index: ItemIndex) -> Option<(Timestamp, Option<u32>)> {
        self.next_waves.get(usize::from(index.0)).copied().flatten()
    }
}

type Next = (Option<Bytes>, broadcast::Receiver<Bytes>);

/// The next event, or `None` for a stream that fell behind or whose pump ended.
async fn next_event(mut receiver: broadcast::Receiver<Bytes>) -> Next {
    let event = receiver.recv().await.ok();
    (event, receiver)
}

/// One client's events.
pub(crate) struct EventStream {
    first: Option<Bytes>,
    next: Pin<Box<dyn Future<Output = Next> + Send>>,
    _guard: StreamGuard,
}

impl EventStream {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let (event, receiver) = ready!(self.next.as_mut().poll(cx));
        self.next = Box::pin(next_event(receiver));
        Poll::Ready(event)
    }
}

/// Counts a stream for as long as it lives.
struct StreamGuard(Arc<Hub>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
