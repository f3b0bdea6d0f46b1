//! Sending what is due: leased in one transaction, handed out together, written down in another.
//!
//! The count of attempts is the fencing number of a lease: whoever raised it may hand the notice out until the lease ends,
//! and only under that number may the outcome be written down. A process that dies in between leaves a lease that ends by
//! itself; the notice is then handed out again, under the same id.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, Row, Tx};
use side_books::step::Step;

use super::calendar::{Calendar, Planned, Stage, Subject};
use super::outbox::{Secret, ToBuyer, put};
use super::{Outgoing, queries};
use crate::shop::Shop;

/// Handed out at once.
const BATCH: i64 = 32;
/// Longest that handing one out may take.
const NOTIFY_MAX: Duration = Duration::from_secs(20);
/// For so long nobody else takes it: longer than handing out and both transactions can take.
const LEASE: Duration = Duration::from_secs(60);
const _: () = assert!(NOTIFY_MAX.as_secs() * 2 <= LEASE.as_secs());
/// How long it is tried where nothing says otherwise.
const TRY_FOR: Duration = Duration::from_secs(24 * 3600);
/// Wait after the first failure; three times as long after each further one.
const BACK_OFF: Duration = Duration::from_secs(5);
/// Longest wait between two tries.
const BACK_OFF_MAX: Duration = Duration::from_secs(2 * 3600);
/// Given up in one step.
const GIVE_UP_BATCH: i64 = 200;

/// Hands out what is due.
pub struct Deliver {
    shop: Arc<Shop>,
    calendar: Arc<dyn Calendar>,
    is_urgent: bool,
}

/// A notice that this process may hand out.
struct Leased {
    outgoing: Outgoing,
    subject: Option<Subject>,
    attempts: i64,
    give_up_ms: i64,
}

/// What to do with a notice before it is handed out.
enum Check {
    Go(Outgoing),
    Later,
    End(&'static str),
}

impl Deliver {
    /// Codes.
    pub fn urgent(shop: Arc<Shop>, calendar: Arc<dyn Calendar>) -> Self {
        Self {
            shop,
            calendar,
            is_urgent: true,
        }
    }

    /// Everything else.
    pub fn other(shop: Arc<Shop>, calendar: Arc<dyn Calendar>) -> Self {
        Self {
            shop,
            calendar,
            is_urgent: false,
        }
    }

    async fn is_anything_due(&self, now: Timestamp) -> Result<bool, SideError> {
        // The one writer of a SQLite file is not taken for a look.
        let mut reader = self.shop.database.read().await?;
        let due = queries::due(self.is_urgent, now.0, 1);
        Ok(reader.row(due).await?.is_some())
    }

    async fn lease(&self, now: Timestamp) -> Result<Vec<Leased>, SideError> {
        let mut tx = self.shop.database.begin().await?;
        tx.execute(queries::give_up_late(self.is_urgent, now.0, GIVE_UP_BATCH))
            .await?;
        let due = queries::due(self.is_urgent, now.0, BATCH);
        let mut rows = tx.rows(due).await?;
        // In one order everywhere, so that two processes never wait for each other in a circle.
        rows.sort_by_cached_key(|row| row.text("id").unwrap_or_default());
        let mut plans = HashMap::new();
        let mut leased = Vec::new();
        for row in &rows {
            leased.extend(self.lease_one(&mut tx, row, &mut plans, now).await?);
        }
        tx.commit().await?;
        Ok(leased)
    }

    async fn lease_one(
        &self,
        tx: &mut Tx,
        row: &Row,
        plans: &mut HashMap<Subject, Option<Planned>>,
        now: Timestamp,
    ) -> Result<Option<Leased>, SideError> {
        let (id, seen) = (row.text("id")?, row.int("attempts")?);
        let until = now.plus(LEASE);
        let lease = queries::lease(&id, seen, now.0, until.0, now.plus(TRY_FOR).0);
        let Some(taken) = tx.row(lease).await? else {
            return Ok(None);
        };
        let attempts = seen + 1;
        let give_up_ms = taken.int("give_up_ms")?;
        if give_up_ms <= now.0 {
            tx.execute(queries::end(&id, attempts, "GIVEN_UP")).await?;
            return Ok(None);
        }
        let subject = row.text_or_null("subject")?;
        let subject = subject.and_then(|text| Subject::parse(&text));
        match self
            .check(tx, row, id.clone(), subject.as_ref(), plans, now)
            .await?
        {
            Check::Go(outgoing) => Ok(Some(Leased {
                outgoing,
                subject,
                attempts,
                give_up_ms,
            })),
            // The lease is the wait.
            Check::Later => Ok(None),
            Check::End(state) => {
                tx.execute(queries::end(&id, attempts, state)).await?;
                Ok(None)
            }
        }
    }

