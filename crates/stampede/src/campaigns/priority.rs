//! The place of the campaigns' threads in the queue for the processors: behind those that sell.
//!
//! A thread that is started by one of them inherits its place, so those of a SQLite file are behind as well, as long as it
//! is opened from here.

/// Added to the niceness of the process. Where both want the same processor, selling gets nine tenths of it, and campaigns
/// still get on with what they hold.
const STEP_BACK: i32 = 10;
/// As far behind as there is.
const LAST: i32 = 19;

/// How far behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Priority(i32);

impl Priority {
    /// Behind the thread that asks.
    pub(super) fn behind() -> Self {
        let own = rustix::process::getpriority_process(None).unwrap_or(0);
        Self((own + STEP_BACK).min(LAST))
    }

    /// Takes the calling thread there; only that one, which is how Linux reads it.
    pub(super) fn take(self) {
        if !cfg!(target_os = "linux") {
            return;
        }
        if let Err(error) = rustix::process::setpriority_process(None, self.0) {
            // Slower sales are better than none.
            tracing::warn!(%error, "a thread of the campaigns keeps the priority of those that sell");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_thread_itself_and_what_it_starts_step_back() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let behind = Priority::behind();
        let (taken, inherited, twice) = std::thread::spawn(move || {
            behind.take();
            let inherited = std::thread::spawn(own).join().unwrap();
            let taken = own();
            behind.take();
            (taken, inherited, own())
        })
        .join()
        .unwrap();
        assert_eq!(taken, (before + STEP_BACK).min(LAST));
        assert_eq!((inherited, twice), (taken, taken));
        assert_eq!(own(), before);
    }
}
