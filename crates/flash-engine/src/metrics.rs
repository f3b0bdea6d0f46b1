//! What the engine tells Prometheus; handles are made once.

use metrics::{Gauge, Histogram, gauge, histogram};

pub(crate) struct Metrics {
    pub(crate) commit_seconds: Histogram,
    pub(crate) commit_batch_jobs: Histogram,
    pub(crate) store_up: Gauge,
    pub(crate) books_imbalance_units: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            commit_seconds: histogram!("stampede_commit_seconds"),
            commit_batch_jobs: histogram!("stampede_commit_batch_jobs"),
            store_up: gauge!("stampede_store_up"),
            books_imbalance_units: gauge!("stampede_books_imbalance_units"),
        }
    }
}
