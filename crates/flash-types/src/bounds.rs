//! Every limit of the engine, in one place, and the proof that they agree with one another.

use std::time::Duration;

/// Longest id or idempotency key, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// Longest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Most headers in a request.
pub const HEADERS_MAX: usize = 64;
/// Longest request target, in bytes.
pub const URI_BYTES_MAX: usize = 2 * 1024;
/// Most lines in one purchase.
pub const LINES_MAX: usize = 20;
/// Most units in one line of a request.
pub const LINE_UNITS_MAX: u32 = 1_000;
/// Most units of one item in one purchase, after lines of the same item were summed.
pub const PURCHASE_UNITS_MAX: u32 = LINE_UNITS_MAX * LINES_MAX as u32;
/// Most items in a sale.
pub const ITEMS_MAX: usize = 500;
/// Most waves of an item, and most times at which a sale sells again what came back.
pub const WAVES_MAX: usize = 100;
/// Longest price protection, in days.
pub const PRICE_PROTECTION_DAYS_MAX: u32 = 365;
/// Highest price, in minor units.
pub const PRICE_MINOR_MAX: i64 = 1_000_000_000_000;
/// Shortest payment window, in seconds.
pub const PAYMENT_WINDOW_S_MIN: u32 = 1;
/// Longest payment window, in seconds (7 days).
pub const PAYMENT_WINDOW_S_MAX: u32 = 7 * 24 * 3600;
/// Highest rate that can be configured, per second.
pub const RATE_PER_S_MAX: u32 = 10_000_000;
/// Largest burst that can be configured.
pub const BURST_MAX: u32 = 10_000_000;
/// Longest title of a sale or an item, in bytes.
pub const TITLE_BYTES_MAX: usize = 256;
/// Most sales that are kept in memory.
pub const SALES_MAX: usize = 10_000;
/// Longest list that one page may hold.
pub const PAGE_ITEMS_MAX: usize = 200;
/// How long a request may take before it is told that nobody knows.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// Least time that an open reservation keeps after a restart (less only where its payment window is shorter).
pub const RESTART_GRACE: Duration = Duration::from_secs(60);

/// Most jobs that wait for the committer.
pub const COMMIT_QUEUE_JOBS_MAX: usize = 16_384;
/// Part of the queue that only confirm, cancel, refund, expiry and admin commands may fill.
pub const COMMIT_QUEUE_RESERVED_JOBS: usize = COMMIT_QUEUE_JOBS_MAX / 4;
/// Most jobs in one batch.
pub const BATCH_JOBS_MAX: usize = 1_024;
/// Most expiries in one batch.
pub const BATCH_EXPIRIES_MAX: usize = BATCH_JOBS_MAX / 4;
/// Most public connections by default.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Events, reservations among them, that one start of the process can number.
pub const SERIALS_PER_EPOCH: u64 = 1 << 32;
/// Of these, the last ones number events that a store makes by itself (a freeze that it finds).
pub const SERIALS_OF_STORE: u64 = 1 << 16;
/// Most changes in one batch of a Redis lane: so long other clients of that Redis wait for it.
pub const REDIS_BATCH_JOBS_MAX: usize = BATCH_JOBS_MAX;
/// Most starts that a store can live through: a serial stays below 2^53 and so is exact in JSON.
pub const EPOCH_MAX: u64 = 1 << 20;

const _: () = assert!(COMMIT_QUEUE_RESERVED_JOBS < COMMIT_QUEUE_JOBS_MAX);
const _: () = assert!(BATCH_JOBS_MAX <= COMMIT_QUEUE_JOBS_MAX);
const _: () = assert!(BATCH_EXPIRIES_MAX < BATCH_JOBS_MAX);
const _: () = assert!(REDIS_BATCH_JOBS_MAX <= BATCH_JOBS_MAX);
const _: () = assert!(SERIALS_OF_STORE < SERIALS_PER_EPOCH);
const _: () = assert!(PURCHASE_UNITS_MAX <= u16::MAX as u32);
const _: () = assert!(ITEMS_MAX <= u16::MAX as usize);
const _: () = assert!(HEAD_BYTES_MAX > URI_BYTES_MAX);
const _: () = assert!(ID_BYTES_MAX <= u8::MAX as usize);
// The dearest purchase there can be still fits an i64.
const _: () = assert!(PRICE_MINOR_MAX <= i64::MAX / PURCHASE_UNITS_MAX as i64 / LINES_MAX as i64);
// An exact serial in JSON.
const _: () = assert!(EPOCH_MAX * SERIALS_PER_EPOCH <= 1 << 53);
