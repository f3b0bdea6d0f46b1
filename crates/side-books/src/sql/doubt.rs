//! The moment since when idle connections are not trusted.
//!
//! Owns one number. It says nothing of why: whoever sees a connection break raises the doubt, and whoever takes a connection
//! that was idle at that moment asks it first whether it lives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// One that was idle for longer is asked in any case: a firewall may have forgotten it.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Doubt {
    began: Instant,
    /// Milliseconds after `began`, rounded up.
    raised_ms: AtomicU64,
}

impl Doubt {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            raised_ms: AtomicU64::new(0),
        }
    }

    /// A connection broke just now.
    pub(super) fn raise(&self) {
        // Relaxed: nothing is published with it; whoever reads an older moment meets one more broken connection.
        self.raised_ms
            .fetch_max(self.now_ms() + 1, Ordering::Relaxed);
    }

    /// Whether a connection that was idle for so long must be asked.
    pub(super) fn covers(&self, idle_for: Duration) -> bool {
        let idle_ms = u64::try_from(idle_for.as_millis()).unwrap_or(u64::MAX);
        // Relaxed: as above.
        let raised_ms = self.raised_ms.load(Ordering::Relaxed);
        idle_for > IDLE_TRUSTED || self.now_ms().saturating_sub(idle_ms) <= raised_ms
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_idle_when_a_connection_broke_is_asked() {
        let doubt = Doubt::new();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!doubt.covers(Duration::from_millis(900)));
        assert!(doubt.covers(Duration::from_millis(1_100)));
        doubt.raise();
        assert!(doubt.covers(Duration::ZERO));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(doubt.covers(Duration::from_millis(500)));
        assert!(!doubt.covers(Duration::from_millis(400)));
    }
}
