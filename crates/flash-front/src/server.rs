//! Threads, listeners, and the way to a stop: not ready, no new connections, requests in flight answered, done.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flash_admission::HashKey;
use flash_engine::Engine;
use metrics_exporter_prometheus::PrometheusHandle;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::config::{FrontConfig, JwtMaterial, Keys};
use crate::connection;
use crate::cors::Cors;
use crate::events::Hub;
use crate::identity::Identity;
use crate::jwt::BadJwtKey;
use crate::metrics::FrontMetrics;
use crate::openapi;
use crate::outcome::Problem;
use crate::routes::{Listener, Routes};
use crate::service::{ConnectionState, Shared, Worker};
use crate::services::Services;
use crate::side::Side;
use crate::side_table::{BadSideTable, SideTable};

/// Waiting connections that the kernel keeps per listener.
const ACCEPT_QUEUE_MAX: i32 = 4_096;
/// Length of a tick: how coarse the time-outs of connections are.
const TICK: Duration = Duration::from_millis(250);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A future that runs on the first public thread beside its connections.
pub type Beside = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why the front cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({listener} port): {source}")]
    Listen {
        /// `public` or `admin`.
        listener: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A key for buyers' tokens cannot be used.
    #[error(transparent)]
    Key(#[from] BadJwtKey),
    /// The tables of the side services contradict each other, or ours.
    #[error(transparent)]
    Side(#[from] BadSideTable),
    /// A thread or its runtime cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Told to stop; every request in flight was answered.
    Drained,
    /// Told to stop; at the deadline some requests had not been answered.
    DeadlinePassed,
    /// What ran beside ended by itself, or panicked: the process must not go on.
    BesideEnded,
}

/// Both ports, bound and not yet serving.
pub struct Front {
    shared: Arc<Shared>,
    public: Vec<std::net::TcpListener>,
    admin: std::net::TcpListener,
    public_addr: SocketAddr,
    admin_addr: SocketAddr,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front")
            .field("public_addr", &self.public_addr)
            .field("admin_addr", &self.admin_addr)
            .finish_non_exhaustive()
    }
}

impl Front {
    /// Binds both ports. Connections wait in the kernel until [`Front::run`].
    ///
    /// # Errors
    /// [`BindError`] names the address or key that cannot be used.
    pub fn bind(
        config: FrontConfig,
        keys: Keys,
        engine: Arc<Engine>,
        services: Services,
        prometheus: PrometheusHandle,
    ) -> Result<Self, BindError> {
        let threads = config.threads.max(1);
        // Shared among our threads, never with another process: it must be free before it is shared.
        let alone = listen("public", config.public, false)?;
        let public_addr = local_addr("public", config.public, &alone)?;
        let public = if threads == 1 {
            vec![alone]
        } else {
            drop(alone);
            let shared = || listen("public", public_addr, true);
            (0..threads).map(|_| shared()).collect::<Result<_, _>>()?
        };
        let admin = listen("admin", config.admin, false)?;
        let admin_addr = local_addr("admin", config.admin, &admin)?;
        let demo_secret = keys.jwt.iter().find_map(|key| match &key.material {
            JwtMaterial::Hs256(secret) => Some(secret.clone()).filter(|_| config.is_demo),
            JwtMaterial::Rs256Pem(_) | JwtMaterial::EdDsaPem(_) => None,
        });
        let table = services.side.as_ref().map(SideTable::of);
        let table = table.unwrap_or_default();
        let started_at = engine.clock().read().at;
        let hash_key = HashKey(keys.hash_seed.0, keys.hash_seed.1);
        let shared = Arc::new(Shared {
            identity: Identity::new(keys, config.token_cache_max, started_at)?,
            public_routes: Routes::new(Listener::Public, config.is_demo, &table)?,
            admin_routes: Routes::new(Listener::Admin, config.is_demo, &table)?,
            public_document: openapi::document(Listener::Public, config.is_demo, &table)?,
            admin_document: openapi::document(Listener::Admin, config.is_demo, &table)?,
            cors: Cors::new(&config.cors_origins),
            hub: Arc::new(Hub::new(
                Arc::clone(&engine),
                config.stock_buckets.clone(),
                config.sse_ping,
                config.sse_streams_max,
            )),
            // One more for the admin thread.
            metrics: FrontMetrics::new(threads + 1),
            prometheus,
            demo_secret,
            side: services
                .side
                .as_ref()
                .map(|door| Side::new(door, table, &config, hash_key, started_at)),
            services,
            is_stopping: AtomicBool::new(false),
            engine,
            config,
        });
        Ok(Self {
            shared,
            public,
            admin,
            public_addr,
            admin_addr,
        })
    }

    /// Where the public port is, with the number that port 0 became.
    pub fn public_addr(&self) -> SocketAddr {
        self.public_addr
    }

    /// Where the admin port is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Serves until `stop` becomes true (or its sender is gone), then drains and returns. Blocks the calling thread.
    ///
    /// `beside` (the committer) runs on the first public thread. When the last request is answered the engine is
    /// closed; what runs beside is then waited for until the drain deadline, so that it can flush and end.
    ///
    /// # Errors
    /// [`BindError::Thread`] if a thread cannot be made; nothing was served then.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "threads get clones of it; the caller is done"
    )]
    pub fn run(self, beside: Beside, stop: watch::Receiver<bool>) -> Result<Ended, BindError> {
        let Self {
            shared,
            public,
            admin,
            ..
        } = self;
        let (reports_in, mut reports) = mpsc::channel(public.len() + 2);
        let phases = watch::Sender::new(Phase::Serving);
        let plan = |number: usize, is_admin: bool| ThreadPlan {
            worker: Arc::new(Worker {
                shared: Arc::clone(&shared),
                metrics: Arc::clone(&shared.metrics.threads[number]),
                is_admin,
                tick: AtomicU32::new(0),
            }),
            reports: reports_in.clone(),
            stop: stop.clone(),
            phase: phases.subscribe(),
        };
        let mut beside = Some(beside);
        let mut threads = Vec::new();
        let public_count = public.len();
        let listeners = public
            .into_iter()
            .map(|listener| (listener, false))
            .chain([(admin, true)]);
        for (number, (listener, is_admin)) in listeners.enumerate() {
            let plan = plan(number, is_admin);
            let beside = beside.take_if(|_| number == 0);
            let name = if is_admin {
                "admin".to_owned()
            } else {
                format!("public-{number}")
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(BindError::Thread)?;
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || runtime.block_on(plan.run(listener, beside)))
                .map_err(BindError::Thread)?;
            threads.push(thread);
        }
        drop(reports_in);
        let ended = supervise(&shared, &mut reports, public_count, &phases);
        for thread in threads {
            // A thread that panicked has reported nothing: the supervision has seen it.
            let _ = thread.join();
        }
        Ok(ended)
    }
}

