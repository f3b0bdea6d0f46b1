//! Waiting for a condition, with a bound: the one place of the project that sleeps.

use std::time::{Duration, Instant};

/// Asks until `condition` gives a value, at most for `bound`; `None` if it never did.
///
/// Blocks the thread between two tries.
#[allow(
    clippy::disallowed_methods,
    reason = "tests and tools wait here, with a bound, and nowhere else"
)]
pub fn poll_until<T>(
    bound: Duration,
    interval: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if started.elapsed() >= bound {
            return None;
        }
        std::thread::sleep(interval);
    }
}

/// The same for conditions that are asked over the network.
///
/// # Cancel safety
/// Dropping the future stops the polling.
pub async fn poll_until_async<T>(
    bound: Duration,
    interval: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return Some(value);
        }
        if started.elapsed() >= bound {
            return None;
        }
        tokio::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_asked_again_until_the_bound() {
        let mut asked = 0;
        let value = poll_until(Duration::from_secs(5), Duration::ZERO, || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(value, Some(3));
        assert_eq!(
            poll_until(Duration::ZERO, Duration::ZERO, || None::<()>),
            None
        );
    }
}
