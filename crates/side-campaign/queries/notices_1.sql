-- What buyers are told. notice is the outbox: WAITING -> SENT | GIVEN_UP | WITHDRAWN; a notice that was withdrawn on its
-- way out ends SENT. `subject` is campaign:<id> or sale:<id>. `sealed` holds what must not be read from here (a telephone
-- number, a code, the text around it) and is emptied when the notice is done.
CREATE TABLE notice (
  id TEXT PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  is_urgent BIGINT NOT NULL,
  buyer TEXT,
  words TEXT,
  sealed TEXT,
  subject TEXT,
  state TEXT NOT NULL,
  due_at_ms BIGINT NOT NULL,
  next_attempt_ms BIGINT NOT NULL,
  give_up_ms BIGINT,
  attempts BIGINT NOT NULL DEFAULT 0,
  made_at_ms BIGINT NOT NULL,
  sent_at_ms BIGINT,
  opened_at_ms BIGINT,
  CHECK (state IN ('WAITING', 'SENT', 'GIVEN_UP', 'WITHDRAWN'))
);
CREATE INDEX notice_by_due ON notice (state, is_urgent, next_attempt_ms, id);
CREATE INDEX notice_by_buyer ON notice (buyer, sent_at_ms);
CREATE INDEX notice_by_subject ON notice (subject, kind);

-- An order that followed a notice: a fact, but for what went back of it since.
CREATE TABLE notice_order (
  order_id TEXT PRIMARY KEY,
  notice TEXT NOT NULL REFERENCES notice (id),
  subject TEXT,
  kind TEXT NOT NULL,
  buyer TEXT NOT NULL,
  currency TEXT NOT NULL,
  paid_minor BIGINT NOT NULL,
  refunded_minor BIGINT NOT NULL,
  is_first BIGINT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX notice_order_by_subject ON notice_order (subject, kind);

-- Who did something about what they were reminded of, other than opening a notice or buying.
CREATE TABLE notice_reaction (
  subject TEXT NOT NULL,
  buyer TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (subject, buyer)
);

-- Who asked to be reminded of a start, and when it was to be then.
CREATE TABLE reminder (
  subject TEXT NOT NULL,
  buyer TEXT NOT NULL,
  starts_at_ms BIGINT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (subject, buyer)
);

-- One sending of reminders: to all who asked, in pieces, `after` being the last buyer of the piece before.
-- PENDING <-> RESTING; PENDING -> DONE (and back, if the start moves away); any -> OVER.
CREATE TABLE reminder_round (
  subject TEXT NOT NULL,
  before_s BIGINT NOT NULL,
  starts_at_ms BIGINT NOT NULL,
  due_at_ms BIGINT NOT NULL,
  after_buyer TEXT NOT NULL,
  state TEXT NOT NULL,
  checked_at_ms BIGINT NOT NULL,
  PRIMARY KEY (subject, before_s),
  CHECK (state IN ('PENDING', 'RESTING', 'DONE', 'OVER'))
);
CREATE INDEX reminder_round_by_due ON reminder_round (state, due_at_ms);
CREATE INDEX reminder_round_by_check ON reminder_round (state, checked_at_ms);

-- A message of a merchant to buyers of certain orders, sent in pieces.
CREATE TABLE care (
  id TEXT PRIMARY KEY,
  campaign TEXT NOT NULL,
  words TEXT NOT NULL,
  paid_after_ms BIGINT NOT NULL,
  paid_before_ms BIGINT NOT NULL,
  only_sale TEXT,
  not_received BIGINT NOT NULL,
  after_ms BIGINT NOT NULL,
  after_order TEXT NOT NULL,
  state TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  CHECK (state IN ('PENDING', 'DONE'))
);
CREATE INDEX care_by_state ON care (state, id);

-- A telephone number being verified: OPEN -> VERIFIED | SUPERSEDED | REFUSED. Number and code only as keyed hashes.
CREATE TABLE verification (
  id TEXT PRIMARY KEY,
  buyer TEXT NOT NULL,
  phone_hash TEXT NOT NULL,
  code_hash TEXT NOT NULL,
  tries BIGINT NOT NULL DEFAULT 0,
  state TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  verified_at_ms BIGINT,
  CHECK (state IN ('OPEN', 'VERIFIED', 'SUPERSEDED', 'REFUSED'))
);
CREATE INDEX verification_by_buyer ON verification (buyer, state);
CREATE INDEX verification_by_expiry ON verification (expires_at_ms);

-- Whose number is verified: one number for a buyer, one buyer for a number.
CREATE TABLE verified_phone (
  buyer TEXT PRIMARY KEY,
  phone_hash TEXT NOT NULL UNIQUE,
  at_ms BIGINT NOT NULL
);

-- Codes asked for, by keyed hash of buyer, number and address; the scope's own row puts two at once in order.
CREATE TABLE verification_scope (
  scope TEXT PRIMARY KEY,
  touched_ms BIGINT NOT NULL
);
CREATE INDEX verification_scope_by_touch ON verification_scope (touched_ms);

CREATE TABLE verification_ask (
  id SERIAL_KEY,
  scope TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX verification_ask_by_scope ON verification_ask (scope, at_ms);
CREATE INDEX verification_ask_by_time ON verification_ask (at_ms);
