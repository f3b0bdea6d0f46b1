//! Opens the store that was configured: the embedded one, or Redis, for which it waits as long as it takes.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flash_engine::{Clock, StoreClock, SystemClock};
use flash_store::{
    AnyStore, OpenError, Opened, RedisConfig, RedisStore, RedisUrl, SqliteStore, Store as _,
};
use flash_types::{Durability, ItemId, Timestamp};

use crate::config::Config;
use crate::waiting::Waiting;

/// Between two tries to reach a Redis.
const TRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the log says that it is still waiting.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// A store, and the clock that its times go by.
pub(crate) struct Stored {
    pub(crate) store: AnyStore,
    pub(crate) opened: Opened,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Opens the store; `None` if it was told to stop while it waited.
pub(crate) fn open(
    config: &Config,
    admin: SocketAddr,
    is_told_to_stop: &dyn Fn() -> bool,
) -> Result<Option<Stored>, String> {
    match config.redis_url()? {
        None => embedded(&config.store.data)
            .map(Some)
            .map_err(|error| error.to_string()),
        Some(url) => redis(config, url, admin, is_told_to_stop),
    }
}

fn embedded(data: &Path) -> Result<Stored, OpenError> {
    let (store, opened) = SqliteStore::open(data)?;
    Ok(Stored {
        store: AnyStore::Sqlite(store),
        clock: Arc::new(SystemClock::start(opened.last_at)),
        opened,
    })
}

fn redis(
    config: &Config,
    url: RedisUrl,
    admin: SocketAddr,
    is_told_to_stop: &dyn Fn() -> bool,
) -> Result<Option<Stored>, String> {
    let data = &config.store.data;
    make_folder(data)?;
    if data.join("stampede.db").exists() {
        tracing::warn!(
            data = %data.display(),
            "there is a stampede.db in the data folder: its sales are not in Redis and are not served"
        );
    }
    let config = RedisConfig {
        url,
        ca_file: Some(config.store.redis_ca.clone()).filter(|file| !file.as_os_str().is_empty()),
        timeout: Duration::from_millis(config.store.redis_timeout_ms),
        durability_min: config.store.redis_durability_min.durability(),
        node: node_name(&config.store.node, data)?,
        data: data.clone(),
    };
    let mut waiting: Option<Waiting> = None;
    let mut said_at: Option<Instant> = None;
    loop {
        let why = match RedisStore::open(&config) {
            Ok((store, opened)) => {
                let clock = Arc::new(StoreClock(store.time()));
                tracing::info!(
                    redis = config.url.shown(),
                    node = config.node,
                    "connected to Redis"
                );
                if store.durability() == Durability::RedisMemory {
                    tracing::warn!(
                        "this Redis promises nothing beyond its memory: a crash of it loses reservations that were answered; see docs/OPERATING.md"
                    );
                }
                return Ok(Some(Stored {
                    store: AnyStore::Redis(store),
                    opened,
                    clock,
                }));
            }
            Err(OpenError::Away(why)) => why,
            Err(error) => return Err(error.to_string()),
        };
        if said_at.is_none_or(|at| at.elapsed() >= SAY_INTERVAL) {
            tracing::warn!(why, "waiting for Redis; not ready until it is there");
            said_at = Some(Instant::now());
        }
        match &waiting {
            Some(waiting) => waiting.say(&why),
            None => {
                let listening = Waiting::listen(admin, &why);
                waiting =
                    Some(listening.map_err(|error| format!("cannot listen on {admin}: {error}"))?);
            }
        }
        let next_try = Instant::now() + TRY_INTERVAL;
        while Instant::now() < next_try {
            if is_told_to_stop() {
                return Ok(None);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// The data folder: keys, node name, what was acknowledged.
fn make_folder(data: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(data) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && data.is_dir() => Ok(()),
        Err(error) => Err(OpenError::Folder {
            dir: data.to_owned(),
            why: error.to_string(),
        }
        .to_string()),
    }
}

/// The configured name, or the one kept in `<data>/node`, made where there is none.
fn node_name(configured: &str, data: &Path) -> Result<String, String> {
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    let file = data.join("node");
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let name = text.trim().to_owned();
            ItemId::parse(&name)
                .map_err(|bad| format!("the node name in {} {bad}", file.display()))?;
            Ok(name)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let random =
                getrandom::u32().map_err(|error| format!("no randomness to be had: {error}"))?;
            let name = format!("node-{random:08x}");
            let write = || -> std::io::Result<()> {
                let mut written = std::fs::File::create(&file)?;
                writeln!(written, "{name}")?;
                written.sync_all()
            };
            write().map_err(|error| format!("cannot write {}: {error}", file.display()))?;
            Ok(name)
        }
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

/// The wall clock of an opened store, for what is told at the start.
pub(crate) fn started_at_s(clock: &dyn Clock) -> i64 {
    let Timestamp(ms) = clock.read().wall;
    ms / 1_000
}
