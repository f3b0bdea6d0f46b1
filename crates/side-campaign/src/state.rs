//! The life of a campaign.
// Draft -> Published -> Warmup -> Running <-> Paused -> Ended -> Settling -> Settled -> Archived; Draft | Published -> Cancelled.
// Warmup may be skipped. Nothing leaves Archived or Cancelled.

/// Where a campaign stands. On the wire and in tables in capital letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Being written; may be replaced.
    Draft,
    /// Announced: rules frozen and hashed, seed committed.
    Published,
    /// Shown, not yet open.
    Warmup,
    /// Open.
    Running,
    /// Stopped for a while: nothing new begins, what was promised is kept.
    Paused,
    /// Over: nothing new begins.
    Ended,
    /// Draws are made, boards reviewed, rewards given.
    Settling,
    /// All promises kept or taken back; seed revealed.
    Settled,
    /// Out of the lists.
    Archived,
    /// Never ran.
    Cancelled,
}

impl State {
    /// All of them, in the order of life.
    pub const ALL: [Self; 10] = [
        Self::Draft,
        Self::Published,
        Self::Warmup,
        Self::Running,
        Self::Paused,
        Self::Ended,
        Self::Settling,
        Self::Settled,
        Self::Archived,
        Self::Cancelled,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Published => "PUBLISHED",
            Self::Warmup => "WARMUP",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Ended => "ENDED",
            Self::Settling => "SETTLING",
            Self::Settled => "SETTLED",
            Self::Archived => "ARCHIVED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The state of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether it may go from here to there in one move.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Draft => matches!(next, Self::Published | Self::Cancelled),
            Self::Published => {
                matches!(
                    next,
                    Self::Warmup | Self::Running | Self::Ended | Self::Cancelled
                )
            }
            Self::Warmup => matches!(next, Self::Running | Self::Paused | Self::Ended),
            Self::Running => matches!(next, Self::Paused | Self::Ended),
            Self::Paused => matches!(next, Self::Running | Self::Warmup | Self::Ended),
            Self::Ended => next == Self::Settling,
            Self::Settling => next == Self::Settled,
            Self::Settled => next == Self::Archived,
            Self::Archived | Self::Cancelled => false,
        }
    }
}
