//! What requests ask for that is not the engine's: done by whoever wires the process, called by the admin port.
//!
//! Each is a trait of its own; one that is not there answers 404, as if its paths did not exist.

/// What there is. Cloned into every thread of the front.
#[derive(Clone, Default)]
pub struct Services {}
