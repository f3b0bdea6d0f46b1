-- From schema version 1 to 2: more kinds of decisions; reservations that are given more time to pay.
-- The statements that make something are those of schema.sql, letter for letter.
DROP VIEW v_decision;
DROP VIEW v_reservation;
DROP INDEX decision_by_reservation;
ALTER TABLE decision RENAME TO decision_1;
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
INSERT INTO decision SELECT * FROM decision_1;
DROP TABLE decision_1;
CREATE INDEX decision_by_reservation ON decision (reservation) WHERE reservation IS NOT NULL;
CREATE TABLE extension (
    serial     INTEGER PRIMARY KEY,      -- of the reservation
    expires_ms INTEGER NOT NULL          -- until when it is kept unpaid, in place of its own
) STRICT;
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
CREATE VIEW v_decision AS
SELECT sale.sale_id, kind, reference, outcome, 'r' || sale_no || '-' || reservation AS reservation_id, detail
FROM decision JOIN sale USING (sale_no);
