//! The life of one prize.
// Drawn -> Claimed (address) -> Fulfilling (shipped) -> Delivered; Claimed -> Drawn (address erased); Drawn -> Expired;
// Drawn | Claimed -> Withdrawn. Nothing leaves the last three. One past its time counts as expired at the next look.

use flash_types::Timestamp;

const DAY_MS: i64 = crate::coupons::model::DAY_MS;
/// How long a prize waits to be claimed.
pub const CLAIM_MS: i64 = 30 * DAY_MS;
/// How long an address is kept after delivery.
pub const ADDRESS_KEPT_MS: i64 = 90 * DAY_MS;
/// How long an address is kept after shipping where nobody says that the prize arrived.
pub const ADDRESS_KEPT_UNDELIVERED_MS: i64 = 180 * DAY_MS;

/// Where a prize stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrizeState {
    /// Somebody's, no address yet.
    Drawn,
    /// With an address, which may still change.
    Claimed,
    /// Shipped.
    Fulfilling,
    /// Received.
    Delivered,
    /// Not claimed in time.
    Expired,
    /// Taken back.
    Withdrawn,
}

impl PrizeState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Drawn,
        Self::Claimed,
        Self::Fulfilling,
        Self::Delivered,
        Self::Expired,
        Self::Withdrawn,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drawn => "DRAWN",
            Self::Claimed => "CLAIMED",
            Self::Fulfilling => "FULFILLING",
            Self::Delivered => "DELIVERED",
            Self::Expired => "EXPIRED",
            Self::Withdrawn => "WITHDRAWN",
        }
    }

    /// The state of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// What a prize in this state is at a time, with a claim that is open until then.
    #[must_use]
    pub fn at(self, claim_until: Timestamp, now: Timestamp) -> Self {
        match self {
            Self::Drawn if now >= claim_until => Self::Expired,
            Self::Drawn => Self::Drawn,
            Self::Claimed => Self::Claimed,
            Self::Fulfilling => Self::Fulfilling,
            Self::Delivered => Self::Delivered,
            Self::Expired => Self::Expired,
            Self::Withdrawn => Self::Withdrawn,
        }
    }

    /// Whether an address may be given or changed.
    pub fn takes_address(self) -> bool {
        matches!(self, Self::Drawn | Self::Claimed)
    }

    /// Whether it can be taken back.
    pub fn is_revocable(self) -> bool {
        matches!(self, Self::Drawn | Self::Claimed)
    }
}
