//! The outbox relay: events that were written with their commit, posted to the configured webhooks.
//!
//! At least once, in order per reservation; receivers order by (generation, sequence) and ignore what they have seen.
//! A webhook has a task of its own ([`sink`]), which asks its [`schedule`] what to try when, and writes down in [`file`] how far
//! it is. All of them run on one thread that serves no buyer: a target that is slow, dead or malicious holds up neither a
//! purchase nor another webhook.

mod address;
mod deliver;
mod event;
mod file;
mod schedule;
mod signature;
mod sink;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use flash_store::EventPlace;
use flash_types::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use deliver::{Deliverer, Failed, Timeouts, system_tls, tls_with};
pub use event::{EventSource, OutEvent};
pub use file::{DeadLetter, FileError};
pub use schedule::{Counts, Limits, Parked};
pub use signature::signature;
pub use sink::{Now, Progress};
pub use target::Target;

use file::OutboxFile;
use sink::{Parts, Redeliver};

/// Webhooks at once.
pub const WEBHOOKS_MAX: usize = 16;
/// Redeliveries that wait for one sink.
const COMMANDS_MAX: usize = 16;
/// Names looked up at once: one for each delivery in flight, and some that were given up and have not noticed.
const LOOKUPS_MAX: usize = 256;

/// What the relays run with.
pub struct OutboxConfig {
    /// The outbox file; its folder exists.
    pub file: PathBuf,
    /// Where to.
    pub targets: Vec<Target>,
    /// How long a delivery may take.
    pub timeouts: Timeouts,
    /// How much at once, how often again.
    pub limits: Limits,
    /// Whom https targets are checked against, see [`system_tls`].
    pub tls: rustls::ClientConfig,
}

/// Why the relays cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// A target is wrong.
    #[error("webhook {name}: {why}")]
    Target {
        /// Which.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The file does not serve.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// No thread, event loop or randomness to be had.
    #[error("cannot start the relays: {0}")]
    System(std::io::Error),
}

/// Why an event is not delivered again.
#[derive(Debug, thiserror::Error)]
pub enum RedeliverError {
    /// There is no such event, or no webhook wants it.
    #[error("no such event")]
    NotFound,
    /// There is no webhook of that name.
    #[error("no such webhook")]
    NoSuchWebhook,
    /// The webhook has as many events set aside as it may, or has stopped.
    #[error("webhook {0} takes nothing more now")]
    Busy(String),
    /// Events or the outbox cannot be read.
    #[error("{0}")]
    Unavailable(String),
}

/// A webhook as operators see it.
#[derive(Debug, Clone)]
pub struct WebhookStatus {
    /// Its name.
    pub name: String,
    /// Its URL, without the query.
    pub url: String,
    /// How it stands.
    pub progress: Progress,
}

