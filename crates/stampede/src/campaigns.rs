//! The campaigns of this process, behind a bulkhead: threads, queue and time of their own, so that nothing they do slows
//! or stops the purchase path.
//!
//! Start: key, database (one try, bounded) -> services composed -> door handed to the front. A database that cannot be
//! reached is tried again for ever while the engine sells; one that is wrong ends the start.
//! Stop: steps end after what they are at -> requests in flight end, to the drain deadline -> connections closed.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flash_engine::Engine;
use flash_front::SideDoor;
use side_books::audit::Auditor;
use side_books::seal::{self, Sealer};
use side_books::sql::{Database, DatabaseUrl, Reads as _, SqlError, SqlOptions, query};
use side_books::step::Step;
use side_campaign::shop::Shop;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::keys;

mod claim;
mod door;
mod nodes;
pub(crate) mod parts;
mod priority;
mod refusals;
mod standing;
mod steps;

use door::{Door, Limits};
use priority::Priority;
use steps::Now;

/// Between two tries to reach the database, and between two looks whether it is still there.
const TRY_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a start waits for the database before it goes on without.
const OPEN_BOUND: Duration = Duration::from_secs(6);
/// What ends late is left behind after this.
const SHUTDOWN_BOUND: Duration = Duration::from_millis(500);

/// Campaigns that run.
pub(crate) struct Campaigns {
    /// Of a SQLite file: nobody else may use it. Let go last.
    lock: Option<File>,
    runtime: Runtime,
    door: Arc<Door>,
    database: Database,
    stop: watch::Sender<bool>,
    life: JoinHandle<()>,
}

/// Starts them; `None` where the configuration says so.
///
/// # Errors
/// What stands against it: keys, the database's URL, tables of a newer program.
pub(crate) fn start(config: &Config, engine: &Arc<Engine>) -> Result<Option<Campaigns>, String> {
    if !config.campaigns.enabled {
        return Ok(None);
    }
    let url = config.database_url()?;
    let lock = claim_file(&url)?;
    // A second node is refused by the store itself today, so there are none; where one may join, they are counted there.
    nodes::check(0, url.kind())?;
    let secret = match config.keys.campaign_key.as_str() {
        "" => keys::campaign_secret(&config.store.data)?,
        key => keys::secret_of_hex(key).ok_or("keys.campaign_key is not 64 hexadecimal digits")?,
    };
    let priority = Priority::behind();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.campaigns.threads)
        .thread_name("campaigns")
        .on_thread_start(move || priority.take())
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the threads of the campaigns: {error}"))?;
    let inside = runtime.enter();
    let wrong = |error: SqlError| format!("the database of the campaigns, {url}: {error}");
    let database = Database::lazy(&url, SqlOptions::default()).map_err(wrong)?;
    let sealer = Sealer::new(&secret);
    // On one of their own threads, not on this one: what a file of SQLite starts has the priority of who opens it.
    let opening = runtime.spawn({
        let (database, sealer) = (database.clone(), sealer.clone());
        async move { open(&database, &sealer).await }
    });
    let opened = runtime
        .block_on(opening)
        .map_err(|error| format!("opening the database of the campaigns: {error}"))?;
    let is_open = match opened {
        Ok(()) => true,
        Err(error) if is_wrong(&error) => return Err(wrong(error)),
        Err(error) => {
            tracing::warn!(database = %url, %error, "campaigns wait for their database; the engine sells without them");
            false
        }
    };
    let shop = Arc::new(Shop {
        database: database.clone(),
        sealer: sealer.clone(),
        desk: Arc::new(flash_engine::Desk::new(Arc::clone(engine))),
        kinds: parts::kinds(),
        reactors: parts::reactors(),
        verdict_listeners: parts::verdict_listeners(),
        history: Vec::new(),
        sale_reminders: config.sale_reminders(),
        notifier: parts::notifier(config)?,
        zone: config.zone()?,
    });
    let services = parts::services(&shop);
    let limits = Limits {
        in_flight_max: config.campaigns.in_flight_max,
        queue_max: config.campaigns.queue_max,
        deadline: Duration::from_millis(config.campaigns.deadline_ms),
    };
    let door = Arc::new(Door::new(
        services,
        limits,
        runtime.handle().clone(),
        Some(Arc::clone(&shop)),
    ));
    door.set_up(is_open, "");
    let now: Now = {
        let engine = Arc::clone(engine);
        Arc::new(move || engine.clock().read().wall)
    };
    let (stop, stopped) = watch::channel(false);
    let auditor = Arc::new(Auditor::new(database.clone()));
    let mut steps = parts::steps(&shop);
    steps.push(Arc::clone(&auditor) as Arc<dyn Step>);
    let life = runtime.spawn(live(
        (database.clone(), sealer),
        Arc::clone(&door),
        auditor,
        steps,
        now,
        is_open,
        stopped,
    ));
    drop(inside);
    tracing::info!(database = %url, is_open, "campaigns started");
    Ok(Some(Campaigns {
        lock,
        runtime,
        door,
        database,
        stop,
        life,
    }))
}

impl Campaigns {
    /// What the front is given.
    pub(crate) fn door(&self) -> Arc<dyn SideDoor> {
        Arc::clone(&self.door) as Arc<dyn SideDoor>
    }

