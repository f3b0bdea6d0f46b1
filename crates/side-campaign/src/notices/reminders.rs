//! Reminders of a start: who asked for them, when they are due by the present plan, sending them in pieces.

use std::sync::Arc;
use std::time::Duration;

use flash_types::side::{BoxFuture, SideAnswer};
use flash_types::{BuyerId, Timestamp};
use serde::Serialize;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, Tx};
use side_books::step::Step;

use utoipa::ToSchema;

use super::calendar::{Calendar, Planned, Stage, Subject};
use super::outbox::{ToBuyer, put};
use super::queries;
use super::refusal::Refusal;
use crate::shop::Shop;

/// Buyers in one transaction.
const PIECE: i64 = 200;
/// How old the look at a start may be.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// Starts looked at in one step.
const CHECKS: i64 = 20;

/// The buyer will be reminded.
#[derive(Serialize, ToSchema)]
pub(super) struct ReminderSubscription {
    subscribed: bool,
    /// As planned at present.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    /// When, as planned at present; what has passed already is left out.
    #[schema(value_type = Vec<String>)]
    remind_at: Vec<Timestamp>,
}

/// The buyer will not be reminded.
#[derive(Serialize, ToSchema)]
pub(super) struct ReminderCancelled {
    subscribed: bool,
}

/// Puts a buyer on the list of those who are reminded.
pub(super) async fn subscribe(
    tx: &mut Tx,
    calendar: &dyn Calendar,
    subject: &Subject,
    buyer: &BuyerId,
    now: Timestamp,
) -> Result<SideAnswer, SideError> {
    let planned = calendar.planned(tx, subject).await?;
    let (what, over) = match subject {
        Subject::Campaign(_) => ("campaign", Refusal::CampaignEnded),
        Subject::Sale(_) => ("sale", Refusal::SaleEnded),
    };
    let planned = planned.ok_or(Refusal::NotFound(what))?;
    match planned.stage {
        Stage::Over => return Err(over.into()),
        Stage::Ahead | Stage::Begun | Stage::Resting if now >= planned.ends_at => {
            return Err(over.into());
        }
        Stage::Begun => return Err(Refusal::HasBegun.into()),
        Stage::Ahead | Stage::Resting if now >= planned.starts_at => {
            return Err(Refusal::HasBegun.into());
        }
        Stage::Ahead | Stage::Resting => {}
    }
    let name = subject.to_string();
    let insert = queries::subscribe(&name, buyer.as_str(), planned.starts_at.0, now.0);
    let is_new = tx.execute(insert).await? == 1;
    insert_rounds(tx, &name, &planned, now).await?;
    let remind_at = dues(&planned).map(|(_, due)| due);
    let subscription = ReminderSubscription {
        subscribed: true,
        starts_at: planned.starts_at,
        remind_at: remind_at.filter(|due| *due >= now).collect(),
    };
    let status = if is_new { 201 } else { 200 };
    Ok(SideAnswer::json(status, &subscription))
}

/// Takes a buyer off the list; reminders that wait are withdrawn.
pub(super) async fn unsubscribe(
    tx: &mut Tx,
    subject: &Subject,
    buyer: &BuyerId,
) -> Result<SideAnswer, SideError> {
    let name = subject.to_string();
    tx.execute(queries::unsubscribe(&name, buyer.as_str()))
        .await?;
    tx.execute(queries::withdraw_reminders(buyer.as_str(), &name))
        .await?;
    let cancelled = ReminderCancelled { subscribed: false };
    Ok(SideAnswer::json(200, &cancelled))
}

/// Each sending with its time, by seconds before the start.
fn dues(planned: &Planned) -> impl Iterator<Item = (i64, Timestamp)> {
    let mut before_s = planned.before_s.clone();
    // In one order everywhere: these rows are written by whoever subscribes.
    before_s.sort_unstable();
    before_s.dedup();
    let starts_ms = planned.starts_at.0;
    before_s.into_iter().map(move |before_s| {
        let before_s = i64::from(before_s);
        let due = starts_ms.saturating_sub(before_s.saturating_mul(1_000));
        (before_s, Timestamp(due.max(0)))
    })
}

async fn insert_rounds(
    tx: &mut Tx,
    subject: &str,
    planned: &Planned,
    now: Timestamp,
) -> Result<(), SideError> {
    for (before_s, due) in dues(planned) {
        let insert = queries::insert_round(subject, before_s, planned.starts_at.0, due.0, now.0);
        tx.execute(insert).await?;
    }
    Ok(())
}

/// Sends reminders to those who asked.
pub struct RemindStep {
    shop: Arc<Shop>,
    calendar: Arc<dyn Calendar>,
}

impl RemindStep {
    /// By this calendar.
    pub fn new(shop: Arc<Shop>, calendar: Arc<dyn Calendar>) -> Self {
        Self { shop, calendar }
    }

