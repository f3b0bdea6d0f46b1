//! `stampede serve`: wires the crates together, runs them, and stops them in order.
//!
//! Start: configuration -> ports free? -> store opened and proved -> keys -> ledger loaded -> ports bound -> ready line.
//! Nothing is written before the ports were found free, so a start that cannot succeed leaves nothing behind.
//! Stop: not ready -> no new connections -> requests in flight answered, to a deadline -> queue committed -> store closed.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use flash_engine::{Engine, EngineConfig, HashKey, Recovered};
use flash_front::{
    AdminKey, BindError, Ended, Front, FrontConfig, JwtKey, JwtMaterial, KeyHash, Keys, NamedKey,
    Services,
};
use flash_settle::outbox::Now;
use flash_store::{AnyStore, DecisionRow, Loaded, OpenError, ReservationRow, SaleRow};
use flash_types::Timestamp;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Failure;
use crate::campaigns::{self, Campaigns};
use crate::cli::ServeArgs;
use crate::config::{self, Config, Role};
use crate::event_source::EngineEvents;
use crate::keys::{KeysFile, path_in, random_hash_key};
use crate::logs;
use crate::rehearsal::{self, Rehearser};
use crate::report::Reporter;
use crate::store::{self, Stored};
use crate::webhooks;

/// How often somebody who waits looks whether the engine is still running.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the engine is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A shop.
    Shop,
    /// A look: with demo login and demo page.
    Demo,
}

/// Runs until a signal.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let parent = nix::unistd::getppid();
    let config = Config::for_serve(args).map_err(Failure::CannotStart)?;
    logs::start(&config.log.level).map_err(Failure::CannotStart)?;
    // Before everything else: it may have to wait for Redis, and whoever reads the ready line may send one at once.
    let signals = Signals::listen()?;
    let Some(running) = start(&config, Kind::Shop, &|| signals.is_told())? else {
        tracing::info!("stopped while waiting for the store");
        return Ok(());
    };
    let ready = format!(
        "stampede ready public={} admin={} store={}",
        running.public,
        running.admin,
        running.engine.durability().as_str()
    );
    if !args.rehearsal {
        logs::say(&ready);
        running.wait_for_signal(&signals);
        return running.stop();
    }
    // Nobody may be there to read it any more, and then the folder is still to be removed.
    let _ = writeln!(std::io::stdout(), "{ready}");
    while nix::unistd::getppid() == parent && !signals.is_told() && !running.front.is_finished() {
        std::thread::park_timeout(LOOK_INTERVAL);
    }
    let data = &config.store.data;
    let name = data.file_name().unwrap_or_default().to_string_lossy();
    let stopped = running.stop();
    if nix::unistd::getppid() != parent && name.starts_with(rehearsal::FOLDER_PREFIX) {
        std::fs::remove_dir_all(data).context("removing the folder of a rehearsal")?;
    }
    stopped
}

/// SIGTERM and SIGINT, noticed from here on instead of ending the process; a second one ends it at once.
pub(crate) struct Signals {
    is_told: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to listen, on a thread of its own.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no event loop to be had")?;
        let (terminate, interrupt) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::terminate()),
                signal(SignalKind::interrupt()),
            )
        };
        let mut terminate = terminate.context("cannot listen to SIGTERM")?;
        let mut interrupt = interrupt.context("cannot listen to SIGINT")?;
        let is_told = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_told);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut next = || {
                    runtime.block_on(async {
                        tokio::select! {
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                        }
                    });
                };
                next();
                // Relaxed: a flag that guards no other memory; whoever waits looks again.
                told.store(true, Ordering::Relaxed);
                next();
                eprintln!("stampede: a second signal: ending at once");
                std::process::exit(1);
            })
            .context("cannot start a thread")?;
        Ok(Self { is_told })
    }

    /// Somebody asked for the end.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }
}

/// An engine that serves.
pub(crate) struct Running {
    /// Where buyers come in.
    pub(crate) public: SocketAddr,
    /// Where operators come in.
    pub(crate) admin: SocketAddr,
    /// Unix seconds of the start.
    pub(crate) started_at_s: i64,
    engine: Arc<Engine>,
    stop: watch::Sender<bool>,
    rehearser: Arc<Rehearser>,
    campaigns: Option<Campaigns>,
    drain_deadline: Duration,
    front: JoinHandle<Result<Ended, BindError>>,
    fatal: Arc<Mutex<Option<String>>>,
}

