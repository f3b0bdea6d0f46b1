//! Placeholder until the store is filled.
/// In memory.
pub struct MemoryStore;
