//! Why a buyer may not take part, and how it is told: the one table of this aggregate.

use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::SideProblem;
use side_books::SideError;

/// Why a buyer may not take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryRefusal {
    /// There is none, or it is a draft.
    NoSuchCampaign,
    /// It opens later.
    NotStarted {
        /// Then.
        starts_at: Timestamp,
        /// It is now.
        now: Timestamp,
    },
    /// It is stopped for a while.
    Paused,
    /// It is over, or never was.
    Ended,
    /// Buyer, address or device is on a block list.
    Blocked,
    /// A telephone number must be verified first.
    VerificationRequired,
    /// Only for who never bought before.
    NotNew,
    /// This task must be done first.
    TaskRequired(String),
    /// There is no place left.
    Full,
    /// A sign-up for a task that the campaign does not ask for; it asks for this one, or for none.
    OtherTask(Option<String>),
}

impl From<EntryRefusal> for SideProblem {
    fn from(refusal: EntryRefusal) -> Self {
        match refusal {
            EntryRefusal::NoSuchCampaign => Self::not_found("campaign"),
            EntryRefusal::NotStarted { starts_at, now } => {
                let wait_ms = starts_at.0.saturating_sub(now.0).max(1_000);
                Self::new(
                    425,
                    "campaign_not_started",
                    "the campaign has not started: come back at starts_at",
                )
                .with("starts_at", starts_at.to_string())
                .retry_after(Duration::from_millis(wait_ms.unsigned_abs()))
            }
            EntryRefusal::Paused => Self::new(
                423,
                "campaign_paused",
                "the campaign is paused: nobody new may take part until it goes on",
            ),
            EntryRefusal::Ended => Self::new(410, "campaign_ended", "the campaign is over"),
            EntryRefusal::Blocked => Self::new(
                403,
                "blocked",
                "taking part in this campaign is not possible; the shop's support can tell more",
            ),
            EntryRefusal::VerificationRequired => Self::new(
                403,
                "verification_required",
                "a telephone number must be verified first: POST /v1/verifications",
            ),
            EntryRefusal::NotNew => Self::new(
                403,
                "not_eligible",
                "this campaign is for buyers who had not bought anything before its start",
            ),
            EntryRefusal::TaskRequired(task) => Self::new(
                403,
                "task_required",
                format!("the task {task} must be done first"),
            )
            .with("task", task),
            EntryRefusal::Full => Self::new(
                409,
                "campaign_full",
                "all places of this campaign are taken",
            ),
            EntryRefusal::OtherTask(Some(task)) => Self::malformed(format!(
                "task is not what this campaign asks for, which is {task}"
            )),
            EntryRefusal::OtherTask(None) => {
                Self::malformed("task is not asked for: this campaign has none")
            }
        }
    }
}

impl From<EntryRefusal> for SideError {
    fn from(refusal: EntryRefusal) -> Self {
        SideProblem::from(refusal).into()
    }
}
