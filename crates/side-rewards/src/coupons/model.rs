//! The life of one coupon: a function of what it was, the command and the time.
// Issued -> Locked (order) -> Used; Locked -> Issued; Issued | Locked -> Expired | Revoked. Nothing leaves the last three.
// A lock that has lapsed counts as none, an issued coupon past its time as expired: at the next look, without a job.

use flash_types::Timestamp;

/// How long an order has a coupon that it locked.
pub const LOCK_MS: i64 = 30 * 60 * 1_000;
/// How long a coupon is good for where its rule does not say.
pub const TERM_DAYS_DEFAULT: u32 = 30;
/// A day.
pub(crate) const DAY_MS: i64 = 24 * 3600 * 1_000;

/// Where a coupon stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CouponState {
    /// Free to be used.
    Issued,
    /// An order has it.
    Locked,
    /// It took something off an order.
    Used,
    /// Its time is over.
    Expired,
    /// Taken back.
    Revoked,
}

impl CouponState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Issued,
        Self::Locked,
        Self::Used,
        Self::Expired,
        Self::Revoked,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "ISSUED",
            Self::Locked => "LOCKED",
            Self::Used => "USED",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
        }
    }

    /// The state of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What of a coupon its life goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// As it was left; [`Life::state_at`] tells what that is worth now.
    pub state: CouponState,
    /// The most that it takes off, minor units.
    pub face_minor: i64,
    /// Least amount of an order, minor units; 0 for none.
    pub threshold_minor: i64,
    /// From when it is good.
    pub valid_from: Timestamp,
    /// Until when, exclusive.
    pub valid_until: Timestamp,
    /// Which order has, had or used it.
    pub order_id: Option<String>,
    /// What it takes off that order.
    pub discount_minor: Option<i64>,
    /// Until when the order has it, exclusive; 0 where none does.
    pub locked_until: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// Why not. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The order is too small.
    BelowThreshold,
    /// Not yet.
    NotValidYet,
    /// No more.
    Expired,
    /// Another order has it.
    LockedByOther,
    /// It was used: by this order, where a lock was asked for, or by another.
    Used,
    /// It was taken back.
    Revoked,
    /// It has a threshold, no lock told the amount of the order, and neither did the call.
    AmountMissing,
}

/// What a coupon takes off an order: never more than the order is worth.
///
/// # Panics
/// If an amount is negative: both are checked where they come from.
pub fn discount_minor(face_minor: i64, order_amount_minor: i64) -> i64 {
    assert!(face_minor >= 0, "a face value is not negative");
    assert!(
        order_amount_minor >= 0,
        "an amount of an order is not negative"
    );
    face_minor.min(order_amount_minor)
}

/// When a coupon issued now is good, by its rule: a term counts from the issue and ends no later than `valid_until`.
pub fn window(
    term_days: Option<u32>,
    valid_from: Option<Timestamp>,
    valid_until: Option<Timestamp>,
    now: Timestamp,
) -> (Timestamp, Timestamp) {
    let term_days = match (term_days, valid_until) {
        (None, None) => Some(TERM_DAYS_DEFAULT),
        (term_days, _) => term_days,
    };
    let by_term = term_days.map(|days| now.0.saturating_add(i64::from(days) * DAY_MS));
    let by_term = by_term.map_or(Timestamp::MAX, Timestamp);
    let until = by_term
        .min(valid_until.unwrap_or(Timestamp::MAX))
        .min(Timestamp::MAX);
    (valid_from.unwrap_or(now), until)
}

impl Life {
    /// What it is now.
    pub fn state_at(&self, now: Timestamp) -> CouponState {
        match self.state {
            CouponState::Locked if now < self.locked_until => CouponState::Locked,
            CouponState::Issued | CouponState::Locked if now < self.valid_until => {
                CouponState::Issued
            }
            CouponState::Issued | CouponState::Locked => CouponState::Expired,
            CouponState::Used => CouponState::Used,
            CouponState::Expired => CouponState::Expired,
            CouponState::Revoked => CouponState::Revoked,
        }
    }

