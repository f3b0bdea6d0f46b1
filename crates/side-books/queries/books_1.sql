-- Double entry. transfer, entry and hold are facts; account.balance is a cache that can be rebuilt from entry.
CREATE TABLE account (
  id TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  currency TEXT NOT NULL,
  may_go_negative BIGINT NOT NULL,
  balance BIGINT NOT NULL DEFAULT 0,
  CHECK (may_go_negative = 1 OR balance >= 0)
);
CREATE INDEX account_by_owner ON account (owner);

CREATE TABLE transfer (
  id SERIAL_KEY,
  key TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  reverses BIGINT UNIQUE REFERENCES transfer (id),
  rule_snapshot TEXT,
  at_ms BIGINT NOT NULL
);

-- Ids ascend per account in the order in which its balance changed: a row is written under the lock of its account.
CREATE TABLE entry (
  id SERIAL_KEY,
  transfer BIGINT NOT NULL REFERENCES transfer (id),
  account TEXT NOT NULL REFERENCES account (id),
  currency TEXT NOT NULL,
  delta BIGINT NOT NULL,
  UNIQUE (transfer, account),
  CHECK (delta <> 0)
);
CREATE INDEX entry_by_account ON entry (account, id);

-- A promise out of a budget: open -> posted | voided. amount = posted + what went back once it is closed.
CREATE TABLE hold (
  key TEXT PRIMARY KEY,
  campaign TEXT NOT NULL,
  what TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount BIGINT NOT NULL,
  posted BIGINT NOT NULL DEFAULT 0,
  state TEXT NOT NULL,
  opened_at_ms BIGINT NOT NULL,
  closed_at_ms BIGINT,
  CHECK (amount > 0 AND posted >= 0 AND posted <= amount),
  CHECK (state IN ('open', 'posted', 'voided'))
);
CREATE INDEX hold_by_campaign ON hold (campaign, state);

-- Campaigns whose books do not balance: their budgets move nothing until a person has looked.
CREATE TABLE frozen (
  campaign TEXT PRIMARY KEY,
  reason TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);

-- Findings that have frozen a campaign: each does so once, until it was put right.
CREATE TABLE frozen_finding (
  campaign TEXT NOT NULL,
  finding TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, finding)
);

-- What a command with an idempotency key was answered. No expiry.
CREATE TABLE command (
  scope TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  status BIGINT,
  answer TEXT,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (scope, key)
);

-- By which a process knows whether its key is the one that this database is sealed with.
CREATE TABLE seal_check (
  id BIGINT PRIMARY KEY,
  value TEXT NOT NULL,
  CHECK (id = 1)
);

-- Who did what to a campaign, and every decision of a reviewer.
CREATE TABLE audit_note (
  id SERIAL_KEY,
  at_ms BIGINT NOT NULL,
  who TEXT NOT NULL,
  what TEXT NOT NULL,
  campaign TEXT,
  subject TEXT,
  detail TEXT NOT NULL
);
CREATE INDEX audit_note_by_campaign ON audit_note (campaign, id);
