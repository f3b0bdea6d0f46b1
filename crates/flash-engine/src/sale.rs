//! One sale in memory.

use flash_types::*;

/// One sale in memory: its plan, its state, its ledger.
pub struct Sale {}

impl Sale {
    /// Its number.
    pub fn sale_no(&self) -> SaleNo {
        todo!()
    }
    /// Its plan (after stock changes: as published; counters tell the stock).
    pub fn definition(&self) -> &SaleDefinition {
        todo!()
    }
    /// As shown to people: committed state, and by the window (`published` until the start, `closed` from the end).
    pub fn shown_state(&self, wall: Timestamp) -> SaleState {
        todo!()
    }
    /// Units of an item for sale now: one load.
    pub fn available_units(&self, item: ItemIndex) -> u32 {
        todo!()
    }
    /// Grows with every change of state, definition or stock: for ETag and SSE.
    pub fn version(&self) -> u64 {
        todo!()
    }
    /// Counters of an item in the ledger (metrics).
    pub fn units(&self, item: ItemIndex) -> ItemUnits {
        todo!()
    }
    /// It left memory.
    pub fn is_retired(&self) -> bool {
        todo!()
    }
}
