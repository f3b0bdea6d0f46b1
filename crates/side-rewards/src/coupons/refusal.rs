//! Why a coupon is not locked, used or taken back, and the one table that says it to clients.

use flash_types::side::SideProblem;
use side_books::SideError;

use super::model::Refusal;
use super::queries::Coupon;

/// A no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CouponRefusal {
    /// None of that id, or another buyer's.
    NotFound,
    /// By the rules of its life.
    Life(Refusal, Box<Coupon>),
    /// It was used, taken back or over.
    NotRevocable(Box<Coupon>),
}

impl From<CouponRefusal> for SideError {
    fn from(refusal: CouponRefusal) -> Self {
        problem(&refusal).into()
    }
}

fn problem(refusal: &CouponRefusal) -> SideProblem {
    match refusal {
        CouponRefusal::NotFound => SideProblem::not_found("coupon"),
        CouponRefusal::Life(why, coupon) => by_life(*why, coupon),
        CouponRefusal::NotRevocable(coupon) => conflict(
            format!(
                "it is {}: only what was not used can be revoked",
                coupon.life.state.as_str()
            ),
            coupon,
        ),
    }
}

fn by_life(why: Refusal, coupon: &Coupon) -> SideProblem {
    let life = &coupon.life;
    match why {
        Refusal::BelowThreshold => {
            let detail = "the order is below the coupon's threshold: it takes a larger order";
            SideProblem::new(409, "below_threshold", detail)
                .with("threshold_minor", life.threshold_minor)
        }
        Refusal::NotValidYet => {
            let detail = "the coupon is not good yet: valid_from says when";
            SideProblem::new(409, "coupon_not_valid_yet", detail)
                .with("valid_from", life.valid_from.to_string())
        }
        Refusal::Expired => {
            let detail = "the coupon's time is over: the order goes on without it";
            SideProblem::new(409, "coupon_expired", detail)
                .with("valid_until", life.valid_until.to_string())
        }
        Refusal::LockedByOther => conflict(
            "another order has it: unlock it there, or wait for locked_until",
            coupon,
        )
        .with("locked_until", life.locked_until.to_string()),
        Refusal::Used => conflict("it was used: the order goes on without it", coupon),
        Refusal::Revoked => conflict("it was taken back: the order goes on without it", coupon),
        Refusal::AmountMissing => SideProblem::malformed(
            "the coupon has a threshold and is not locked by this order: lock it first, or say order_amount_minor",
        ),
    }
}

fn conflict(detail: impl Into<std::borrow::Cow<'static, str>>, coupon: &Coupon) -> SideProblem {
    SideProblem::new(409, "state_conflict", detail).with("state", coupon.life.state.as_str())
}