/// What a thread tells the one that waits for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// Every request of this public thread was answered, or the deadline passed.
    Drained {
        is_clean: bool,
    },
    BesideEnded,
}

/// How far the end has come, as the supervision tells the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// The engine is closed: what runs beside ends by itself.
    Closed,
    /// Threads end.
    Over,
}

/// Waits for the public threads to drain, closes the engine, then lets all threads end.
fn supervise(
    shared: &Shared,
    reports: &mut mpsc::Receiver<Report>,
    public_count: usize,
    phases: &watch::Sender<Phase>,
) -> Ended {
    let mut ended = Ended::Drained;
    let mut drained_count = 0;
    let mut is_beside_over = false;
    while drained_count < public_count {
        match reports.blocking_recv() {
            Some(Report::Drained { is_clean }) => {
                drained_count += 1;
                if !is_clean {
                    ended = Ended::DeadlinePassed;
                }
            }
            // It must not end before us.
            Some(Report::BesideEnded) | None => {
                is_beside_over = true;
                ended = Ended::BesideEnded;
                break;
            }
        }
    }
    shared.engine.close();
    if !is_beside_over {
        phases.send_replace(Phase::Closed);
        // The first thread gives it until its own deadline.
        while !matches!(reports.blocking_recv(), Some(Report::BesideEnded) | None) {}
    }
    phases.send_replace(Phase::Over);
    ended
}

