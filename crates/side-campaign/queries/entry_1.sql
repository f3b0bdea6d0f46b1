-- Who takes part. verdict is a cache of what risk_verdict says of this buyer: NULL, REVIEW or DENY. Addresses, devices and
-- phone numbers are keyed hashes.
CREATE TABLE participant (
  campaign TEXT NOT NULL,
  buyer TEXT NOT NULL,
  joined_at_ms BIGINT NOT NULL,
  is_new BIGINT NOT NULL,
  version BIGINT NOT NULL,
  address_hash TEXT,
  device_hash TEXT,
  phone_hash TEXT,
  verdict TEXT,
  PRIMARY KEY (campaign, buyer)
);
CREATE INDEX participant_by_time ON participant (campaign, joined_at_ms, buyer);
CREATE INDEX participant_by_verdict ON participant (campaign, verdict, joined_at_ms, buyer);
CREATE INDEX participant_by_address ON participant (campaign, address_hash, joined_at_ms);
CREATE INDEX participant_by_device ON participant (campaign, device_hash, joined_at_ms);
CREATE INDEX participant_by_buyer ON participant (buyer, joined_at_ms, campaign);

-- How many take part: every entry goes through this row, one after the other.
CREATE TABLE entry_count (
  campaign TEXT PRIMARY KEY,
  participants BIGINT NOT NULL,
  CHECK (participants >= 0)
);

-- Tasks that the storefront reported as done.
CREATE TABLE sign_up (
  campaign TEXT NOT NULL,
  buyer TEXT NOT NULL,
  task TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, buyer, task)
);
CREATE INDEX sign_up_by_buyer ON sign_up (buyer, at_ms);

-- Who may not take part; list is buyers, addresses or devices; value of the latter two is a keyed hash.
CREATE TABLE block_entry (
  campaign TEXT NOT NULL,
  list TEXT NOT NULL,
  value TEXT NOT NULL,
  reason TEXT NOT NULL,
  who TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, list, value)
);

-- What buyers were refused; only the first of a buyer and day (UTC) are kept, all are counted.
CREATE TABLE refusal (
  id SERIAL_KEY,
  buyer TEXT NOT NULL,
  campaign TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detail TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX refusal_by_buyer ON refusal (buyer, at_ms, id);
CREATE INDEX refusal_by_campaign ON refusal (campaign, at_ms);
CREATE TABLE refusal_count (
  buyer TEXT NOT NULL,
  day BIGINT NOT NULL,
  refusals BIGINT NOT NULL,
  last_at_ms BIGINT NOT NULL,
  PRIMARY KEY (buyer, day)
);
