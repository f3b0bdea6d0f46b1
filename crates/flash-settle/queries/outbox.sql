-- What the webhooks were told, schema version 1. Apart from the store: losing this file repeats events, it loses none.
-- Only the process whose number is in `owner` writes.
--
-- Times are INTEGER milliseconds since 1970 (UTC). An event is named by its sale, generation and sequence; its body stays
-- in the store and is read again for every attempt but the first.

PRAGMA application_id = 1398033743;
PRAGMA user_version = 1;

-- One row: the number of the start that owns the relays.
CREATE TABLE owner (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    start_number INTEGER NOT NULL
) STRICT;

-- How far each webhook is in each sale: everything up to here was acknowledged, or is below.
CREATE TABLE relay (
    webhook    TEXT NOT NULL,
    sale_no    INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    PRIMARY KEY (webhook, sale_no)
) STRICT, WITHOUT ROWID;

-- Events set aside: one failed, or waits behind one of its reservation that did; or was given up.
CREATE TABLE parked (
    number           INTEGER PRIMARY KEY,  -- ascending; cursor of the list
    webhook          TEXT NOT NULL,
    sale_no          INTEGER NOT NULL,
    generation       INTEGER NOT NULL,
    sequence         INTEGER NOT NULL,
    reservation      INTEGER,              -- serial; NULL: an event of the sale itself
    at_ms            INTEGER NOT NULL,     -- when it happened
    attempts         INTEGER NOT NULL,
    first_attempt_ms INTEGER,
    next_attempt_ms  INTEGER NOT NULL,
    last_error       TEXT NOT NULL,
    dead_ms          INTEGER,              -- when it was given up; NULL: it is still tried
    UNIQUE (webhook, sale_no, generation, sequence)
) STRICT;

CREATE INDEX dead ON parked (number) WHERE dead_ms IS NOT NULL;
