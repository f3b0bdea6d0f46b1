//! Work that goes on by itself: what is due is done a step at a time, by whoever runs the process.

use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;

use crate::SideError;

/// A worker without a clock of its own.
pub trait Step: Send + Sync {
    /// For logs and metrics: a short word.
    fn name(&self) -> &'static str;

    /// How long to rest after a step that left nothing to do.
    fn rest(&self) -> Duration;

    /// Does a bounded piece of what is due. `true`: there is more.
    ///
    /// # Errors
    /// [`SideError`]: it is tried again after a rest; what was committed stays.
    ///
    /// # Cancel safety
    /// A step is one transaction, or several that each leave things right.
    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>>;
}
