-- Campaigns: where each stands. state, version and the times are what the newest move and version say, kept here so that one
-- row tells it; the facts are campaign_move and campaign_version.
CREATE TABLE campaign (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  -- In force; 0 for a draft.
  version BIGINT NOT NULL DEFAULT 0,
  -- Definition as JSON while it is a draft; what was published then.
  draft TEXT NOT NULL,
  -- Counts every change of this row: who adds one has the row to itself until the transaction ends.
  revision BIGINT NOT NULL DEFAULT 0,
  starts_at_ms BIGINT NOT NULL,
  ends_at_ms BIGINT NOT NULL,
  -- When the step has to look at it again; NULL for never.
  due_at_ms BIGINT,
  -- 32 bytes as hexadecimal digits, sealed; SHA-256 of the bytes; in clear once it is settled.
  seed_sealed TEXT,
  seed_hash TEXT,
  seed TEXT,
  -- What the kind committed to.
  root TEXT,
  plan_b_at_ms BIGINT,
  created_at_ms BIGINT NOT NULL,
  published_at_ms BIGINT
);
CREATE INDEX campaign_by_created ON campaign (created_at_ms, id);
CREATE INDEX campaign_by_published ON campaign (published_at_ms, id);
CREATE INDEX campaign_by_due ON campaign (due_at_ms, id);
CREATE INDEX campaign_by_kind ON campaign (kind, state);

-- Facts: the rules as they were in force from then on.
CREATE TABLE campaign_version (
  campaign TEXT NOT NULL REFERENCES campaign (id),
  version BIGINT NOT NULL,
  definition TEXT NOT NULL,
  rules_hash TEXT NOT NULL,
  -- The most that it can cost, as JSON.
  worst_case TEXT NOT NULL,
  -- SHA-256 of what is not shown to buyers, with a salt.
  private_hash TEXT NOT NULL,
  reason TEXT NOT NULL,
  who TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, version)
);

-- Facts: every change of state.
CREATE TABLE campaign_move (
  id SERIAL_KEY,
  campaign TEXT NOT NULL REFERENCES campaign (id),
  from_state TEXT NOT NULL,
  to_state TEXT NOT NULL,
  who TEXT NOT NULL,
  reason TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX campaign_move_by_campaign ON campaign_move (campaign, id);

-- Touched by whoever publishes or lengthens a campaign of a kind that may be open once at a time: one after the other.
CREATE TABLE campaign_single (
  kind TEXT PRIMARY KEY,
  campaign TEXT NOT NULL
);
