//! Every statement of the writer.

pub const INSERT_RESERVATION: &str = "INSERT INTO reservation VALUES \
    (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, 0, 0, ?8, ?9, ?10, NULL)";

/// The first line's units are part of the condition: a change that names other units than were reserved is refused.
pub const MOVE_RESERVATION: &str = "UPDATE reservation SET state = ?4 \
    WHERE serial = ?1 AND sale_no = ?2 AND state = ?3 AND item_index = ?5 AND units = ?6";
pub const CONFIRM_RESERVATION: &str = "UPDATE reservation SET state = 2, payment_ref = ?4 \
    WHERE serial = ?1 AND sale_no = ?2 AND state = ?3 AND item_index = ?5 AND units = ?6";

pub const SELECT_RESERVATION: &str = "SELECT serial, sale_no, buyer, idem_key, state, item_index, units, \
    unit_price_minor, refunded_units, restocked_units, more_lines, created_ms, expires_ms, payment_ref \
    FROM reservation WHERE serial = ?1";
pub const REFUND_RESERVATION: &str = "UPDATE reservation SET state = ?2, refunded_units = ?3, restocked_units = ?4, \
    more_lines = ?5 WHERE serial = ?1";
pub const EXISTS_RESERVATION: &str =
    "SELECT 1 FROM reservation WHERE serial = ?1 AND sale_no = ?2 AND state = ?3";

pub const INSERT_EVENT: &str = "INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
pub const INSERT_DECISION: &str = "INSERT INTO decision VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
pub const INSERT_NOTE: &str = "INSERT INTO note VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
pub const INSERT_BATCH: &str = "INSERT INTO batch VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

pub const PUT_SALE: &str = "INSERT INTO sale (sale_no, sale_id, state, definition, first_serial) \
    VALUES (?1, ?2, 'draft', ?3, ?4) \
    ON CONFLICT (sale_no) DO UPDATE SET sale_id = excluded.sale_id, definition = excluded.definition \
    WHERE state = 'draft'";
pub const DELETE_ITEMS: &str = "DELETE FROM item WHERE sale_no = ?1";
pub const INSERT_ITEM: &str = "INSERT INTO item VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0, 0, 0)";
/// Moves a sale's state; from which states is the condition.
pub const MOVE_SALE: &str =
    "UPDATE sale SET state = ?2 WHERE sale_no = ?1 AND instr(?3, state) > 0";
pub const RETIRE_SALE: &str = "UPDATE sale SET retired = 1, keys_after = first_serial \
    WHERE sale_no = ?1 AND retired = 0";
pub const SELECT_UNITS: &str = "SELECT item_index, unreleased_units, available_units FROM item \
    WHERE sale_no = ?1 ORDER BY item_index";
/// Nothing of a sale lies before its first serial.
pub const HAS_RESERVATIONS: &str = "SELECT 1 FROM reservation WHERE sale_no = ?1 \
    AND serial >= (SELECT first_serial FROM sale WHERE sale_no = ?1) LIMIT 1";
pub const SELECT_DEFINITION: &str = "SELECT definition FROM sale WHERE sale_no = ?1";
pub const REPLAN_SALE: &str =
    "UPDATE sale SET definition = ?2 WHERE sale_no = ?1 AND state = 'paused'";
/// Once: a second extension finds its row there. The reservation itself stays as the chain has it.
pub const EXTEND_RESERVATION: &str = "INSERT INTO extension SELECT serial, ?3 FROM reservation \
    WHERE serial = ?1 AND sale_no = ?2 AND state = 1 AND expires_ms < ?3";
pub const MOVE_ITEM: &str = "UPDATE item SET stock_units = stock_units + ?3, unreleased_units = unreleased_units + ?4, \
    available_units = available_units + ?5, reserved_units = reserved_units + ?6, sold_units = sold_units + ?7 \
    WHERE sale_no = ?1 AND item_index = ?2";

/// One step of filling `retired_key`: looks at the next ?3 reservations after ?2, whosesoever they are.
pub const INDEX_KEYS: &str = "INSERT OR IGNORE INTO retired_key SELECT sale_no, buyer, idem_key, serial \
    FROM (SELECT sale_no, buyer, idem_key, serial FROM reservation WHERE serial > ?2 ORDER BY serial LIMIT ?3) \
    WHERE sale_no = ?1";
pub const INDEX_STEP_END: &str = "SELECT max(serial), count(*) FROM \
    (SELECT serial FROM reservation WHERE serial > ?1 ORDER BY serial LIMIT ?2)";
pub const INDEX_MOVED: &str = "UPDATE sale SET keys_after = ?2 WHERE sale_no = ?1";
pub const INDEX_DONE: &str = "UPDATE sale SET retired = 2 WHERE sale_no = ?1 AND retired = 1";
pub const NEXT_RETIRING: &str =
    "SELECT sale_no, keys_after FROM sale WHERE retired = 1 ORDER BY sale_no LIMIT 1";

pub const LAST_BATCH: &str =
    "SELECT number, last_serial, chain FROM batch ORDER BY number DESC LIMIT 1";
