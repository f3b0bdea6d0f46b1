//! Why an order is not taken as it was sent.

use flash_types::side::SideProblem;

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such order.
    NoSuchOrder,
    /// The order is in the books with another content.
    OtherOrder,
    /// The id is one of a reservation, and that one is not confirmed as far as is known.
    NotConfirmed,
    /// The refund is in the books with another amount.
    OtherRefund,
    /// More would go back than was paid.
    MoreThanPaid {
        /// What is left.
        left_minor: i64,
    },
    /// More units would go back than were bought, or it is another item.
    MoreThanBought,
}

impl From<Refusal> for SideProblem {
    fn from(refusal: Refusal) -> Self {
        let conflict = |detail: &'static str| Self::new(409, "state_conflict", detail);
        match refusal {
            Refusal::NoSuchOrder => Self::not_found("order"),
            Refusal::OtherOrder => conflict(
                "this order_id is in the books with another content: send the order as it was, or take a new id",
            ),
            Refusal::NotConfirmed => conflict(
                "ids like this are those of reservations: one becomes an order by itself when it is confirmed; take \
                 another order_id",
            ),
            Refusal::OtherRefund => conflict(
                "this refund_ref is in the books with another amount: take a new refund_ref for another refund",
            ),
            Refusal::MoreThanPaid { left_minor } => {
                conflict("more would go back than was paid: refund at most left_minor")
                    .with("left_minor", left_minor)
            }
            Refusal::MoreThanBought => conflict(
                "a line gives back more units of an item than the order still has: correct the lines, or leave them out",
            ),
        }
    }
}

impl From<Refusal> for side_books::SideError {
    fn from(refusal: Refusal) -> Self {
        SideProblem::from(refusal).into()
    }
}
