//! The engine's events as the relays take them.
//!
//! A sale that has nothing new is not read: the engine says of each sale whether anything became durable in it, and what
//! was read last says where its line ended then.

use std::collections::HashMap;
use std::sync::Arc;

use flash_engine::{Engine, EventPlace, SaleEvent};
use flash_settle::outbox::{EventSource, OutEvent};
use flash_types::{SaleId, SaleNo};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Reads events through the engine.
pub(crate) struct EngineEvents {
    engine: Arc<Engine>,
    /// Of sales whose line was read to its end: the mark of the sale before that read, and its last place.
    ends: Mutex<HashMap<SaleNo, (u64, EventPlace)>>,
    /// The ends of all lines were asked for once: most sales ended long ago and are not read at all.
    is_seeded: OnceCell<()>,
}

impl EngineEvents {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            ends: Mutex::default(),
            is_seeded: OnceCell::new(),
        }
    }

    async fn seed(&self) -> Result<(), String> {
        let seed = async || {
            let sales = self.engine.sales();
            // Before the question: what becomes durable meanwhile shows as another mark.
            let marks: HashMap<_, _> = sales
                .iter()
                .map(|sale| (sale.sale_no(), sale.events_mark()))
                .collect();
            let places = self.engine.last_places().await;
            let places = places.map_err(|refusal| format!("{refusal:?}"))?;
            let mut ends = self.ends.lock();
            for (sale_no, place) in places {
                if let Some(mark) = marks.get(&sale_no) {
                    ends.entry(sale_no).or_insert((*mark, place));
                }
            }
            Ok(())
        };
        self.is_seeded.get_or_try_init(seed).await.copied()
    }

    fn mark(&self, sale_no: SaleNo) -> Option<u64> {
        self.engine.numbered(sale_no).map(|sale| sale.events_mark())
    }
}

impl EventSource for EngineEvents {
    fn sales(&self) -> Vec<(SaleNo, SaleId)> {
        // Drafts too: one that was unpublished has something to tell.
        let sales = self.engine.sales();
        let named = sales.iter();
        named
            .map(|sale| (sale.sale_no(), sale.definition().sale_id))
            .collect()
    }

    fn newest(&self, sale_no: SaleNo) -> Option<EventPlace> {
        let (mark, end) = self.ends.lock().get(&sale_no).copied()?;
        (self.mark(sale_no)? == mark).then_some(end)
    }

    fn events(
        &self,
        sale_no: SaleNo,
        after: EventPlace,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<OutEvent>, String>> {
        Box::pin(async move {
            self.seed().await?;
            let Some(sale) = self.engine.numbered(sale_no) else {
                return Ok(Vec::new());
            };
            // Before the read: what becomes durable during it shows as another mark.
            let mark = sale.events_mark();
            let sale_id = sale.definition().sale_id;
            let events = self.engine.events(&sale_id, after, limit).await;
            let events = events.map_err(|refusal| format!("{refusal:?}"))?;
            if events.len() < limit {
                let end = events.last().map_or(after, SaleEvent::place);
                let mut ends = self.ends.lock();
                let known = ends.entry(sale_no).or_insert((mark, end));
                // Readers stand at different places: the farthest end is the end.
                *known = (mark.max(known.0), end.max(known.1));
            }
            events.iter().map(out_event).collect()
        })
    }
}

fn out_event(event: &SaleEvent) -> Result<OutEvent, String> {
    Ok(OutEvent {
        id: event.id.clone(),
        place: event.place(),
        reservation: event.reservation,
        kind: event.kind.clone(),
        at: event.at,
        body: serde_json::to_string(event).map_err(|error| error.to_string())?,
    })
}
