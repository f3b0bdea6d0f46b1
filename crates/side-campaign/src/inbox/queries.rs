//! SQL of the inbox.

/// Out: event_id, empty before the first one.
pub const CURSOR: &str = "SELECT event_id FROM inbox WHERE source = 'engine'";

/// In: the event up to which all is applied, its time, the event where the cursor stood. Out: one row touched, or none if
/// it stands elsewhere by now.
pub const ADVANCE: &str = "UPDATE inbox SET event_id = $1, at_ms = $2 \
    WHERE source = 'engine' AND event_id = $3";

/// In: reservation, until when. Out: one row touched, or none if it was known.
pub const OPEN: &str = "INSERT INTO inbox_reservation (id, stage, expires_at_ms) VALUES ($1, 'waiting', $2) \
    ON CONFLICT DO NOTHING";

/// In: until when, reservation. Out: one row touched if it still waits, and longer than was known.
pub const EXTEND: &str = "UPDATE inbox_reservation SET expires_at_ms = $1 \
    WHERE id = $2 AND stage = 'waiting' AND expires_at_ms < $1";

/// In: reservation. Out: one row touched if it still waited.
pub const CLOSE: &str =
    "UPDATE inbox_reservation SET stage = 'closed' WHERE id = $1 AND stage = 'waiting'";
