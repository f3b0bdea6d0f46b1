//! What becomes of one job, for everybody who waits for it: its caller, and callers with the same key.
//!
//! Protocol: the committer alone moves a job from queued to sent (`claim`) and decides it (`decide`, once). Its caller
//! may give it up while it is queued (`give_up`); whichever of `claim` and `give_up` comes first wins, so a job
//! that was given up is never sent, and one that was sent is never told as "nothing was reserved".

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use flash_types::{Refusal, Serial};
use tokio::sync::Notify;

// QUEUED -> SENT (committer) | GIVEN_UP (caller). Nothing leaves SENT or GIVEN_UP.
const QUEUED: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

/// The committer's word on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Durable and applied.
    Done,
    /// Nothing was changed, and this is why.
    Refused(Refusal),
    /// Nothing was changed: the key won before, as the store knows, with this reservation.
    Elsewhere(Serial),
    /// The store died over it.
    Unknown,
}

/// The fate of one job.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    stage: AtomicU8,
    serial: AtomicU64,
    verdict: OnceLock<Verdict>,
    decided: Notify,
}

impl Fate {
    /// Claims the job for a batch under this serial; `false` if its caller gave it up.
    pub(crate) fn claim(&self, serial: Serial) -> bool {
        // Relaxed: published by the release of the stage below.
        self.serial.store(serial.0, Ordering::Relaxed);
        // AcqRel: whoever sees SENT sees the serial.
        self.stage
            .compare_exchange(QUEUED, SENT, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Gives the job up; `false` if it was sent or decided already.
    pub(crate) fn give_up(&self) -> bool {
        self.verdict.get().is_none()
            && self
                .stage
                .compare_exchange(QUEUED, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// The serial under which it was sent, if it was.
    pub(crate) fn sent(&self) -> Option<Serial> {
        // Acquire: pairs with `claim`, so the serial is there.
        (self.stage.load(Ordering::Acquire) == SENT)
            .then(|| Serial(self.serial.load(Ordering::Relaxed)))
    }

    /// Decides it, once, and wakes everybody.
    pub(crate) fn decide(&self, verdict: Verdict) {
        let was_open = self.verdict.set(verdict).is_ok();
        assert!(was_open, "a job is decided once");
        self.decided.notify_waiters();
    }

    /// The verdict, or `None` at the deadline.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing; the job goes on.
    pub(crate) async fn by(&self, deadline: Instant) -> Option<Verdict> {
        let mut decided = pin!(self.decided.notified());
        // Registered before the look, so a verdict between look and wait is not missed.
        decided.as_mut().enable();
        if let Some(verdict) = self.verdict.get() {
            return Some(*verdict);
        }
        let _ = tokio::time::timeout_at(deadline.into(), decided).await;
        self.verdict.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_job_is_sent_or_given_up_never_both() {
        let sent = Fate::default();
        assert!(sent.claim(Serial(7)));
        assert!(!sent.give_up());
        assert_eq!(sent.sent(), Some(Serial(7)));
        let late = Fate::default();
        assert!(late.give_up());
        assert!(!late.claim(Serial(8)));
        assert_eq!(late.sent(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_waits_is_told_and_the_late_get_nothing() {
        let fate = Arc::new(Fate::default());
        let deadline = Instant::now() + Duration::from_secs(2);
        assert_eq!(fate.by(deadline).await, None);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let fate = Arc::clone(&fate);
                tokio::spawn(async move { fate.by(Instant::now() + Duration::from_secs(60)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        fate.decide(Verdict::Done);
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), Some(Verdict::Done));
        }
        assert_eq!(
            fate.by(deadline).await,
            Some(Verdict::Done),
            "later askers are told too"
        );
    }
}
