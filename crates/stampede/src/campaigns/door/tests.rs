use super::*;
use flash_types::Timestamp;
use flash_types::side::{SideCaller, SideWho};
use tokio::sync::Notify;

static ENDPOINTS: &[SideEndpoint] = &[
    line("POST", "/do"),
    line("GET", "/read"),
    line("POST", "/panic"),
    line("POST", "/conflict"),
    line("POST", "/hang"),
];

const fn line(method: &'static str, path: &'static str) -> SideEndpoint {
    SideEndpoint {
        method,
        path,
        who: SideWho::All,
        ..SideEndpoint::BASE
    }
}

/// Waits where it is told to, and counts what ended.
#[derive(Default)]
struct Slow {
    is_held: AtomicBool,
    go: Notify,
    ended: AtomicUsize,
    tries: AtomicUsize,
}

impl SideService for Slow {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Told> {
        Box::pin(async move {
            match ENDPOINTS[request.endpoint].path {
                "/panic" => panic!("on purpose"),
                "/conflict" if self.tries.fetch_add(1, Ordering::Relaxed) < 2 => {
                    let mut problem = SideProblem::new(503, "store_unavailable", "in the way");
                    problem.is_conflict = true;
                    return Err(problem);
                }
                "/hang" => std::future::pending().await,
                _ => {}
            }
            if self.is_held.load(Ordering::Relaxed) {
                self.go.notified().await;
            }
            self.ended.fetch_add(1, Ordering::Relaxed);
            Ok(SideAnswer::json(200, &Value::Null))
        })
    }
}

struct Bench {
    slow: Arc<Slow>,
    door: Arc<Door>,
}

fn bench(in_flight_max: usize, queue_max: usize) -> Bench {
    let slow = Arc::new(Slow::default());
    let limits = Limits {
        in_flight_max,
        queue_max,
        deadline: Duration::from_secs(2),
    };
    // Before it there is another service, so that places differ.
    let services: Vec<Arc<dyn SideService>> = vec![Arc::new(Slow::default()), slow.clone()];
    let door = Door::new(services, limits, Handle::current(), None);
    door.set_up(true, "");
    Bench {
        slow,
        door: Arc::new(door),
    }
}

impl Bench {
    fn ask(&self, path: &str) -> tokio::task::JoinHandle<Told> {
        let endpoint = ENDPOINTS.iter().position(|line| line.path == path).unwrap();
        let request = SideRequest {
            endpoint: ENDPOINTS.len() + endpoint,
            path: Default::default(),
            query: Vec::new(),
            body: Vec::new(),
            content_type: None,
            key: None,
            caller: SideCaller::Anyone,
            address: None,
            device: None,
            now: Timestamp(0),
        };
        let door = Arc::clone(&self.door);
        tokio::spawn(async move { door.answer(request).await })
    }

    async fn refusal(&self, path: &str) -> (u16, &'static str) {
        let problem = self.ask(path).await.unwrap().unwrap_err();
        assert!(
            problem.retry_after.is_some() || problem.status == 500,
            "{problem:?}"
        );
        (problem.status, problem.outcome)
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_at_once_and_what_waited_too_long_never_begins() {
    let bench = bench(1, 2);
    bench.slow.is_held.store(true, Ordering::Relaxed);
    let at_work = bench.ask("/do");
    bench
        .until(|bench| bench.door.permits.available_permits() == 0)
        .await;
    let waiting = [bench.ask("/do"), bench.ask("/do")];
    bench
        .until(|bench| bench.door.queue.load(Ordering::Relaxed) == 2)
        .await;
    let before = Instant::now();
    assert_eq!(bench.refusal("/do").await, (503, "overloaded"));
    assert_eq!(before.elapsed(), Duration::ZERO);

    let problem = at_work.await.unwrap().unwrap_err();
    assert_eq!((problem.status, problem.outcome), (504, "unknown"));
    for waited in waiting {
        let problem = waited.await.unwrap().unwrap_err();
        assert_eq!((problem.status, problem.outcome), (503, "overloaded"));
    }
    // What had begun holds its place until it ends, and ends without its caller.
    assert_eq!(bench.door.permits.available_permits(), 0);
    bench.slow.go.notify_one();
    bench.door.emptied().await;
    assert_eq!(bench.slow.ended.load(Ordering::Relaxed), 1);
    assert_eq!(bench.door.queue.load(Ordering::Relaxed), 0);
    bench.slow.is_held.store(false, Ordering::Relaxed);
    assert!(bench.ask("/do").await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_cancels_nothing() {
    let bench = bench(1, 2);
    bench.slow.is_held.store(true, Ordering::Relaxed);
    let left = bench.ask("/do");
    bench
        .until(|bench| bench.door.permits.available_permits() == 0)
        .await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    bench.slow.go.notify_one();
    bench.door.emptied().await;
    assert_eq!(bench.slow.ended.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_changes_nothing_and_a_job_that_hangs_is_broken_off() {
    let bench = bench(2, 2);
    bench.slow.is_held.store(true, Ordering::Relaxed);
    assert_eq!(bench.refusal("/read").await, (503, "store_unavailable"));
    bench.slow.go.notify_one();
    assert_eq!(bench.refusal("/hang").await, (504, "unknown"));
    let before = Instant::now();
    bench.door.emptied().await;
    assert!(before.elapsed() <= BREAK_OFF);
}

#[tokio::test(start_paused = true)]
async fn panics_are_answered_and_conflicts_tried_again() {
    let bench = bench(1, 0);
    assert_eq!(bench.refusal("/panic").await, (500, "internal"));
    assert!(bench.ask("/conflict").await.unwrap().is_ok());
    assert_eq!(bench.slow.tries.load(Ordering::Relaxed), 3);
    bench.door.set_up(false, "gone");
    assert_eq!(bench.refusal("/do").await, (503, "store_unavailable"));
    assert_eq!(bench.door.notes(), ["campaigns: gone"]);
    bench.door.set_up(true, "");
    assert_eq!(bench.door.notes(), Vec::<String>::new());
}
