//! Places where a crash run ends the process. Compiled to nothing without the feature `faults`.
//!
//! `STAMPEDE_FAULT_POINT=name:n` aborts the process at the n-th pass of that point (1 is the first); one whose name ends
//! in `_panic` panics instead. The points of one commit, in order, are [`POINTS`]. Write and flush of the log lie inside of COMMIT, between `after_write` and
//! `after_fsync`: kill at random, or inject errors from outside, to hit those.
//! `STAMPEDE_FAULT_MODE=answer_before_commit` makes the store answer before it commits: a crash run that does not
//! fail then proves nothing.

/// The points of one commit: nothing done; all rows written, COMMIT not begun; COMMIT done; batch noted in `acked`;
/// answer sent.
pub const POINTS: [&str; 5] = [
    "before_write",
    "after_write",
    "after_fsync",
    "after_acked",
    "after_reply",
];

/// Passes a point.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Whether the store answers before it commits.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn answers_before_commit() -> bool {
    false
}

/// Gives an answer that went out too early the time to be read.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn head_start() {}

#[cfg(feature = "faults")]
pub use armed::{answers_before_commit, head_start, point};

#[cfg(feature = "faults")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    /// By how much an early answer goes ahead of its commit.
    const HEAD_START: Duration = Duration::from_millis(20);

    /// Passes a point; aborts the process, or panics, if it is the one that was asked for.
    ///
    /// # Panics
    /// At a point that is there to panic; if `STAMPEDE_FAULT_POINT` is not of the form `name:n`.
    #[track_caller]
    pub fn point(name: &str) {
        static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
        // Relaxed: a count; nothing else is read by its order.
        static PASSES: AtomicU64 = AtomicU64::new(0);
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var("STAMPEDE_FAULT_POINT").ok()?;
            let (name, pass) = text
                .split_once(':')
                .expect("STAMPEDE_FAULT_POINT is name:n");
            Some((name.to_owned(), pass.parse().expect("n is a number")))
        });
        if let Some((wanted, pass)) = wanted
            && wanted == name
            && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *pass
        {
            assert!(!name.ends_with("_panic"), "fault point {name}");
            std::process::abort();
        }
    }

    /// Whether the store answers before it commits.
    pub fn answers_before_commit() -> bool {
        static ANSWERS: OnceLock<bool> = OnceLock::new();
        *ANSWERS.get_or_init(|| {
            std::env::var("STAMPEDE_FAULT_MODE").is_ok_and(|mode| mode == "answer_before_commit")
        })
    }

    /// Gives an answer that went out too early the time to be read: a commit alone is over before a kill from
    /// outside can hit the gap.
    pub fn head_start() {
        let started = Instant::now();
        while started.elapsed() < HEAD_START {
            std::thread::yield_now();
        }
    }
}
