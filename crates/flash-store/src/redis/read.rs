//! Reads of what is stored: for sales that left memory, and the admin log. Through a pool, apart from the lanes.

use std::sync::Arc;

use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use flash_types::{BuyerId, IdempotencyKey, PaymentRef, SaleNo, Serial};
use redis::RedisError;

use super::keys::{NOTE, SaleKeys, key_field};
use super::link::Linker;
use super::load::{self, LoadError};
use super::wire::{decision_of, note_of, record_of, reference_field};
use crate::{AdminNote, DecisionRow, ItemRow, Page, ReadError, ReservationFilter, ReservationRow};

/// Connections that reads may use at once.
const POOL_CONNECTIONS_MAX: usize = 8;
/// Reservations that one step of a list asks for.
const LIST_STEP: usize = 256;

pub type Connection = deadpool_redis::Connection;

/// The pool.
#[derive(Clone)]
pub struct Reader {
    pool: Pool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// The order of a retired sale's reservations.
pub type Order = Arc<Vec<u64>>;

/// Buyer and state are as asked for.
pub fn is_wanted(row: &ReservationRow, filter: ReservationFilter) -> bool {
    filter.buyer.is_none_or(|buyer| buyer == row.buyer)
        && filter.state.is_none_or(|state| state == row.state)
}

pub fn failed(error: impl std::fmt::Display) -> ReadError {
    ReadError(error.to_string())
}

impl Reader {
    pub fn new(linker: &Linker, timeout: std::time::Duration) -> Result<Self, String> {
        let (info, config) = linker.for_pool();
        let manager = Manager::new_with_config(info, config).map_err(|error| error.to_string())?;
        let pool = Pool::builder(manager)
            .max_size(POOL_CONNECTIONS_MAX)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(timeout),
                create: Some(timeout * 2),
                recycle: Some(timeout),
            })
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { pool })
    }

    pub async fn connection(&self) -> Result<Connection, ReadError> {
        self.pool.get().await.map_err(failed)
    }

    pub async fn reservation(
        &self,
        keys: &SaleKeys,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let mut connection = self.connection().await?;
        let record: Option<String> = redis::cmd("HGET")
            .arg(&keys.resv)
            .arg(serial.0)
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        let row = record.map(|text| record_of(sale_no, &serial.0.to_string(), &text));
        row.transpose().map_err(ReadError)
    }

    pub async fn reservation_by_key(
        &self,
        keys: &SaleKeys,
        sale_no: SaleNo,
        buyer: BuyerId,
        key: IdempotencyKey,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let mut connection = self.connection().await?;
        let mut field = String::new();
        key_field(buyer.as_str(), key.as_str(), &mut field);
        let serial: Option<u64> = redis::cmd("HGET")
            .arg(&keys.key)
            .arg(field)
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        drop(connection);
        match serial {
            Some(serial) => self.reservation(keys, sale_no, Serial(serial)).await,
            None => Ok(None),
        }
    }

    pub async fn payment_decision(
        &self,
        keys: &SaleKeys,
        sale_no: SaleNo,
        payment_ref: PaymentRef,
    ) -> Result<Option<DecisionRow>, ReadError> {
        let field = reference_field("payment", 0, payment_ref.as_str());
        let mut connection = self.connection().await?;
        let value: Option<String> = redis::cmd("HGET")
            .arg(&keys.reference)
            .arg(&field)
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        let row = value.map(|value| decision_of(sale_no, &field, &value));
        row.transpose().map_err(ReadError)
    }

    pub async fn decisions_of(
        &self,
        keys: &SaleKeys,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Vec<DecisionRow>, ReadError> {
        let mut connection = self.connection().await?;
        let listed: Option<String> = redis::cmd("HGET")
            .arg(&keys.reference)
            .arg(format!("of|{}", serial.0))
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        let fields: Vec<&str> = listed.as_deref().map_or_else(Vec::new, |listed| {
            listed
                .split(' ')
                .filter(|field| !field.is_empty())
                .collect()
        });
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<Option<String>> = redis::cmd("HMGET")
            .arg(&keys.reference)
            .arg(&fields)
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        let pairs = fields.iter().zip(values);
        pairs
            .map(|(field, value)| {
                let value = value.ok_or_else(|| format!("the decision {field} is missing"))?;
                decision_of(sale_no, field, &value)
            })
            .collect::<Result<_, String>>()
            .map_err(ReadError)
    }

    pub async fn items(&self, keys: &SaleKeys) -> Result<Vec<ItemRow>, ReadError> {
        let mut connection = self.connection().await?;
        match load::sale(&mut connection, keys).await.map_err(failed)? {
            Some((sale, _)) => Ok(sale.items),
            None => Err(ReadError(format!("{} is not there", keys.meta))),
        }
    }

    /// Serials of a sale in their order: the whole sale is scanned.
    pub async fn order(&self, keys: &SaleKeys) -> Result<Order, ReadError> {
        let mut connection = self.connection().await?;
        let (mut serials, mut cursor) = (Vec::new(), 0);
        loop {
            let (next, fields) = load::scan(&mut connection, &keys.resv, cursor)
                .await
                .map_err(failed)?;
            for (serial, _) in fields {
                serials.push(serial.parse().map_err(failed)?);
            }
            cursor = next;
            if cursor == 0 {
                serials.sort_unstable();
                serials.dedup();
                return Ok(Arc::new(serials));
            }
        }
    }

    /// A page of a sale, by its order.
    pub async fn reservations(
        &self,
        keys: &SaleKeys,
        sale_no: SaleNo,
        order: &[u64],
        filter: ReservationFilter,
        page: Page,
    ) -> Result<Vec<ReservationRow>, ReadError> {
        let mut connection = self.connection().await?;
        let from = order.partition_point(|serial| *serial <= page.after.0);
        let mut rows = Vec::new();
        for serials in order[from..].chunks(LIST_STEP) {
            let records: Vec<Option<String>> = redis::cmd("HMGET")
                .arg(&keys.resv)
                .arg(serials)
                .query_async(&mut connection)
                .await
                .map_err(failed)?;
            for (serial, record) in serials.iter().zip(records) {
                let Some(record) = record else { continue };
                let row = record_of(sale_no, &serial.to_string(), &record).map_err(ReadError)?;
                if is_wanted(&row, filter) {
                    rows.push(row);
                    if rows.len() == page.limit {
                        return Ok(rows);
                    }
                }
            }
        }
        Ok(rows)
    }

    /// The admin logs of these sales and of no sale, merged, ascending.
    pub async fn notes(
        &self,
        sales: &[SaleKeys],
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AdminNote)>, ReadError> {
        let mut connection = self.connection().await?;
        let mut notes = Vec::new();
        let streams = sales.iter().map(|keys| keys.note.as_str());
        for stream in std::iter::once(NOTE).chain(streams) {
            let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
                .arg(stream)
                .arg(format!("({after}-0"))
                .arg("+")
                .arg("COUNT")
                .arg(limit)
                .query_async(&mut connection)
                .await
                .map_err(failed)?;
            for (id, fields) in entries {
                let number = id.split('-').next().and_then(|number| number.parse().ok());
                let broken = || ReadError(format!("the note {id} of {stream} cannot be read"));
                let text = fields.get(1).ok_or_else(broken)?;
                let note = note_of(text).map_err(|_| broken())?;
                notes.push((number.ok_or_else(broken)?, note));
            }
        }
        notes.sort_unstable_by_key(|(number, _)| *number);
        notes.truncate(limit);
        Ok(notes)
    }

    pub async fn content(&self, keys: &SaleKeys) -> Result<Option<crate::SaleContent>, LoadError> {
        let mut connection = self.pool.get().await.map_err(|error| {
            LoadError::Redis(RedisError::from((
                redis::ErrorKind::Io,
                "no connection",
                error.to_string(),
            )))
        })?;
        let content = load::content(&mut connection, keys).await?;
        Ok(content.map(|(content, _)| content))
    }
}
