//! SQL of the inbox.

/// Out: event_id, empty before the first one.
pub const CURSOR: &str = "SELECT event_id FROM inbox WHERE source = 'engine'";

/// In: the event up to which all is applied, its time, the event where the cursor stood. Out: one row touched, or none if
/// it stands elsewhere by now.
pub const ADVANCE: &str = "UPDATE inbox SET event_id = $1, at_ms = $2 \
    WHERE source = 'engine' AND event_id = $3";

/// In: reservation. Out: one row touched, or none if it was known.
pub const OPEN: &str =
    "INSERT INTO inbox_reservation (id, stage) VALUES ($1, 'waiting') ON CONFLICT DO NOTHING";

/// In: reservation. Out: a row if it still waits.
pub const WAITS: &str = "SELECT id FROM inbox_reservation WHERE id = $1 AND stage = 'waiting'";

/// In: reservation. Out: one row touched if it still waited.
pub const CLOSE: &str =
    "UPDATE inbox_reservation SET stage = 'closed' WHERE id = $1 AND stage = 'waiting'";
