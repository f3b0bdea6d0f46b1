//! SQL of orders.

/// In: id, source, buyer, sale or NULL, currency, paid, paid at. Out: one row touched, or none if it was there.
pub const INSERT: &str = "INSERT INTO shop_order \
    (id, source, buyer, sale_id, currency, paid_minor, paid_at_ms, is_first) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT DO NOTHING";

/// In: order, line, item, title or NULL, quantity, unit price.
pub const INSERT_LINE: &str = "INSERT INTO shop_order_line \
    (order_id, line, item, title, quantity, unit_price_minor) VALUES ($1, $2, $3, $4, $5, $6)";

/// In: buyer, order, paid at. Out: one row touched if the buyer had none before.
pub const INSERT_FIRST: &str = "INSERT INTO buyer_first_order (buyer, order_id, paid_at_ms) \
    VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// In: paid at, buyer. An order that is told later may have been paid earlier.
pub const FIRST_WAS_EARLIER: &str =
    "UPDATE buyer_first_order SET paid_at_ms = $1 WHERE buyer = $2 AND paid_at_ms > $1";

/// In: order.
pub const MARK_FIRST: &str = "UPDATE shop_order SET is_first = 1 WHERE id = $1";

/// In: time, order. Out: one row touched if it was not received before.
pub const RECEIVE: &str =
    "UPDATE shop_order SET received_at_ms = $1 WHERE id = $2 AND received_at_ms IS NULL";

/// In: order. Out: the order, which nobody else changes until the end of the transaction.
pub const LOCK: &str = "UPDATE shop_order SET refunded_minor = refunded_minor WHERE id = $1 \
    RETURNING id, source, buyer, sale_id, currency, paid_minor, refunded_minor, paid_at_ms, \
    received_at_ms, is_first";

/// In: amount, order, amount. Out: one row touched unless it would be more than was paid.
pub const ADD_REFUND: &str = "UPDATE shop_order SET refunded_minor = refunded_minor + $1 \
    WHERE id = $2 AND refunded_minor + $3 <= paid_minor";

/// In: order, refund, amount, time, who told it. Out: one row touched, or none if it was there.
pub const INSERT_REFUND: &str = "INSERT INTO order_refund \
    (order_id, refund_ref, amount_minor, at_ms, told_by) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT DO NOTHING";

/// In: order, refund. Out: amount_minor, told_by.
pub const FIND_REFUND: &str =
    "SELECT amount_minor, told_by FROM order_refund WHERE order_id = $1 AND refund_ref = $2";

/// In: units in all, order, line, units in all. Out: one row touched unless so many or more were known.
pub const RAISE_REFUNDED_UNITS: &str = "UPDATE shop_order_line SET refunded_units = $1 \
    WHERE order_id = $2 AND line = $3 AND refunded_units < $4";

/// In: time, order, time. Out: one row touched if it was thought to be later.
pub const PAID_NO_LATER: &str =
    "UPDATE shop_order SET paid_at_ms = $1 WHERE id = $2 AND paid_at_ms > $3";

/// In: time, buyer, order.
pub const FIRST_PAID_AT_LAST: &str =
    "UPDATE buyer_first_order SET paid_at_ms = $1 WHERE buyer = $2 AND order_id = $3";

/// In: order. Out: the order.
pub const FIND: &str = "SELECT id, source, buyer, sale_id, currency, paid_minor, refunded_minor, \
    paid_at_ms, received_at_ms, is_first FROM shop_order WHERE id = $1";

/// In: buyer. Out: at_ms, NULL without an order.
pub const FIRST_PAID_AT: &str =
    "SELECT CAST(MIN(paid_at_ms) AS BIGINT) AS at_ms FROM shop_order WHERE buyer = $1";

/// In: buyer; paid at, paid at and id of the last one seen; how many. Out: orders, newest first.
pub const OF_BUYER: &str = "SELECT id, source, buyer, sale_id, currency, paid_minor, \
    refunded_minor, paid_at_ms, received_at_ms, is_first FROM shop_order \
    WHERE buyer = $1 AND (paid_at_ms < $2 OR (paid_at_ms = $3 AND id < $4)) \
    ORDER BY paid_at_ms DESC, id DESC LIMIT $5";

/// In: order. Out: its lines, in their order.
pub const LINES: &str = "SELECT line, item, title, quantity, unit_price_minor, refunded_units \
    FROM shop_order_line WHERE order_id = $1 ORDER BY line LIMIT 100";

/// In: order, how many. Out: its first refunds, in time.
pub const REFUNDS: &str = "SELECT refund_ref, amount_minor, at_ms FROM order_refund \
    WHERE order_id = $1 ORDER BY at_ms, refund_ref LIMIT $2";