    /// Steps begin nothing new; requests are still answered.
    pub(crate) fn begin_stop(&self) {
        // Whoever listened may have ended already.
        let _ = self.stop.send(true);
    }

    /// Waits for what is under way, until then, and ends.
    pub(crate) fn finish(self, until: Instant) {
        self.begin_stop();
        let Self {
            lock,
            runtime,
            door,
            database,
            life,
            ..
        } = self;
        let is_over = runtime.block_on(async {
            let ended = async {
                door.emptied().await;
                // It ends by itself; a panic of it was told.
                let _ = life.await;
                database.close().await;
            };
            tokio::time::timeout_at(until.into(), ended).await.is_ok()
        });
        if !is_over {
            tracing::warn!("some work of the campaigns had not ended by the drain deadline");
        }
        runtime.shutdown_timeout(SHUTDOWN_BOUND);
        drop(lock);
    }
}

/// Waiting does not mend it.
fn is_wrong(error: &SqlError) -> bool {
    match error {
        SqlError::Broken(_) | SqlError::Violated(_) => true,
        SqlError::Conflict
        | SqlError::TimedOut
        | SqlError::Unknown
        | SqlError::Unavailable(_)
        | SqlError::Full => false,
    }
}

/// Brings the tables up to date and sees whether our key is theirs, within a bound.
async fn open(database: &Database, sealer: &Sealer) -> Result<(), SqlError> {
    let migrations = parts::migrations();
    let open = async {
        database.migrate(&migrations).await?;
        if seal::fits(database, sealer).await? {
            return Ok(());
        }
        Err(SqlError::Broken(
            "it is sealed with another campaign_key: give this process the campaign_key of the one that made it \
             (keys.toml in its data folder, or keys.campaign_key)"
                .to_owned(),
        ))
    };
    tokio::time::timeout(OPEN_BOUND, open)
        .await
        .unwrap_or(Err(SqlError::TimedOut))
}

/// A SQLite file is for one process: locked by a file beside it, for as long as that is open.
fn claim_file(url: &DatabaseUrl) -> Result<Option<File>, String> {
    let DatabaseUrl::Sqlite(file) = url else {
        return Ok(None);
    };
    let path = {
        let mut name = file.clone().into_os_string();
        name.push(".lock");
        PathBuf::from(name)
    };
    // What is made of the database's own files takes its mode from it.
    for path in [file, &path] {
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        let opened = options.open(path);
        opened.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    }
    let lock = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(format!(
            "another process uses the campaigns' database {url}: stop it, or give this one another (--database), \
             or use one postgres://… for both"
        )),
        Err(TryLockError::Error(error)) => Err(format!("cannot lock {}: {error}", path.display())),
    }
}

/// Waits for the database where it was not there, then lets the steps run and looks after it.
async fn live(
    (database, sealer): (Database, Sealer),
    door: Arc<Door>,
    auditor: Arc<Auditor>,
    steps: Vec<Arc<dyn Step>>,
    now: Now,
    is_open: bool,
    mut stopped: watch::Receiver<bool>,
) {
    let mut is_open = is_open;
    let mut said = String::new();
    while !is_open {
        tokio::select! {
            () = tokio::time::sleep(TRY_INTERVAL) => {}
            _ = stopped.wait_for(|is_stopping| *is_stopping) => return,
        }
        match open(&database, &sealer).await {
            Ok(()) => is_open = true,
            Err(error) => {
                let why = error.to_string();
                if why != said {
                    tracing::warn!(why, "campaigns still wait for their database");
                }
                door.set_up(false, &why);
                said = why;
            }
        }
    }
    door.set_up(true, "");
    let mut running = Vec::new();
    for step in steps {
        running.push(tokio::spawn(steps::run(
            step,
            Arc::clone(&now),
            stopped.clone(),
        )));
    }
    let looking = look_after(&database, &door, &auditor);
    tokio::select! {
        () = looking => {}
        _ = stopped.wait_for(|is_stopping| *is_stopping) => {}
    }
    for step in running {
        // A panic inside of a step was caught there.
        let _ = step.await;
    }
}

/// Asks the database now and then whether it is there, and tells.
async fn look_after(database: &Database, door: &Door, auditor: &Auditor) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        measure(auditor);
        let asked = async { database.read().await?.row(query("SELECT 1")).await };
        match asked.await {
            Ok(_) => door.set_up(true, ""),
            Err(error) => door.tell(&error.to_string()),
        }
    }
}

/// Numbers that the steps found, as gauges.
fn measure(auditor: &Auditor) {
    metrics::gauge!("stampede_side_books_imbalance_minor").set(auditor.imbalance() as f64);
    metrics::gauge!("stampede_side_inbox_lag_seconds")
        .set(side_campaign::inbox::lag_ms() as f64 / 1_000.0);
    for counted in side_campaign::risk::latest_counts() {
        metrics::gauge!(
            "stampede_side_verdicts",
            "rule" => counted.rule,
            "verdict" => counted.stands,
            "shadow" => if counted.is_shadow { "yes" } else { "no" }
        )
        .set(counted.verdicts as f64);
    }
}