/// Starts everything; the ports answer when this returns. `None`: told to stop while it waited for the store.
pub(crate) fn start(
    config: &Config,
    kind: Kind,
    is_told_to_stop: &dyn Fn() -> bool,
) -> Result<Option<Running>, Failure> {
    let data = config.store.data.clone();
    let (public, admin) = free_ports(config).map_err(Failure::CannotStart)?;
    let hash_key = random_hash_key().map_err(Failure::CannotStart)?;
    let begun = Instant::now();
    let stored = store::open(config, admin, is_told_to_stop).map_err(Failure::CannotStart)?;
    let Some(Stored {
        store,
        opened,
        clock,
    }) = stored
    else {
        return Ok(None);
    };
    let recovered =
        recover(&store, hash_key).map_err(|error| Failure::CannotStart(error.to_string()))?;
    logs::abort_on_broken_books();
    let keys = front_keys(config, &data).map_err(Failure::CannotStart)?;
    let prometheus = recorder()?;
    let started_at_s = store::started_at_s(&*clock);
    let engine_config = EngineConfig {
        hash_key,
        request_deadline: Duration::from_millis(config.engine.request_deadline_ms),
        retire_after: Duration::from_secs(config.engine.retire_after_s),
        buyer_keys_max: config.engine.buyer_keys_max,
        address_keys_max: config.engine.address_keys_max,
    };
    let (engine, committer) = Engine::start(store, &opened, recovered, engine_config, clock);
    tracing::info!(
        elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        sales = engine.sales().len(),
        epoch = opened.epoch,
        "store proved and loaded"
    );
    let front_config = front_config(config, public, admin, kind).map_err(Failure::CannotStart)?;
    let events = Arc::new(EngineEvents::new(Arc::clone(&engine)));
    let now: Now = {
        let engine = Arc::clone(&engine);
        Arc::new(move || engine.clock().read().steady)
    };
    let webhooks = webhooks::start(config, &data, events, &now).map_err(Failure::CannotStart)?;
    let rehearser = Arc::new(Rehearser::new(config));
    let campaigns = campaigns::start(config, &engine).map_err(Failure::CannotStart)?;
    let services = Services {
        webhooks: Some(webhooks),
        rehearsals: Some(rehearser.clone()),
        reports: Some(Arc::new(Reporter::new(Arc::clone(&engine)))),
        side: campaigns.as_ref().map(Campaigns::door),
    };
    let front = Front::bind(
        front_config,
        keys,
        Arc::clone(&engine),
        services,
        prometheus,
    )
    .map_err(|error| Failure::CannotStart(hinted(&error)))?;
    let (public, admin) = (front.public_addr(), front.admin_addr());
    let fatal = Arc::new(Mutex::new(None));
    let beside = {
        let fatal = Arc::clone(&fatal);
        Box::pin(async move {
            if let Err(error) = committer.run().await {
                *fatal.lock() = Some(error.to_string());
            }
        })
    };
    let (stop, stopped) = watch::channel(false);
    let front = std::thread::Builder::new()
        .name("front".into())
        .spawn(move || front.run(beside, stopped))
        .context("cannot start a thread")?;
    Ok(Some(Running {
        public,
        admin,
        started_at_s,
        engine,
        stop,
        rehearser,
        campaigns,
        drain_deadline: Duration::from_millis(config.public.drain_deadline_ms),
        front,
        fatal,
    }))
}

/// Loads the ledger. Rows come before they are proved, and the ledger panics over rows that contradict each other:
/// then the proof alone says what is damaged. To be called before a panic ends the process.
fn recover(store: &AnyStore, hash_key: HashKey) -> Result<Recovered, OpenError> {
    struct ProofAlone;
    impl Loaded for ProofAlone {
        fn sale(&mut self, _: SaleRow) {}
        fn reservation(&mut self, _: ReservationRow) {}
        fn decision(&mut self, _: DecisionRow) {}
    }
    let load = || {
        let mut recovered = Recovered::new(hash_key);
        store.load(&mut recovered).map(|()| recovered)
    };
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(load));
    std::panic::set_hook(report);
    match loaded {
        Ok(loaded) => loaded,
        Err(_) => {
            store.load(&mut ProofAlone)?;
            // What is stored is proved, so it is the ledger that is wrong: told by its panic.
            load()
        }
    }
}

impl Running {
    /// The wall clock as the engine reads it.
    pub(crate) fn clock_now(&self) -> Timestamp {
        self.engine.clock().read().wall
    }