/// What one thread is given.
struct ThreadPlan {
    worker: Arc<Worker>,
    reports: mpsc::Sender<Report>,
    stop: watch::Receiver<bool>,
    phase: watch::Receiver<Phase>,
}

impl ThreadPlan {
    async fn run(mut self, listener: std::net::TcpListener, beside: Option<Beside>) {
        let shared = Arc::clone(&self.worker.shared);
        let beside = beside.map(|future| self.spawn_beside(future));
        let upkeep = self
            .worker
            .is_admin
            .then(|| tokio::spawn(upkeep(Arc::clone(&shared))));
        let connections = Arc::new(Connections::new(&self.worker));
        let sweep = tokio::spawn(Arc::clone(&connections).sweep(Arc::clone(&self.worker)));
        let (mut stop, mut phase) = (self.stop.clone(), self.phase.clone());
        // An error of either means that the sender is gone: nobody could ever stop us otherwise.
        let stopped = async {
            tokio::select! {
                _ = stop.wait_for(|is_stopping| *is_stopping), if !self.worker.is_admin => {}
                // What ran beside is over, so nothing can be decided any more.
                _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
            }
        };
        match TcpListener::from_std(listener) {
            Ok(listener) => tokio::select! {
                () = connections.accept(&listener, &self.worker) => {}
                () = stopped => {}
            },
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
        let deadline = tokio::time::Instant::now() + shared.config.drain_deadline;
        if !self.worker.is_admin {
            self.drain(&connections, deadline).await;
        }
        if let Some(beside) = beside {
            let _ = self.phase.wait_for(|phase| *phase >= Phase::Closed).await;
            if tokio::time::timeout_at(deadline, beside).await.is_err() {
                tracing::error!("the committer has not ended by the drain deadline");
                let _ = self.reports.send(Report::BesideEnded).await;
            }
        }
        let _ = self.phase.wait_for(|phase| *phase == Phase::Over).await;
        sweep.abort();
        if let Some(upkeep) = upkeep {
            upkeep.abort();
        }
    }

    fn spawn_beside(&self, future: Beside) -> tokio::task::JoinHandle<()> {
        let reports = self.reports.clone();
        let task = tokio::spawn(future);
        tokio::spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "what ran beside the connections broke");
            }
            // If nobody listens, everything is over anyway.
            let _ = reports.send(Report::BesideEnded).await;
        })
    }

    /// Not ready, streams ended, idle connections closed, requests in flight answered.
    async fn drain(&self, connections: &Connections, deadline: tokio::time::Instant) {
        let shared = &self.worker.shared;
        // Relaxed: a flag by itself; connections are notified after it.
        shared.is_stopping.store(true, Ordering::Relaxed);
        shared.engine.stop_taking();
        shared.hub.close();
        connections.stop.notify_waiters();
        let is_clean = tokio::time::timeout_at(deadline, connections.emptied())
            .await
            .is_ok();
        if !is_clean {
            tracing::warn!(
                connections = connections.count(),
                "the drain deadline has passed"
            );
            connections.abort_all();
        }
        let _ = self.reports.send(Report::Drained { is_clean }).await;
    }
}

async fn upkeep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        shared.prometheus.run_upkeep();
    }
}

/// The connections of one thread.
struct Connections {
    /// In the order in which they came; ended ones are taken out by the sweep.
    open: parking_lot::Mutex<VecDeque<(Arc<ConnectionState>, AbortHandle)>>,
    here: AtomicUsize,
    /// Of all threads of this port.
    everywhere: Arc<AtomicUsize>,
    connections_max: usize,
    ended: Notify,
    stop: Arc<Notify>,
}

impl Connections {
    fn new(worker: &Worker) -> Self {
        let (metrics, config) = (&worker.shared.metrics, &worker.shared.config);
        let (everywhere, connections_max) = if worker.is_admin {
            (&metrics.admin_connections, config.admin_connections_max)
        } else {
            (&metrics.public_connections, config.connections_max)
        };
        Self {
            open: parking_lot::Mutex::default(),
            here: AtomicUsize::new(0),
            everywhere: Arc::clone(everywhere),
            connections_max,
            ended: Notify::new(),
            stop: Arc::new(Notify::new()),
        }
    }

