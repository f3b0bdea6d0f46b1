//! Why something is not done to a prize, and the one table that says it to clients.

use flash_types::side::SideProblem;
use side_books::SideError;

use super::model::PrizeState;

/// A no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrizeRefusal {
    /// None of that id, or another buyer's.
    NotFound,
    /// It was to be claimed, and its time is over.
    ClaimIsOver,
    /// It was to be claimed, and is shipped or taken back.
    NotClaimable(PrizeState),
    /// It was to be shipped, and has no address or is over.
    NotShippable(PrizeState),
    /// It was said to be received, and was not shipped.
    NotShipped(PrizeState),
    /// There is no address.
    NoAddress(PrizeState),
}

impl From<PrizeRefusal> for SideError {
    fn from(refusal: PrizeRefusal) -> Self {
        problem(refusal).into()
    }
}

fn problem(refusal: PrizeRefusal) -> SideProblem {
    let conflict = |detail: &'static str, state: PrizeState| {
        SideProblem::new(409, "state_conflict", detail).with("state", state.as_str())
    };
    match refusal {
        PrizeRefusal::NotFound => SideProblem::not_found("prize"),
        PrizeRefusal::ClaimIsOver => SideProblem::new(
            409,
            "prize_expired",
            "the time to claim the prize is over: claim_until said when",
        ),
        PrizeRefusal::NotClaimable(state) => conflict(
            "the address can be changed only until the prize is shipped",
            state,
        ),
        PrizeRefusal::NotShippable(state) => conflict(
            "only a claimed prize can be shipped: its buyer has to give an address",
            state,
        ),
        PrizeRefusal::NotShipped(state) => conflict("only a shipped prize can be received", state),
        PrizeRefusal::NoAddress(state) => conflict(
            "there is no address: none was given yet, or it was erased",
            state,
        ),
    }
}
