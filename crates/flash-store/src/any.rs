//! The store that was configured: one of those there are, chosen at start.

use flash_types::{BuyerId, Durability, IdempotencyKey, PaymentRef, SaleNo, Serial};

use crate::sqlite::SqliteStore;
use crate::{
    AdminNote, Batch, CommitError, DecisionRow, ItemRow, Loaded, MemoryStore, OpenError, Page,
    ReadError, ReservationFilter, ReservationRow, Store,
};

/// One of the stores; every call goes to it.
#[derive(Debug)]
pub enum AnyStore {
    /// Embedded, durable.
    Sqlite(SqliteStore),
    /// In memory, for tests and simulations.
    Memory(MemoryStore),
}

impl AnyStore {
    /// Hands over all that is stored. Blocks; to be called once, before the first commit.
    ///
    /// # Errors
    /// [`OpenError`] names what is damaged or missing; what was handed over until then is worth nothing.
    pub fn load(&self, into: &mut dyn Loaded) -> Result<(), OpenError> {
        match self {
            Self::Sqlite(store) => store.load(into),
            Self::Memory(store) => store.load(into),
        }
    }
}

macro_rules! delegate {
    ($self:ident . $call:ident ( $($argument:expr),* )) => {
        match $self {
            Self::Sqlite(store) => store.$call($($argument),*).await,
            Self::Memory(store) => store.$call($($argument),*).await,
        }
    };
}

impl Store for AnyStore {
    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        delegate!(self.commit(batch))
    }

    fn durability(&self) -> Durability {
        match self {
            Self::Sqlite(store) => store.durability(),
            Self::Memory(store) => store.durability(),
        }
    }

    async fn reservation(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Option<ReservationRow>, ReadError> {
        delegate!(self.reservation(sale_no, serial))
    }

    async fn reservation_by_key(
        &self,
        sale_no: SaleNo,
        buyer: BuyerId,
        key: IdempotencyKey,
    ) -> Result<Option<ReservationRow>, ReadError> {
        delegate!(self.reservation_by_key(sale_no, buyer, key))
    }

    async fn payment_decision(
        &self,
        sale_no: SaleNo,
        payment_ref: PaymentRef,
    ) -> Result<Option<DecisionRow>, ReadError> {
        delegate!(self.payment_decision(sale_no, payment_ref))
    }

    async fn decisions_of(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Vec<DecisionRow>, ReadError> {
        delegate!(self.decisions_of(sale_no, serial))
    }

    async fn reservations(
        &self,
        sale_no: SaleNo,
        filter: ReservationFilter,
        page: Page,
    ) -> Result<Vec<ReservationRow>, ReadError> {
        delegate!(self.reservations(sale_no, filter, page))
    }

    async fn items(&self, sale_no: SaleNo) -> Result<Vec<ItemRow>, ReadError> {
        delegate!(self.items(sale_no))
    }

    async fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AdminNote)>, ReadError> {
        delegate!(self.admin_notes(after, limit))
    }

    async fn close(&self) {
        delegate!(self.close())
    }
}
