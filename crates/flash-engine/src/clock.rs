//! Time as an argument: one reading per request, wall clock and steady clock apart.
//!
//! Windows (start, end) follow the wall clock. Deadlines and expiry follow the steady clock: while the process
//! runs, a jump of the wall clock neither expires a reservation early nor keeps it for ever.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flash_store::StoreTime;
use flash_types::Timestamp;

/// What the clocks said at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Wall clock: for windows and for what people read.
    pub wall: Timestamp,
    /// The wall clock at the start of the process plus what has passed since: never jumps. For expiry.
    pub steady: Timestamp,
    /// Monotonic: for rates, latencies and deadlines.
    pub at: Instant,
}

/// Where readings come from.
pub trait Clock: Send + Sync + 'static {
    /// Reads the clocks.
    fn read(&self) -> Reading;
}

/// The clocks of the machine.
#[derive(Debug)]
pub struct SystemClock {
    started_wall: Timestamp,
    started_at: Instant,
}

impl SystemClock {
    /// Starts the steady clock at the present wall clock, or at `not_before` (the store's last word) if that is later.
    pub fn start(not_before: Timestamp) -> Self {
        Self {
            started_wall: wall().max(not_before),
            started_at: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        let at = Instant::now();
        let steady = self.started_wall.plus(at.duration_since(self.started_at));
        Reading {
            wall: wall(),
            steady,
            at,
        }
    }
}

/// The clock of a store that judges times by itself: windows and expiry follow it.
#[derive(Debug)]
pub struct StoreClock(pub Arc<StoreTime>);

impl Clock for StoreClock {
    fn read(&self) -> Reading {
        let at = Instant::now();
        let now = self.0.at(at);
        Reading {
            wall: now,
            steady: now,
            at,
        }
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp(0).plus(since)
}