    /// An order takes it for [`LOCK_MS`]. The same order again keeps it as long as it had it, for the amount told now.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn lock(
        &mut self,
        order_id: &str,
        order_amount_minor: i64,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let locked_until = match self.state_at(now) {
            CouponState::Locked if self.is_of(order_id) => self.locked_until,
            CouponState::Locked => return Err(Refusal::LockedByOther),
            CouponState::Issued if now < self.valid_from => return Err(Refusal::NotValidYet),
            CouponState::Issued => Timestamp(now.0.saturating_add(LOCK_MS)),
            CouponState::Used => return Err(Refusal::Used),
            CouponState::Expired => return Err(Refusal::Expired),
            CouponState::Revoked => return Err(Refusal::Revoked),
        };
        if order_amount_minor < self.threshold_minor {
            return Err(Refusal::BelowThreshold);
        }
        self.state = CouponState::Locked;
        self.order_id = Some(order_id.to_owned());
        self.discount_minor = Some(discount_minor(self.face_minor, order_amount_minor));
        self.locked_until = locked_until;
        Ok(())
    }

    /// An order uses it up: the one that has it, for what the lock said, or any where none has it. `true`: now, not before.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn use_up(
        &mut self,
        order_id: &str,
        order_amount_minor: Option<i64>,
        now: Timestamp,
    ) -> Result<bool, Refusal> {
        let discount = match self.state_at(now) {
            CouponState::Used if self.is_of(order_id) => return Ok(false),
            CouponState::Used => return Err(Refusal::Used),
            CouponState::Locked if self.is_of(order_id) => {
                // A lock says what it takes off.
                self.discount_minor.unwrap_or(self.face_minor)
            }
            CouponState::Locked => return Err(Refusal::LockedByOther),
            CouponState::Issued if now < self.valid_from => return Err(Refusal::NotValidYet),
            // Its lock has lapsed, and nobody took it since: what the lock said holds.
            CouponState::Issued if self.is_of(order_id) && order_amount_minor.is_none() => {
                self.discount_minor.unwrap_or(self.face_minor)
            }
            CouponState::Issued => match order_amount_minor {
                Some(amount) if amount < self.threshold_minor => {
                    return Err(Refusal::BelowThreshold);
                }
                Some(amount) => discount_minor(self.face_minor, amount),
                None if self.threshold_minor > 0 => return Err(Refusal::AmountMissing),
                None => self.face_minor,
            },
            CouponState::Expired => return Err(Refusal::Expired),
            CouponState::Revoked => return Err(Refusal::Revoked),
        };
        self.state = CouponState::Used;
        self.order_id = Some(order_id.to_owned());
        self.discount_minor = Some(discount);
        self.locked_until = Timestamp(0);
        self.used_at = Some(now);
        Ok(true)
    }

    /// An order lets go of it. What it does not have, it has let go of.
    ///
    /// # Errors
    /// [`Refusal`] where another order has it, or it was used.
    pub fn unlock(&mut self, order_id: &str, now: Timestamp) -> Result<(), Refusal> {
        match self.state_at(now) {
            CouponState::Locked if !self.is_of(order_id) => return Err(Refusal::LockedByOther),
            CouponState::Used => return Err(Refusal::Used),
            // The lapsed lock of another: what it said holds, as long as nobody else takes the coupon.
            CouponState::Issued if self.order_id.is_some() && !self.is_of(order_id) => {
                return Ok(());
            }
            CouponState::Locked | CouponState::Issued | CouponState::Expired => {}
            CouponState::Revoked => return Ok(()),
        }
        let is_over = now >= self.valid_until;
        self.free(if is_over {
            CouponState::Expired
        } else {
            CouponState::Issued
        });
        Ok(())
    }

    /// Takes it back, also from an order that has it. `false`: it was used, taken back or over.
    pub fn revoke(&mut self) -> bool {
        match self.state {
            CouponState::Issued | CouponState::Locked => {
                self.free(CouponState::Revoked);
                true
            }
            CouponState::Used | CouponState::Expired | CouponState::Revoked => false,
        }
    }

    fn free(&mut self, state: CouponState) {
        self.state = state;
        self.order_id = None;
        self.discount_minor = None;
        self.locked_until = Timestamp(0);
    }

    fn is_of(&self, order_id: &str) -> bool {
        self.order_id.as_deref() == Some(order_id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn issued() -> Life {
        Life {
            state: CouponState::Issued,
            face_minor: 1_000,
            threshold_minor: 5_000,
            valid_from: Timestamp(1_000),
            valid_until: Timestamp(10_000_000),
            order_id: None,
            discount_minor: None,
            locked_until: Timestamp(0),
            used_at: None,
        }
    }

    #[test]
    fn validity_ends_at_its_end_and_begins_at_its_begin() {
        let at = |now| issued().lock("o1", 5_000, Timestamp(now));
        assert_eq!(at(999), Err(Refusal::NotValidYet));
        assert_eq!(at(1_000), Ok(()));
        assert_eq!(at(9_999_999), Ok(()));
        assert_eq!(at(10_000_000), Err(Refusal::Expired));
        assert_eq!(
            issued().lock("o1", 4_999, Timestamp(1_000)),
            Err(Refusal::BelowThreshold)
        );
    }

    #[test]
    fn a_lock_outlives_the_validity_and_nothing_else_does() {
        let mut life = issued();
        life.lock("o1", 5_000, Timestamp(9_999_999)).unwrap();
        let later = Timestamp(9_999_999 + LOCK_MS - 1);
        let mut used = life.clone();
        assert_eq!(used.use_up("o1", None, later), Ok(true));
        assert_eq!(used.use_up("o1", None, Timestamp(i64::MAX)), Ok(false));
        assert_eq!(used.use_up("o2", None, later), Err(Refusal::Used));
        assert_eq!(
            life.clone().use_up("o2", Some(9_000), later),
            Err(Refusal::LockedByOther)
        );
        let lapsed = Timestamp(9_999_999 + LOCK_MS);
        assert_eq!(
            life.clone().use_up("o1", None, lapsed),
            Err(Refusal::Expired)
        );
        // The same order cannot hold it for ever by asking again.
        life.lock("o1", 6_000, later).unwrap();
        assert_eq!(life.locked_until, lapsed);
    }

    #[test]
    fn a_lapsed_lock_still_says_what_its_order_gets_off() {
        let mut life = issued();
        life.threshold_minor = 0;
        life.lock("o1", 300, Timestamp(1_000)).unwrap();
        let lapsed = Timestamp(1_000 + LOCK_MS);
        let mut told_again = life.clone();
        assert_eq!(life.use_up("o1", None, lapsed), Ok(true));
        assert_eq!(life.discount_minor, Some(300));
        assert_eq!(told_again.use_up("o1", Some(400), lapsed), Ok(true));
        assert_eq!(told_again.discount_minor, Some(400));
    }

    #[test]
    fn nobody_lets_go_of_what_another_has() {
        let mut life = issued();
        life.lock("o1", 5_000, Timestamp(1_000)).unwrap();
        let lapsed = Timestamp(1_000 + LOCK_MS);
        assert_eq!(life.unlock("o2", lapsed), Ok(()));
        assert_eq!(life.use_up("o1", None, lapsed), Ok(true));
    }

    #[test]
    fn a_lapsed_lock_is_another_orders_chance() {
        let mut life = issued();
        life.lock("o1", 5_000, Timestamp(1_000)).unwrap();
        assert_eq!(
            life.lock("o2", 5_000, Timestamp(1_001)),
            Err(Refusal::LockedByOther)
        );
        let lapsed = Timestamp(1_000 + LOCK_MS);
        assert_eq!(life.state_at(lapsed), CouponState::Issued);
        assert_eq!(
            life.clone().use_up("o3", None, lapsed),
            Err(Refusal::AmountMissing)
        );
        life.lock("o2", 5_000, lapsed).unwrap();
        assert_eq!(
            life.use_up("o1", Some(9_000), lapsed),
            Err(Refusal::LockedByOther)
        );
    }

    #[test]
    fn windows_follow_their_rule() {
        let day = |days: i64| Timestamp(days * DAY_MS);
        assert_eq!(window(None, None, None, day(1)), (day(1), day(31)));
        assert_eq!(window(Some(7), None, None, day(1)), (day(1), day(8)));
        assert_eq!(
            window(None, Some(day(5)), Some(day(9)), day(1)),
            (day(5), day(9))
        );
        assert_eq!(
            window(Some(30), None, Some(day(9)), day(1)),
            (day(1), day(9))
        );
        assert_eq!(window(Some(u32::MAX), None, None, day(1)).1, Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn a_discount_never_passes_the_face_nor_the_order(face in 0i64..=1_000_000_000_000, order in 0i64..=1_000_000_000_000) {
            let off = discount_minor(face, order);
            prop_assert!(off >= 0 && off <= face && order - off >= 0);
            prop_assert!(off == face || off == order);
        }
    }
}
