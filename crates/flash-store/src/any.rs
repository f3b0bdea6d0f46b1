//! The store that was configured: one of those there are, chosen at start.

use flash_types::{BuyerId, Durability, IdempotencyKey, PaymentRef, SaleNo, SaleState, Serial};

use crate::sqlite::SqliteStore;
use crate::{
    AcceptError, AcceptedLoss, AdminNote, AttemptsRow, Batch, CommitError, Committed, DecisionRow,
    EventPlace, EventRange, EventRow, ItemRow, Lanes, Loaded, MemoryStore, OpenError, Page,
    ReadError, RedisStore, ReservationFilter, ReservationRow, SaleContent, Store, Trouble,
};

/// One of the stores; every call goes to it.
#[derive(Debug)]
pub enum AnyStore {
    /// Embedded, durable.
    Sqlite(SqliteStore),
    /// On a Redis.
    Redis(RedisStore),
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
            Self::Redis(store) => store.load(into),
            Self::Memory(store) => store.load(into),
        }
    }

    /// All that is stored of one sale that stands still; `None` where nothing is.
    ///
    /// # Errors
    /// Where it cannot be read, contradicts itself, or the store proves itself as a whole at the start and at no other time.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn content(&self, sale_no: SaleNo) -> Result<Option<SaleContent>, ReadError> {
        match self {
            Self::Redis(store) => store.content(sale_no).await,
            Self::Memory(store) => Ok(store.content(sale_no)),
            Self::Sqlite(_) => Err(ReadError(EMBEDDED.into())),
        }
    }

    /// Takes a frozen sale as it is stored: see [`RedisStore::accept`].
    ///
    /// # Errors
    /// [`AcceptError`] says whether to ask again.
    ///
    /// # Cancel safety
    /// Dropping it leaves open whether it was done; asking again tells.
    pub async fn accept(
        &self,
        sale_no: SaleNo,
        loss: &AcceptedLoss<'_>,
    ) -> Result<SaleState, AcceptError> {
        match self {
            Self::Redis(store) => store.accept(sale_no, loss).await,
            Self::Memory(store) => {
                store.accept(sale_no, loss.serials[1], loss.note, loss.is_rest_whole)
            }
            Self::Sqlite(_) => Err(AcceptError::Refused(EMBEDDED.into())),
        }
    }

    /// What a start found missing of a sale, which nobody can list any more.
    pub fn unlisted_loss(&self, sale_no: SaleNo) -> Option<String> {
        match self {
            Self::Redis(store) => store.unlisted_loss(sale_no),
            Self::Sqlite(_) | Self::Memory(_) => None,
        }
    }
}

const EMBEDDED: &str = "the embedded store loses nothing while it runs: restore a backup instead";

macro_rules! delegate {
    ($self:ident . $call:ident ( $($argument:expr),* )) => {
        match $self {
            Self::Sqlite(store) => store.$call($($argument),*).await,
            Self::Redis(store) => store.$call($($argument),*).await,
            Self::Memory(store) => store.$call($($argument),*).await,
        }
    };
}

impl Store for AnyStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        delegate!(self.commit(batch))
    }

    fn lanes(&self) -> Lanes {
        match self {
            Self::Sqlite(store) => store.lanes(),
            Self::Redis(store) => store.lanes(),
            Self::Memory(store) => store.lanes(),
        }
    }

    fn batch_jobs_max(&self) -> usize {
        match self {
            Self::Sqlite(store) => store.batch_jobs_max(),
            Self::Redis(store) => store.batch_jobs_max(),
            Self::Memory(store) => store.batch_jobs_max(),
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Sqlite(store) => store.trouble(),
            Self::Redis(store) => store.trouble(),
            Self::Memory(store) => store.trouble(),
        }
    }

    fn durability(&self) -> Durability {
        match self {
            Self::Sqlite(store) => store.durability(),
            Self::Redis(store) => store.durability(),
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

    async fn events(&self, range: EventRange, limit: usize) -> Result<Vec<EventRow>, ReadError> {
        delegate!(self.events(range, limit))
    }

    async fn attempts(&self, sale_no: SaleNo) -> Result<Vec<AttemptsRow>, ReadError> {
        delegate!(self.attempts(sale_no))
    }

    async fn last_places(&self) -> Result<Vec<(SaleNo, EventPlace)>, ReadError> {
        delegate!(self.last_places())
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