/// The running relays; dropped, they stop, and what was in flight is delivered again after the next start.
pub struct Outbox {
    sinks: Vec<Handle>,
    source: Arc<dyn EventSource>,
    file: OutboxFile,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Handle {
    target: Target,
    progress: Arc<Mutex<Progress>>,
    commands: mpsc::Sender<Redeliver>,
}

impl Outbox {
    /// Takes the relays over from whoever ran them, and starts them on a thread of their own.
    ///
    /// # Errors
    /// [`OutboxError`]; nothing runs then.
    pub fn start(
        config: OutboxConfig,
        source: Arc<dyn EventSource>,
        now: &Now,
    ) -> Result<Self, OutboxError> {
        let file = OutboxFile::open(&config.file).map_err(|source| OutboxError::File {
            path: config.file.clone(),
            source,
        })?;
        let (mut sinks, mut parts) = (Vec::new(), Vec::new());
        for target in config.targets {
            let wrong = |why| OutboxError::Target {
                name: target.name.clone(),
                why,
            };
            target.check().map_err(wrong)?;
            let deliverer = Deliverer::new(target.clone(), config.timeouts, config.tls.clone())
                .map_err(wrong)?;
            let (commands, received) = mpsc::channel(COMMANDS_MAX);
            let progress = Arc::new(Mutex::new(Progress::default()));
            let seed = getrandom::u64()
                .map_err(|error| OutboxError::System(std::io::Error::other(error)))?;
            parts.push(Parts {
                deliverer,
                target: target.clone(),
                source: Arc::clone(&source),
                file: file.clone(),
                now: Arc::clone(now),
                limits: config.limits,
                seed,
                progress: Arc::clone(&progress),
                commands: received,
            });
            sinks.push(Handle {
                target,
                progress,
                commands,
            });
        }
        let (stop, stopped) = oneshot::channel();
        let thread = spawn(parts, stopped).map_err(OutboxError::System)?;
        Ok(Self {
            sinks,
            source,
            file,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Every webhook, in the order of the configuration.
    pub fn webhooks(&self) -> Vec<WebhookStatus> {
        let sinks = self.sinks.iter();
        sinks
            .map(|sink| WebhookStatus {
                name: sink.target.name.clone(),
                url: sink.target.shown_url(),
                progress: sink.progress.lock().clone(),
            })
            .collect()
    }

    /// Events that were given up, ascending by number; also of webhooks that are no longer configured.
    ///
    /// # Errors
    /// [`FileError`] if the outbox cannot be read.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn dead_letters(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, FileError> {
        self.file.dead_letters(after, limit).await
    }

    /// Delivers an event again: to one webhook, or to every one that wants it. One that is still to come stays where it is. Returns
    /// the webhooks.
    ///
    /// # Errors
    /// [`RedeliverError`]; with several webhooks, some may have taken it.
    ///
    /// # Cancel safety
    /// Dropped, some webhooks may have taken it.
    pub async fn redeliver(
        &self,
        id: &str,
        webhook: Option<&str>,
    ) -> Result<Vec<String>, RedeliverError> {
        let (sale_no, place) = EventPlace::parse_event_id(id).ok_or(RedeliverError::NotFound)?;
        let is_named = |sink: &&Handle| webhook.is_none_or(|name| name == sink.target.name);
        let named: Vec<&Handle> = self.sinks.iter().filter(is_named).collect();
        if named.is_empty() {
            return Err(RedeliverError::NoSuchWebhook);
        }
        let read = sink::reread(&*self.source, sale_no, place).await;
        let event = read.map_err(RedeliverError::Unavailable)?;
        let event = event.ok_or(RedeliverError::NotFound)?;
        let sales = self.source.sales();
        let sale_id = sales
            .iter()
            .find(|(known, _)| *known == sale_no)
            .map(|(_, id)| *id);
        let sale_id = sale_id.ok_or(RedeliverError::NotFound)?;
        let mut told = Vec::new();
        for sink in named {
            if !sink.target.wants(&sale_id, &event.kind) {
                continue;
            }
            let busy = || RedeliverError::Busy(sink.target.name.clone());
            let (reply, answer) = oneshot::channel();
            let command = Redeliver {
                sale_no,
                event: event.clone(),
                reply,
            };
            sink.commands.try_send(command).map_err(|_| busy())?;
            if !answer.await.unwrap_or(false) {
                return Err(busy());
            }
            told.push(sink.target.name.clone());
        }
        if told.is_empty() {
            return Err(RedeliverError::NotFound);
        }
        Ok(told)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// The time as the machine says it, for whoever has no better clock.
pub fn system_now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(0).plus(since.unwrap_or_default())
}

fn spawn(parts: Vec<Parts>, stopped: oneshot::Receiver<()>) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUPS_MAX)
        .build()?;
    std::thread::Builder::new()
        .name("outbox".into())
        .spawn(move || {
            runtime.block_on(async {
                let mut sinks = JoinSet::new();
                for part in parts {
                    sinks.spawn(sink::run(part));
                }
                // Told, or whoever would tell is gone; sinks that ended by themselves have said so.
                let _ = stopped.await;
                sinks.abort_all();
            });
            // A look-up of a name cannot be called back: it is not waited for.
            runtime.shutdown_background();
        })
}
