//! Where events come from: a list in memory, with a clock that can be moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flash_settle::outbox::{
    EventSource, Limits, Now, OutEvent, Outbox, OutboxConfig, OutboxError, Target, Timeouts,
    system_now, tls_with,
};
use flash_store::EventPlace;
use flash_types::{SaleId, SaleNo, Serial};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;

#[derive(Default)]
struct Inner {
    events: Mutex<Vec<OutEvent>>,
    passed_ms: AtomicU64,
}

pub struct Shop(Arc<Inner>);

impl EventSource for Inner {
    fn sales(&self) -> Vec<(SaleNo, SaleId)> {
        vec![(SaleNo(1), SaleId::parse("s1").unwrap())]
    }

    fn events(
        &self,
        sale_no: SaleNo,
        after: EventPlace,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<OutEvent>, String>> {
        assert_eq!(sale_no, SaleNo(1));
        let events = self.events.lock();
        let new = events.iter().filter(|event| event.place > after);
        let new = new.take(limit).cloned().collect();
        Box::pin(async move { Ok(new) })
    }
}

impl Shop {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    pub fn emit(&self, reservation: Option<u64>, kind: &str) {
        let mut events = self.0.events.lock();
        let sequence = events.len() as u64 + 1;
        let place = EventPlace {
            generation: 1,
            sequence,
        };
        let id = place.event_id(SaleNo(1));
        let body = json!({
            "id": id, "generation": 1, "sequence": sequence, "type": kind, "sale_id": "s1",
            "data": {"reservation": reservation},
        });
        events.push(OutEvent {
            id,
            place,
            reservation: reservation.map(Serial),
            kind: kind.into(),
            at: system_now(),
            body: body.to_string(),
        });
    }

    pub fn event_count(&self) -> usize {
        self.0.events.lock().len()
    }

    /// The relays' clock is so much later from here on.
    pub fn pass(&self, time: Duration) {
        // Relaxed: a number by itself.
        self.0
            .passed_ms
            .fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

pub fn target(name: &str, url: &str) -> Target {
    Target {
        name: name.into(),
        url: url.into(),
        secret: "0123456789abcdef".into(),
        secret_previous: None,
        allow_private: true,
        sales: vec![],
        types: vec![],
    }
}

pub fn try_start(
    dir: &tempfile::TempDir,
    targets: Vec<Target>,
    shop: &Shop,
) -> Result<Outbox, OutboxError> {
    let clock = Arc::clone(&shop.0);
    let now: Now = Arc::new(move || {
        system_now().plus(Duration::from_millis(
            clock.passed_ms.load(Ordering::Relaxed),
        ))
    });
    let config = OutboxConfig {
        file: dir.path().join("outbox.db"),
        targets,
        timeouts: Timeouts {
            connect: Duration::from_millis(500),
            whole: Duration::from_secs(1),
        },
        limits: Limits::default(),
        tls: tls_with(rustls::RootCertStore::empty()).unwrap(),
    };
    Outbox::start(config, Arc::clone(&shop.0) as Arc<dyn EventSource>, &now)
}

pub fn start(dir: &tempfile::TempDir, targets: Vec<Target>, shop: &Shop) -> Outbox {
    try_start(dir, targets, shop).unwrap()
}
