//! Rehearsals of a serving process: one at a time, on a thread of its own, gone with whoever asked for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flash_front::{RehearsalPlan, Rehearsals, Rehearsing};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::rehearse;
use crate::config::Config;

/// How long a stop waits for a rehearsal that was broken off.
const STOP_BOUND: Duration = Duration::from_secs(5);

/// Runs them.
pub(crate) struct Rehearser {
    config: Config,
    beside: PathBuf,
    /// Breaks off the one that runs; `None` where none does.
    running: Arc<Mutex<Option<Arc<AtomicBool>>>>,
}

impl Rehearser {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            beside: config.store.data.clone(),
            running: Arc::default(),
        }
    }

    /// Breaks off what runs and waits until its process and folder are gone.
    pub(crate) fn stop(&self) {
        if let Some(is_cancelled) = &*self.running.lock() {
            is_cancelled.store(true, Ordering::Relaxed);
        }
        let end = Instant::now() + STOP_BOUND;
        while self.running.lock().is_some() && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Rehearsals for Rehearser {
    fn begin(&self, plan: RehearsalPlan) -> Result<Rehearsing, String> {
        let is_cancelled = Arc::new(AtomicBool::new(false));
        {
            let mut running = self.running.lock();
            if running.is_some() {
                return Err("another rehearsal runs".into());
            }
            *running = Some(Arc::clone(&is_cancelled));
        }
        let (send, receive) = oneshot::channel();
        let (config, beside) = (self.config.clone(), self.beside.clone());
        let (running, flag) = (Arc::clone(&self.running), Arc::clone(&is_cancelled));
        let thread = std::thread::Builder::new().name("rehearsal".into());
        let started = thread.spawn(move || {
            // Freed on every way out, a panic too.
            let slot = Slot(running);
            let report = rehearse(&plan, &config, &beside, &flag);
            drop(slot);
            // Whoever asked may be gone.
            let _ = send.send(report.map_err(|error| format!("{error:#}")));
        });
        if let Err(error) = started {
            *self.running.lock() = None;
            return Err(format!("cannot start a thread: {error}"));
        }
        Ok(Box::pin(async move {
            let _cancel = CancelOnDrop(is_cancelled);
            let report = receive.await;
            report.unwrap_or_else(|_| Err("its thread ended early".into()))
        }))
    }
}

struct Slot(Arc<Mutex<Option<Arc<AtomicBool>>>>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // Relaxed: a flag by itself; harmless after the end.
        self.0.store(true, Ordering::Relaxed);
    }
}