    fn count(&self) -> usize {
        // Relaxed: a count by itself.
        self.here.load(Ordering::Relaxed)
    }

    /// Takes connections for ever.
    async fn accept(self: &Arc<Self>, listener: &TcpListener, worker: &Arc<Worker>) {
        let http = Arc::new(connection::http());
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    // Out of descriptors or memory: trying at once again would only spin.
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.everywhere.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
                self.everywhere.fetch_sub(1, Ordering::Relaxed);
                worker
                    .shared
                    .metrics
                    .connections_refused
                    .fetch_add(1, Ordering::Relaxed);
                refuse(&stream);
                continue;
            }
            prepare(&stream, worker.shared.config.write_timeout);
            let tick = worker.tick.load(Ordering::Relaxed);
            let state = Arc::new(ConnectionState::new(peer.ip(), tick));
            let guard = ConnectionGuard::new(Arc::clone(self));
            let run = connection::run(
                stream,
                Arc::clone(&state),
                Arc::clone(worker),
                Arc::clone(&http),
                Arc::clone(&self.stop),
            );
            let task = tokio::spawn(async move {
                let _guard = guard;
                run.await;
            });
            self.open.lock().push_back((state, task.abort_handle()));
        }
    }

    /// Moves the coarse clock, forgets connections that ended, and ends those that wait too long.
    async fn sweep(self: Arc<Self>, worker: Arc<Worker>) {
        let timeout = worker.shared.config.header_read_timeout;
        let ticks_max = timeout.as_millis() / TICK.as_millis();
        let ticks_max = u32::try_from(ticks_max)
            .unwrap_or(u32::MAX)
            .saturating_sub(1)
            .max(1);
        let started = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let passed = started.elapsed().as_millis() / TICK.as_millis();
            // Never the word for busy; wraps after 17 years.
            let tick = (passed & u128::from(u32::MAX >> 1)) as u32;
            worker.tick.store(tick, Ordering::Relaxed);
            self.open.lock().retain(|(state, task)| {
                if state.is_overdue(tick, ticks_max) {
                    task.abort();
                }
                !task.is_finished()
            });
        }
    }

    async fn emptied(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn abort_all(&self) {
        for (_, task) in self.open.lock().drain(..) {
            task.abort();
        }
    }
}

/// Counts a connection for as long as its task lives.
struct ConnectionGuard(Arc<Connections>);

impl ConnectionGuard {
    fn new(connections: Arc<Connections>) -> Self {
        connections.here.fetch_add(1, Ordering::Relaxed);
        Self(connections)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.everywhere.fetch_sub(1, Ordering::Relaxed);
        self.0.here.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_waiters();
    }
}

/// Answers without a parser: the one thing that can be said to a connection too many.
fn refuse(stream: &TcpStream) {
    let problem = Problem::Refused(flash_types::Refusal::Overloaded {
        retry_after_ms: 1_000,
    });
    let rendered = problem.render();
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        rendered.body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&rendered.body);
    // A fresh socket has room for it; if not, being closed says enough.
    let _ = stream.try_write(&answer);
}

/// Small answers leave at once; a peer that does not take what it is sent is given up.
fn prepare(stream: &TcpStream, write_timeout: Duration) {
    // Both only fail on a connection that is gone already.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(write_timeout));
}

/// Errors of accept that belong to the connection that failed, not to the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn listen(
    listener: &'static str,
    address: SocketAddr,
    is_shared: bool,
) -> Result<std::net::TcpListener, BindError> {
    let bind = || -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(is_shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_QUEUE_MAX)?;
        Ok(socket.into())
    };
    bind().map_err(|source| BindError::Listen {
        listener,
        address,
        source,
    })
}

fn local_addr(
    listener: &'static str,
    address: SocketAddr,
    socket: &std::net::TcpListener,
) -> Result<SocketAddr, BindError> {
    socket.local_addr().map_err(|source| BindError::Listen {
        listener,
        address,
        source,
    })
}