    /// Whether it is still to be told, and in which words.
    async fn check(
        &self,
        tx: &mut Tx,
        row: &Row,
        id: String,
        subject: Option<&Subject>,
        plans: &mut HashMap<Subject, Option<Planned>>,
        now: Timestamp,
    ) -> Result<Check, SideError> {
        let Some(mut outgoing) = self.outgoing(row, &id)? else {
            tracing::error!(
                notice = id,
                "a notice does not open: it was sealed with another key or is damaged"
            );
            // Not ended, which would erase it: with the right key it may open yet.
            return Ok(Check::Later);
        };
        let is_second = outgoing.kind == "second_reminder";
        let (true, Some(subject)) = (is_second || outgoing.kind == "reminder", subject) else {
            return Ok(Check::Go(outgoing));
        };
        if !plans.contains_key(subject) {
            let planned = self.calendar.planned(tx, subject).await?;
            plans.insert(subject.clone(), planned);
        }
        // By the present plan: a start may have moved since the notice was made.
        let Some(planned) = plans.get(subject).and_then(Option::as_ref) else {
            return Ok(Check::Later);
        };
        let has_begun = planned.stage == Stage::Begun || now >= planned.starts_at;
        match planned.stage {
            Stage::Over => return Ok(Check::End("GIVEN_UP")),
            Stage::Ahead | Stage::Begun | Stage::Resting
                if now >= planned.ends_at || (has_begun && !is_second) =>
            {
                return Ok(Check::End("GIVEN_UP"));
            }
            Stage::Resting => return Ok(Check::Later),
            Stage::Ahead | Stage::Begun => {}
        }
        if is_second {
            let reacted = queries::has_reacted(&subject.to_string(), &outgoing.to);
            if tx.row(reacted).await?.is_some() {
                return Ok(Check::End("WITHDRAWN"));
            }
        }
        outgoing.text = planned.words(now);
        Ok(Check::Go(outgoing))
    }

    fn outgoing(&self, row: &Row, id: &str) -> Result<Option<Outgoing>, SideError> {
        let buyer = row.text_or_null("buyer")?;
        let secret = row.text_or_null("sealed")?;
        let secret = secret.map(|sealed| Secret::open(&self.shop.sealer, id, &sealed));
        let (phone, text, code) = match secret {
            Some(Ok(secret)) => (secret.phone, secret.text, secret.code),
            Some(Err(_)) => return Ok(None),
            None => (None, row.text_or_null("words")?.unwrap_or_default(), None),
        };
        Ok(phone.or(buyer).map(|to| Outgoing {
            id: id.to_owned(),
            kind: row.text("kind").unwrap_or_default(),
            to,
            text,
            code,
        }))
    }

    async fn hand_out(&self, outgoing: &Outgoing) -> Result<(), String> {
        let taken = tokio::time::timeout(NOTIFY_MAX, self.shop.notifier.notify(outgoing)).await;
        taken.unwrap_or_else(|_| Err(format!("not taken within {} s", NOTIFY_MAX.as_secs())))
    }

    async fn write_down(
        &self,
        outcomes: Vec<(Leased, Result<(), String>)>,
        now: Timestamp,
    ) -> Result<(), SideError> {
        let mut tx = self.shop.database.begin().await?;
        for (leased, outcome) in outcomes {
            let (id, attempts) = (&leased.outgoing.id, leased.attempts);
            match outcome {
                Ok(()) => {
                    let is_ours = tx.execute(queries::sent(id, attempts, now.0)).await? == 1;
                    if is_ours && leased.outgoing.kind == "reminder" {
                        self.plan_second(&mut tx, &leased, now).await?;
                    }
                }
                Err(why) => {
                    let kind = &leased.outgoing.kind;
                    tracing::warn!(notice = id, kind, attempts, why, "a notice was not taken");
                    let next = now.plus(back_off(attempts));
                    let then = if next.0 >= leased.give_up_ms {
                        queries::end(id, attempts, "GIVEN_UP")
                    } else {
                        queries::again(id, attempts, next.0)
                    };
                    tx.execute(then).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// The first reminder was sent: the second follows it, if there is to be one; whether its buyer reacted is looked at then.
    async fn plan_second(
        &self,
        tx: &mut Tx,
        leased: &Leased,
        now: Timestamp,
    ) -> Result<(), SideError> {
        let Some(subject) = &leased.subject else {
            return Ok(());
        };
        let planned = self.calendar.planned(tx, subject).await?;
        let Some((planned, after_s)) =
            planned.and_then(|it| it.second_after_s.map(|after_s| (it, after_s)))
        else {
            return Ok(());
        };
        let due_at = now.plus(Duration::from_secs(after_s.into()));
        let buyer = &leased.outgoing.to;
        put(
            tx,
            &ToBuyer {
                key: &format!("second_reminder|{subject}|{buyer}"),
                kind: "second_reminder",
                buyer,
                words: &planned.words(due_at),
                subject,
                due_at,
                until: None,
            },
            now,
        )
        .await?;
        Ok(())
    }
}

impl Step for Deliver {
    fn name(&self) -> &'static str {
        if self.is_urgent {
            "notices-urgent"
        } else {
            "notices"
        }
    }

    fn rest(&self) -> Duration {
        if self.is_urgent {
            Duration::from_millis(200)
        } else {
            Duration::from_secs(1)
        }
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(async move {
            if !self.is_anything_due(now).await? {
                return Ok(false);
            }
            let leased = self.lease(now).await?;
            let handed = leased.iter().map(|leased| {
                let taken: BoxFuture<'_, _> = Box::pin(self.hand_out(&leased.outgoing));
                taken
            });
            let outcomes = all(handed.collect()).await;
            if !leased.is_empty() {
                let outcomes = leased.into_iter().zip(outcomes).collect();
                self.write_down(outcomes, now).await?;
            }
            self.is_anything_due(now).await
        })
    }
}

fn back_off(attempts: i64) -> Duration {
    let triplings = u32::try_from(attempts.saturating_sub(1).clamp(0, 12)).unwrap_or(0);
    BACK_OFF
        .saturating_mul(3u32.saturating_pow(triplings))
        .min(BACK_OFF_MAX)
}

/// Waits for all of them together; there are at most [`BATCH`].
async fn all<T>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(Some).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (slot, answer) in waiting.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *answer = Some(value);
                *slot = None;
            }
        }
        if waiting.iter().all(Option::is_none) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_most() {
        let waits: Vec<u64> = (1..=9).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(waits, [5, 15, 45, 135, 405, 1_215, 3_645, 7_200, 7_200]);
        assert_eq!(back_off(i64::MAX), BACK_OFF_MAX);
    }
}
