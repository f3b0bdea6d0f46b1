//! What buyers can be reminded of, and when it begins as planned at present.

use std::fmt;
use std::sync::Arc;

use flash_types::side::BoxFuture;
use flash_types::{SaleId, SaleState, Timestamp};
use jiff::tz::TimeZone;
use side_books::SideError;
use side_books::sql::Tx;

use crate::life::{self, Campaign};
use crate::shop::Shop;
use crate::state::State;

/// A campaign or a sale.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// By its id.
    Campaign(String),
    /// By its id.
    Sale(String),
}

impl Subject {
    /// As tables have it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("campaign", id) => Some(Self::Campaign(id.to_owned())),
            ("sale", id) => Some(Self::Sale(id.to_owned())),
            (_, _) => None,
        }
    }
}

/// As tables have it: `campaign:c1`, `sale:s1`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Campaign(id) => write!(f, "campaign:{id}"),
            Self::Sale(id) => write!(f, "sale:{id}"),
        }
    }
}

/// Where a campaign or sale stands, as far as reminders go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Announced.
    Ahead,
    /// It runs.
    Begun,
    /// Stopped for a while: nobody is reminded.
    Resting,
    /// Nobody is reminded any more.
    Over,
}

/// What is planned at present.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// For people.
    pub title: String,
    /// When it opens.
    pub starts_at: Timestamp,
    /// When it closes.
    pub ends_at: Timestamp,
    /// In whose time its start is told.
    pub zone: TimeZone,
    /// Seconds before the start.
    pub before_s: Vec<u32>,
    /// Seconds after the first reminder.
    pub second_after_s: Option<u32>,
    /// Where it stands.
    pub stage: Stage,
}

impl Planned {
    /// Of a campaign; `None` for a draft.
    pub(super) fn of_campaign(campaign: &Campaign, zone: &TimeZone) -> Option<Self> {
        let stage = match campaign.state {
            State::Draft => return None,
            State::Published | State::Warmup => Stage::Ahead,
            State::Running => Stage::Begun,
            State::Paused => Stage::Resting,
            State::Ended
            | State::Settling
            | State::Settled
            | State::Archived
            | State::Cancelled => Stage::Over,
        };
        let definition = &campaign.definition;
        let its = TimeZone::get(&definition.zone);
        Some(Self {
            title: definition.title.clone(),
            starts_at: definition.starts_at,
            ends_at: definition.ends_at,
            zone: its.unwrap_or_else(|_| zone.clone()),
            before_s: definition.reminders.before_s.clone(),
            second_after_s: definition.reminders.second_after_s,
            stage,
        })
    }

    /// What a reminder says, by the present plan.
    pub(super) fn words(&self, now: Timestamp) -> String {
        if self.stage == Stage::Begun || now >= self.starts_at {
            return format!("{} has begun", self.title);
        }
        let starts = jiff::Timestamp::from_millisecond(self.starts_at.0).unwrap_or_default();
        let starts = starts.to_zoned(self.zone.clone());
        format!(
            "{} starts at {}",
            self.title,
            starts.strftime("%Y-%m-%d %H:%M")
        )
    }
}

/// Who knows what is planned at present.
pub trait Calendar: Send + Sync {
    /// What is planned of it; `None` where there is no such thing, or only a draft.
    ///
    /// # Errors
    /// The database's.
    fn planned<'a>(
        &'a self,
        tx: &'a mut Tx,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<Planned>, SideError>>;
}

/// The campaigns of the database and the sales of the engine.
pub struct ShopCalendar {
    shop: Arc<Shop>,
}

impl ShopCalendar {
    /// Of this shop.
    pub fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    fn sale(&self, id: &str) -> Option<Planned> {
        let sale = self.shop.desk.sale(&SaleId::parse(id).ok()?)?;
        let stage = match sale.state {
            SaleState::Draft => return None,
            SaleState::Published => Stage::Ahead,
            SaleState::Open => Stage::Begun,
            SaleState::Paused | SaleState::Frozen => Stage::Resting,
            SaleState::Closed => Stage::Over,
        };
        Some(Planned {
            title: sale.title,
            starts_at: sale.starts_at,
            ends_at: sale.ends_at,
            zone: self.shop.zone.clone(),
            before_s: self.shop.sale_reminders.before_s.clone(),
            second_after_s: self.shop.sale_reminders.second_after_s,
            stage,
        })
    }
}

impl Calendar for ShopCalendar {
    fn planned<'a>(
        &'a self,
        tx: &'a mut Tx,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<Planned>, SideError>> {
        Box::pin(async move {
            match subject {
                Subject::Sale(id) => Ok(self.sale(id)),
                Subject::Campaign(id) => {
                    let campaign = life::find(tx, id).await?;
                    Ok(campaign.and_then(|it| Planned::of_campaign(&it, &self.shop.zone)))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn campaign(state: State) -> Campaign {
        let definition = json!({"campaign_id": "c1", "kind": "giveaway", "title": "Tea week", "currency": "CNY",
            "starts_at": "2026-11-11T12:00:00Z", "ends_at": "2026-11-12T12:00:00Z", "budget_minor": 0,
            "reminders": {"before_s": [604800, 3600], "second_after_s": 86400}, "rules": {}});
        Campaign {
            id: "c1".into(),
            state,
            version: 1,
            definition: serde_json::from_value(definition).unwrap(),
            rules_hash: String::new(),
            published_at: None,
        }
    }

    #[test]
    fn campaigns_are_told_in_their_own_time() {
        let planned = |state| Planned::of_campaign(&campaign(state), &TimeZone::UTC);
        assert_eq!(planned(State::Draft), None);
        let ahead = planned(State::Published).unwrap();
        assert_eq!(ahead.stage, Stage::Ahead);
        assert_eq!(
            (ahead.before_s.len(), ahead.second_after_s),
            (2, Some(86_400))
        );
        assert_eq!(
            ahead.words(Timestamp(0)),
            "Tea week starts at 2026-11-11 20:00"
        );
        assert_eq!(ahead.words(ahead.starts_at), "Tea week has begun");
        for (state, stage) in [
            (State::Warmup, Stage::Ahead),
            (State::Running, Stage::Begun),
            (State::Paused, Stage::Resting),
            (State::Ended, Stage::Over),
            (State::Cancelled, Stage::Over),
        ] {
            assert_eq!(planned(state).unwrap().stage, stage);
        }
    }

    #[test]
    fn subjects_are_written_and_read() {
        for subject in [Subject::Campaign("a:b".into()), Subject::Sale("s1".into())] {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        assert_eq!(Subject::parse("c1"), None);
    }
}