    /// Looks at starts again, since they may have moved.
    async fn check(&self, now: Timestamp) -> Result<(), SideError> {
        let every = i64::try_from(CHECK_EVERY.as_millis()).unwrap_or(i64::MAX);
        let before = now.0.saturating_sub(every);
        let mut reader = self.shop.database.read().await?;
        let unchecked = reader.rows(queries::unchecked(before, CHECKS)).await?;
        drop(reader);
        for row in unchecked {
            let mut tx = self.shop.database.begin().await?;
            self.go_by_plan(&mut tx, &row.text("subject")?, now).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Brings the rounds of a subject in line with its present plan, which is given back where somebody may be reminded now.
    async fn go_by_plan(
        &self,
        tx: &mut Tx,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<(Subject, Planned)>, SideError> {
        let Some(subject) = Subject::parse(name) else {
            tx.execute(queries::end_rounds(name, now.0)).await?;
            return Ok(None);
        };
        let planned = self.calendar.planned(tx, &subject).await?;
        let rounds = tx.rows(queries::rounds(name)).await?;
        let known_start = rounds.first().map(|row| row.int("starts_at_ms"));
        let known_start = known_start.transpose()?.unwrap_or(0);
        let Some(planned) = planned else {
            // Back to a draft; if it comes again, so do its reminders.
            let is_over = now.0 >= known_start;
            let update = if is_over {
                queries::end_rounds(name, now.0)
            } else {
                queries::rest_rounds(name, now.0)
            };
            tx.execute(update).await?;
            return Ok(None);
        };
        match planned.stage {
            Stage::Begun | Stage::Over => {
                tx.execute(queries::end_rounds(name, now.0)).await?;
                return Ok(None);
            }
            Stage::Ahead | Stage::Resting if now >= planned.starts_at => {
                tx.execute(queries::end_rounds(name, now.0)).await?;
                return Ok(None);
            }
            Stage::Resting => {
                tx.execute(queries::rest_rounds(name, now.0)).await?;
                return Ok(None);
            }
            Stage::Ahead => {}
        }
        insert_rounds(tx, name, &planned, now).await?;
        for (before_s, due) in dues(&planned) {
            let update = queries::move_round(name, before_s, planned.starts_at.0, due.0, now.0);
            tx.execute(update).await?;
        }
        for row in &rounds {
            let before_s = row.int("before_s")?;
            if !dues(&planned).any(|(planned_s, _)| planned_s == before_s) {
                tx.execute(queries::end_round(name, before_s, now.0))
                    .await?;
            }
        }
        Ok(Some((subject, planned)))
    }

    /// One piece of the round that is due for longest; `false` if none is.
    async fn piece(&self, now: Timestamp) -> Result<bool, SideError> {
        let mut reader = self.shop.database.read().await?;
        let due = reader.row(queries::due_round(now.0)).await?;
        drop(reader);
        let Some(due) = due else {
            return Ok(false);
        };
        let (name, before_s) = (due.text("subject")?, due.int("before_s")?);
        let mut tx = self.shop.database.begin().await?;
        if let Some((subject, planned)) = self.go_by_plan(&mut tx, &name, now).await?
            && let Some(round) = tx.row(queries::round(&name, before_s, now.0)).await?
        {
            let (due_at_ms, after) = (round.int("due_at_ms")?, round.text("after_buyer")?);
            let before_ms = before_s.saturating_mul(1_000);
            let subscribers = queries::subscribers(&name, &after, before_ms, due_at_ms, PIECE);
            let rows = tx.rows(subscribers).await?;
            let buyers: Vec<String> = rows
                .iter()
                .map(|row| row.text("buyer"))
                .collect::<Result<_, _>>()?;
            let to = buyers.last().unwrap_or(&after);
            let is_done = rows.len() < usize::try_from(PIECE).unwrap_or(usize::MAX);
            let advance = queries::advance_round(&name, before_s, &after, to, is_done);
            if tx.execute(advance).await? == 1 {
                remind(&mut tx, &subject, &planned, before_s, &buyers, now).await?;
            }
        }
        tx.commit().await?;
        Ok(true)
    }
}

async fn remind(
    tx: &mut Tx,
    subject: &Subject,
    planned: &Planned,
    before_s: i64,
    buyers: &[String],
    now: Timestamp,
) -> Result<(), SideError> {
    let words = planned.words(now);
    for buyer in buyers {
        put(
            tx,
            &ToBuyer {
                key: &format!("reminder|{subject}|{before_s}|{buyer}"),
                kind: "reminder",
                buyer,
                words: &words,
                subject,
                due_at: now,
                // Its end is the start, which may move: it is looked at when it is sent.
                until: None,
            },
            now,
        )
        .await?;
    }
    Ok(())
}

impl Step for RemindStep {
    fn name(&self) -> &'static str {
        "reminders"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(async move {
            self.check(now).await?;
            self.piece(now).await
        })
    }
}
