//! What goes on by itself: each step in a task of its own, again and again, until the stop.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use flash_types::Timestamp;
use futures_util::FutureExt as _;
use side_books::step::Step;
use tokio::sync::watch;

/// Pauses after failures in a row: the first, doubled each time, and the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// The wall clock.
pub(super) type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Runs a step until the stop; what it is at then ends.
pub(super) async fn run(step: Arc<dyn Step>, now: Now, mut stopped: watch::Receiver<bool>) {
    let mut failing: Option<String> = None;
    let mut back_off = BACK_OFF_MIN;
    while !*stopped.borrow() {
        let done = AssertUnwindSafe(step.step(now())).catch_unwind().await;
        let pause = match done {
            Ok(Ok(is_more)) => {
                if failing.take().is_some() {
                    tracing::info!(step = step.name(), "a step of the campaigns goes on");
                }
                back_off = BACK_OFF_MIN;
                if is_more {
                    tokio::task::yield_now().await;
                    continue;
                }
                step.rest()
            }
            Ok(Err(error)) => {
                metrics::counter!("stampede_side_step_errors_total", "step" => step.name())
                    .increment(1);
                let why = error.to_string();
                if failing.as_ref() != Some(&why) {
                    tracing::warn!(
                        step = step.name(),
                        why,
                        "a step of the campaigns failed; it is tried again"
                    );
                }
                failing = Some(why);
                longer(&mut back_off)
            }
            Err(_) => {
                metrics::counter!("stampede_side_panics_total").increment(1);
                tracing::error!(step = step.name(), "a step of the campaigns panicked");
                failing = Some("a panic".into());
                longer(&mut back_off)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // An error: the sender is gone, which is a stop as well.
            _ = stopped.wait_for(|is_stopping| *is_stopping) => return,
        }
    }
}

fn longer(back_off: &mut Duration) -> Duration {
    let pause = *back_off;
    *back_off = (pause * 2).min(BACK_OFF_MAX);
    pause
}

#[cfg(test)]
mod tests {
    use super::*;
    use flash_types::side::{BoxFuture, SideProblem};
    use side_books::SideError;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// More, an error, a panic, then nothing more.
    #[derive(Default)]
    struct Unsteady(AtomicUsize);

    impl Step for Unsteady {
        fn name(&self) -> &'static str {
            "unsteady"
        }

        fn rest(&self) -> Duration {
            Duration::from_secs(3_600)
        }

        fn step(&self, _: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
            Box::pin(async {
                match self.0.fetch_add(1, Ordering::Relaxed) {
                    0 => Ok(true),
                    1 => Err(SideProblem::not_found("thing").into()),
                    2 => panic!("on purpose"),
                    _ => Ok(false),
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_are_tried_again_until_the_stop() {
        let step = Arc::new(Unsteady::default());
        let (stop, stopped) = watch::channel(false);
        let now: Now = Arc::new(|| Timestamp(0));
        let task = tokio::spawn(run(step.clone(), now, stopped));
        while step.0.load(Ordering::Relaxed) < 4 {
            tokio::time::advance(BACK_OFF_MAX).await;
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        task.await.unwrap();
        assert_eq!(step.0.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut back_off = BACK_OFF_MIN;
        let pauses: Vec<_> = (0..8).map(|_| longer(&mut back_off)).collect();
        assert_eq!(pauses[..2], [BACK_OFF_MIN, BACK_OFF_MIN * 2]);
        assert_eq!(pauses[7], BACK_OFF_MAX);
    }
}