    /// Returns at the first SIGTERM or SIGINT, or when the engine ended by itself.
    pub(crate) fn wait_for_signal(&self, signals: &Signals) {
        while !signals.is_told() && !self.front.is_finished() {
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    /// Drains, flushes and ends.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        tracing::info!("stopping");
        // The front may have ended by itself already.
        let _ = self.stop.send(true);
        let until = Instant::now() + self.drain_deadline;
        if let Some(campaigns) = &self.campaigns {
            campaigns.begin_stop();
        }
        self.rehearser.stop();
        let ended = self
            .front
            .join()
            .map_err(|_| anyhow::anyhow!("the front panicked"))?
            .map_err(anyhow::Error::from)?;
        if let Some(campaigns) = self.campaigns {
            campaigns.finish(until);
        }
        let fatal = self.fatal.lock().take();
        if fatal.is_none() && self.engine.in_flight_jobs() > 0 {
            // The store still holds a batch. Waiting for it could take for ever; a restart tells what is durable.
            eprintln!(
                "stampede: the store did not answer by the drain deadline: ending without it"
            );
            std::process::exit(1);
        }
        match (ended, fatal) {
            (_, Some(fatal)) => Err(Failure::Other(anyhow::anyhow!(fatal))),
            (Ended::BesideEnded, None) => Err(Failure::Other(anyhow::anyhow!(
                "the committer ended by itself"
            ))),
            (Ended::Drained, None) => {
                tracing::info!("stopped");
                Ok(())
            }
            (Ended::DeadlinePassed, None) => {
                tracing::warn!("some requests were not answered by the drain deadline");
                Ok(())
            }
        }
    }
}

/// Both addresses, found free a moment ago. What is chosen for port 0 is chosen later.
fn free_ports(config: &Config) -> Result<(SocketAddr, SocketAddr), String> {
    let addresses = (config.public_addr()?, config.admin_addr()?);
    for (key, address) in [("public", addresses.0), ("admin", addresses.1)] {
        TcpListener::bind(address).map_err(|error| {
            format!(
                "cannot listen on {address} ({error}): stop what uses it, or choose another with --{key} ADDR (port 0 takes a free one)"
            )
        })?;
    }
    Ok(addresses)
}

fn hinted(error: &BindError) -> String {
    match error {
        BindError::Listen { listener, .. } => {
            format!("{error}: choose another with --{listener} ADDR (port 0 takes a free one)")
        }
        BindError::Key(_) | BindError::Side(_) | BindError::Thread(_) => error.to_string(),
    }
}

fn front_config(
    config: &Config,
    public: SocketAddr,
    admin: SocketAddr,
    kind: Kind,
) -> Result<FrontConfig, String> {
    let threads = match config.public.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    Ok(FrontConfig {
        public,
        admin,
        threads,
        connections_max: config.public.connections_max,
        admin_connections_max: config.admin.connections_max,
        side_address_rate: flash_admission::Rate::per_second(
            config.campaigns.address_rate_per_s,
            config.campaigns.address_burst,
        ),
        header_read_timeout: Duration::from_millis(config.public.header_read_timeout_ms),
        body_timeout: Duration::from_millis(config.public.body_read_timeout_ms),
        trusted_proxies: config.trusted_proxies()?,
        cors_origins: config.public.cors_origins.clone(),
        stock_buckets: config.public.stock_buckets.clone(),
        sse_streams_max: config.public.streams_max,
        drain_deadline: Duration::from_millis(config.public.drain_deadline_ms),
        is_demo: kind == Kind::Demo,
        ..FrontConfig::default()
    })
}

/// Configured keys; what is not configured comes from `keys.toml`, which is made where missing.
fn front_keys(config: &Config, data: &Path) -> Result<Keys, String> {
    let rate = config.public.storefront_rate_per_s;
    let rate = flash_admission::Rate::per_second(rate, rate);
    let config::Keys {
        admin,
        storefront,
        buyer_jwt,
        buyer_jwt_audience,
        buyer_jwt_issuer,
        campaign_key: _,
    } = &config.keys;
    let seed = random_hash_key()?;
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut keys = Keys {
        storefront: storefront
            .iter()
            .map(|key| NamedKey {
                rate,
                ..NamedKey::new(&key.name, &key.key)
            })
            .collect(),
        admin: admin.iter().map(admin_key).collect(),
        jwt: buyer_jwt.iter().map(config::BuyerJwt::as_key).collect(),
        audience: some(buyer_jwt_audience),
        issuer: some(buyer_jwt_issuer),
        hash_seed: (seed.0, seed.1),
    };
    if keys.storefront.is_empty() || keys.admin.is_empty() || keys.jwt.is_empty() {
        let (file, is_new) = KeysFile::read_or_make(data)?;
        let what = if is_new { "made" } else { "read" };
        tracing::info!(path = %path_in(data).display(), "keys {what}");
        if keys.storefront.is_empty() {
            keys.storefront.push(NamedKey {
                rate,
                ..NamedKey::new("storefront", &file.storefront_key)
            });
        }
        if keys.admin.is_empty() {
            keys.admin
                .push(AdminKey::with_every_role("admin", &file.admin_key));
        }
        if keys.jwt.is_empty() {
            let material = JwtMaterial::Hs256(file.buyer_jwt_secret.into_bytes());
            keys.jwt.push(JwtKey {
                kid: None,
                material,
            });
        }
    }
    Ok(keys)
}

fn admin_key(key: &config::AdminKey) -> AdminKey {
    let role = |role: &Role| match role {
        Role::Viewer => flash_front::Role::Viewer,
        Role::Merchant => flash_front::Role::Merchant,
        Role::Reviewer => flash_front::Role::Reviewer,
        Role::Operator => flash_front::Role::Operator,
    };
    AdminKey {
        name: key.name.clone(),
        roles: key.roles.iter().map(role).collect(),
        sha256: KeyHash::of(key.key.as_bytes()),
    }
}

/// Installs the recorder of what crates count through `metrics`.
fn recorder() -> Result<PrometheusHandle, Failure> {
    const SECONDS: [f64; 12] = [
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0,
    ];
    const JOBS: [f64; 11] = [
        1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0,
    ];
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_batch_jobs".into()), &JOBS)
        })
        .context("buckets of the metrics")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|error| anyhow::anyhow!("metrics are recorded elsewhere already: {error}"))?;
    Ok(handle)
}
