-- The store of one Stampede node, schema version 2. Made for programs, readable by people: `sqlite3 stampede.db`,
-- then the views v_sale, v_item, v_reservation, v_event, v_decision. Only the serving process writes.
--
-- Times are INTEGER milliseconds since 1970 (UTC). Money is in minor units. A serial numbers an event: the count of
-- starts of the process times 2^32, plus a count; a reservation bears the serial of the event that made it.
-- The law of the books, per item: stock = unreleased + available + reserved + sold, none below zero.

PRAGMA application_id = 1398033744; -- 'STMP'
PRAGMA user_version = 2;

-- One row for each start of the process.
CREATE TABLE start (
    epoch   INTEGER PRIMARY KEY,         -- 1, 2, 3 …: the upper part of every serial of that start
    program TEXT NOT NULL                -- version of the program
) STRICT;

-- One row for each batch of changes that became durable together. Numbers have no gaps.
CREATE TABLE batch (
    number       INTEGER PRIMARY KEY,    -- ascending by one, over all starts
    at_ms        INTEGER NOT NULL,       -- when it was built
    first_serial INTEGER NOT NULL,       -- serial of its first change
    last_serial  INTEGER NOT NULL,       -- serial of its last change
    jobs         INTEGER NOT NULL,       -- how many changes it holds: rows of reservation, event and note in that range
    chain        INTEGER NOT NULL        -- XXH3-64 over the previous chain value and what never changes of its rows
) STRICT;

-- One row for each sale.
CREATE TABLE sale (
    sale_no      INTEGER PRIMARY KEY,    -- the number in reservation ids: r<sale_no>-<serial>
    sale_id      TEXT NOT NULL UNIQUE,   -- its name
    state        TEXT NOT NULL CHECK (state IN ('draft', 'published', 'open', 'paused', 'closed', 'frozen')),
    definition   TEXT NOT NULL,          -- the plan as published, JSON; the counters in item tell the stock
    first_serial INTEGER NOT NULL,       -- serial of the change that made it: nothing of it lies before
    retired      INTEGER NOT NULL DEFAULT 0 CHECK (retired BETWEEN 0 AND 2),
                                         -- 0 in memory; 1 left memory, retired_key is being filled; 2 it is filled
    keys_after   INTEGER NOT NULL DEFAULT 0 -- while retired = 1: serial up to which retired_key is filled
) STRICT;

-- One row for each item of a sale: where its units are.
CREATE TABLE item (
    sale_no             INTEGER NOT NULL,
    item_index          INTEGER NOT NULL,   -- place in the definition, from 0
    item                TEXT NOT NULL,      -- its name
    units_per_buyer_max INTEGER,            -- most units for one buyer; NULL: no limit
    stock_units         INTEGER NOT NULL CHECK (stock_units >= 0),
    unreleased_units    INTEGER NOT NULL CHECK (unreleased_units >= 0),
    available_units     INTEGER NOT NULL CHECK (available_units >= 0),
    reserved_units      INTEGER NOT NULL CHECK (reserved_units >= 0),
    sold_units          INTEGER NOT NULL CHECK (sold_units >= 0),
    PRIMARY KEY (sale_no, item_index),
    CONSTRAINT books_balance
        CHECK (stock_units = unreleased_units + available_units + reserved_units + sold_units)
) STRICT, WITHOUT ROWID;

-- One row for each reservation; at the same time its event `reservation.reserved` (view v_event).
-- Rows are only ever appended; no index on what clients send: the engine holds uniqueness in memory.
CREATE TABLE reservation (
    serial           INTEGER PRIMARY KEY,
    sale_no          INTEGER NOT NULL,
    buyer            TEXT NOT NULL,
    idem_key         TEXT NOT NULL,      -- the buyer's idempotency key that won
    state            INTEGER NOT NULL,   -- 1 reserved, 2 confirmed, 3 released, 4 expired, 5 refunded
    item_index       INTEGER NOT NULL,   -- first line: which item,
    units            INTEGER NOT NULL,   --   how many,
    unit_price_minor INTEGER NOT NULL,   --   at which price,
    refunded_units   INTEGER NOT NULL,   --   of these paid back,
    restocked_units  INTEGER NOT NULL,   --   of those back in stock
    more_lines       TEXT,               -- further lines: [[item_index,units,unit_price_minor,refunded,restocked],…]
    created_ms       INTEGER NOT NULL,
    expires_ms       INTEGER NOT NULL,   -- until when it is kept unpaid
    payment_ref      TEXT                -- the payment that confirmed it
) STRICT;

-- One row for each reservation that was given more time to pay. Rows of reservation stay as the chain of batches has them.
CREATE TABLE extension (
    serial     INTEGER PRIMARY KEY,      -- of the reservation
    expires_ms INTEGER NOT NULL          -- until when it is kept unpaid, in place of its own
) STRICT;

