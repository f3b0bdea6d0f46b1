//! Every no of this aggregate, and the one table of what it is on the wire.

use std::time::Duration;

use flash_types::side::SideProblem;
use side_books::SideError;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is none, or it is somebody else's.
    NotFound(&'static str),
    /// A field is wrong.
    Malformed(String),
    /// Nobody is reminded of what has begun.
    HasBegun,
    /// The campaign is over.
    CampaignEnded,
    /// The sale is over.
    SaleEnded,
    /// Codes were asked for too often.
    TooOften(Duration),
    /// Another code was sent; so many tries are left.
    CodeWrong(i64),
    /// The code has had its time, or a newer one was sent.
    CodeExpired,
    /// All tries are used.
    TooManyTries,
    /// The number is another buyer's. Told only to who has the code.
    PhoneInUse,
}

impl From<Refusal> for SideProblem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(what) => Self::not_found(what),
            Refusal::Malformed(detail) => Self::malformed(detail),
            Refusal::HasBegun => Self::new(
                409,
                "state_conflict",
                "it has begun: there is no start left to be reminded of",
            ),
            Refusal::CampaignEnded => Self::new(410, "campaign_ended", "this campaign is over"),
            Refusal::SaleEnded => Self::new(410, "sale_ended", "this sale is over"),
            Refusal::TooOften(wait) => Self::new(
                429,
                "rate_limited",
                "a code was sent a short while ago, or too many were: use it, or wait as told in Retry-After",
            )
            .retry_after(wait),
            Refusal::CodeWrong(left) => Self::new(
                403,
                "code_wrong",
                "this is not the code that was sent: look again, or ask for a new one",
            )
            .with("tries_left", left),
            Refusal::CodeExpired => Self::new(
                410,
                "code_expired",
                "this code is past its five minutes, or a newer one was sent: use that, or ask for a new one",
            ),
            Refusal::TooManyTries => Self::new(
                403,
                "too_many_tries",
                "five codes were tried: ask for a new one",
            ),
            Refusal::PhoneInUse => Self::new(
                409,
                "phone_in_use",
                "this number verifies another buyer: use another number",
            ),
        }
    }
}

impl From<Refusal> for SideError {
    fn from(refusal: Refusal) -> Self {
        SideProblem::from(refusal).into()
    }
}
