-- What was bought: confirmed reservations of the engine, under their ids, and the shop's other orders.
-- refunded_minor is a cache: the sum of order_refund.amount_minor, never more than paid_minor.
CREATE TABLE shop_order (
  id TEXT PRIMARY KEY,
  source TEXT NOT NULL,
  buyer TEXT NOT NULL,
  sale_id TEXT,
  currency TEXT NOT NULL,
  paid_minor BIGINT NOT NULL,
  refunded_minor BIGINT NOT NULL DEFAULT 0,
  paid_at_ms BIGINT NOT NULL,
  received_at_ms BIGINT,
  is_first BIGINT NOT NULL,
  CHECK (source IN ('engine', 'shop')),
  CHECK (refunded_minor >= 0 AND refunded_minor <= paid_minor)
);
CREATE INDEX shop_order_by_buyer ON shop_order (buyer, paid_at_ms, id);
CREATE INDEX shop_order_by_time ON shop_order (paid_at_ms, id);
CREATE INDEX shop_order_by_sale ON shop_order (sale_id, paid_at_ms);

CREATE TABLE shop_order_line (
  order_id TEXT NOT NULL REFERENCES shop_order (id),
  line BIGINT NOT NULL,
  item TEXT NOT NULL,
  title TEXT,
  quantity BIGINT NOT NULL,
  unit_price_minor BIGINT NOT NULL,
  refunded_units BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (order_id, line),
  CHECK (refunded_units >= 0 AND refunded_units <= quantity)
);

-- Money that went back: append-only. told_by: who told it, the engine by an event or the shop.
CREATE TABLE order_refund (
  order_id TEXT NOT NULL REFERENCES shop_order (id),
  refund_ref TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  at_ms BIGINT NOT NULL,
  told_by TEXT NOT NULL,
  PRIMARY KEY (order_id, refund_ref),
  CHECK (amount_minor >= 0),
  CHECK (told_by IN ('engine', 'shop'))
);

-- The order that entered the books as a buyer's first: one row decides between two that come at once.
CREATE TABLE buyer_first_order (
  buyer TEXT PRIMARY KEY,
  order_id TEXT NOT NULL,
  paid_at_ms BIGINT NOT NULL
);