-- One row for every other change, in the order in which they took effect.
CREATE TABLE event (
    serial      INTEGER PRIMARY KEY,
    sale_no     INTEGER NOT NULL,
    type        TEXT NOT NULL,           -- as on the wire; besides: sale.drafted, sale.retired
    at_ms       INTEGER NOT NULL,
    reservation INTEGER,                 -- serial of the reservation that it changed
    reference   TEXT,                    -- payment, refund or command key that it answered
    data        TEXT                     -- its facts as JSON; units are [[item_index,units],…]
) STRICT;

-- The answer that a reference got: the same question gets it again.
CREATE TABLE decision (
    sale_no     INTEGER NOT NULL,
    kind        TEXT NOT NULL,           -- payment, refund, stock_change, wave, price_protection
    reference   TEXT NOT NULL,           -- payment_ref, refund_ref, the command's key, the wave's name, the item_index
    scope       INTEGER NOT NULL,        -- where the reference is unique: payment 0 (the sale), refund and price
                                         -- protection the reservation, stock change and wave the item_index
    reservation INTEGER,                 -- NULL for stock changes and waves
    outcome     TEXT NOT NULL CHECK (outcome IN ('done', 'taken', 'refused_expired', 'refused_conflict')),
    detail      TEXT,                    -- refund {"restock":…,"lines":[[item_index,units],…]}
                                         -- stock change {"item":…,"asked":…,"applied":…}, wave {"item":…,"units":…}
                                         -- price protection {"units":…,"paid":…,"price":…}
    PRIMARY KEY (sale_no, kind, reference, scope)
) STRICT, WITHOUT ROWID;
CREATE INDEX decision_by_reservation ON decision (reservation) WHERE reservation IS NOT NULL;

-- Keys of sales that left memory. Filled in small steps after the sale was retired.
CREATE TABLE retired_key (
    sale_no  INTEGER NOT NULL,
    buyer    TEXT NOT NULL,
    idem_key TEXT NOT NULL,
    serial   INTEGER NOT NULL,           -- the reservation that the key won
    PRIMARY KEY (sale_no, buyer, idem_key)
) STRICT, WITHOUT ROWID;

-- Who did what through the admin API. Append-only.
CREATE TABLE note (
    number  INTEGER PRIMARY KEY,         -- a serial
    sale_no INTEGER NOT NULL,            -- 0 where no sale is meant
    at_ms   INTEGER NOT NULL,
    who     TEXT NOT NULL,               -- name of the admin key
    command TEXT NOT NULL,
    sale_id TEXT,
    outcome TEXT NOT NULL,               -- ok, or the refusal
    detail  TEXT NOT NULL                -- the command's body, shortened
) STRICT;
CREATE TRIGGER note_is_never_changed BEFORE UPDATE ON note
BEGIN SELECT RAISE(ABORT, 'the admin log is append-only'); END;
CREATE TRIGGER note_is_never_deleted BEFORE DELETE ON note
BEGIN SELECT RAISE(ABORT, 'the admin log is append-only'); END;

-- ---- for people ----

CREATE VIEW v_sale AS
SELECT sale_no, sale_id, state, retired,
       json_extract(definition, '$.title') AS title,
       json_extract(definition, '$.starts_at') AS starts_at,
       json_extract(definition, '$.ends_at') AS ends_at
FROM sale;

CREATE VIEW v_item AS
SELECT sale.sale_id, item.item, stock_units, unreleased_units, available_units, reserved_units, sold_units,
       stock_units - unreleased_units - available_units - reserved_units - sold_units AS imbalance_units
FROM item JOIN sale USING (sale_no);

CREATE VIEW v_reservation AS
SELECT 'r' || sale_no || '-' || serial AS reservation_id, sale.sale_id, buyer, idem_key,
       CASE reservation.state WHEN 1 THEN 'reserved' WHEN 2 THEN 'confirmed' WHEN 3 THEN 'released'
            WHEN 4 THEN 'expired' WHEN 5 THEN 'refunded' ELSE 'broken' END AS state,
       item.item, units, unit_price_minor, refunded_units, restocked_units, more_lines,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', ifnull(extension.expires_ms, reservation.expires_ms) / 1000.0, 'unixepoch')
           AS expires_at,
       payment_ref
FROM reservation
LEFT JOIN extension USING (serial)
LEFT JOIN sale USING (sale_no)
LEFT JOIN item USING (sale_no, item_index);

CREATE VIEW v_event AS
SELECT serial, sale_no, 'reservation.reserved' AS type,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_ms / 1000.0, 'unixepoch') AS at,
       'r' || sale_no || '-' || serial AS reservation_id, idem_key AS reference,
       json_object('units', json_array(json_array(item_index, units)), 'more_lines', json(more_lines)) AS data
FROM reservation
UNION ALL
SELECT serial, sale_no, type, strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch'),
       'r' || sale_no || '-' || reservation, reference, data
FROM event
ORDER BY serial;

CREATE VIEW v_decision AS
SELECT sale.sale_id, kind, reference, outcome, 'r' || sale_no || '-' || reservation AS reservation_id, detail
FROM decision JOIN sale USING (sale_no);
