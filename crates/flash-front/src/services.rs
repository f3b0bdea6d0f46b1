//! What requests ask for that is not the engine's: done by whoever wires the process, called by the admin port.
//!
//! Each is a trait of its own; one that is not there answers 404, as if its paths did not exist.

use std::pin::Pin;
use std::sync::Arc;

use crate::rehearsal::{RehearsalPlan, RehearsalReport};

/// What there is. Cloned into every thread of the front.
#[derive(Clone, Default)]
pub struct Services {
    /// Plays sales against a copy.
    pub rehearsals: Option<Arc<dyn Rehearsals>>,
}

/// A rehearsal that runs: its report, or why there is none.
pub type Rehearsing = Pin<Box<dyn Future<Output = Result<RehearsalReport, String>> + Send>>;

/// Plays sales against a copy, one at a time.
pub trait Rehearsals: Send + Sync {
    /// Begins one. It runs outside of the caller's thread.
    ///
    /// # Errors
    /// Why it cannot begin: another one runs.
    ///
    /// # Cancel safety
    /// Dropping what it gives ends the rehearsal and leaves nothing behind.
    fn begin(&self, plan: RehearsalPlan) -> Result<Rehearsing, String>;
}
