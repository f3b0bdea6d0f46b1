-- What a rule found of a buyer, once per campaign; decision is a person's word (ALLOW or DENY) and wins over verdict.
CREATE TABLE risk_verdict (
  id TEXT PRIMARY KEY,
  campaign TEXT NOT NULL,
  rule TEXT NOT NULL,
  subject TEXT NOT NULL,
  verdict TEXT NOT NULL,
  is_shadow BIGINT NOT NULL,
  evidence TEXT NOT NULL,
  found_at_ms BIGINT NOT NULL,
  decided_by TEXT,
  decided_at_ms BIGINT,
  decision TEXT,
  reason TEXT,
  UNIQUE (campaign, rule, subject),
  CHECK (verdict IN ('ALLOW', 'REVIEW', 'DENY')),
  CHECK (decision IN ('ALLOW', 'DENY'))
);
CREATE INDEX risk_verdict_by_time ON risk_verdict (campaign, found_at_ms, id);
CREATE INDEX risk_verdict_by_subject ON risk_verdict (subject, found_at_ms, id);
CREATE INDEX risk_verdict_by_standing ON risk_verdict (rule, is_shadow, decision, verdict);

-- Every word of a person about a verdict, in order.
CREATE TABLE risk_decision (
  id SERIAL_KEY,
  verdict TEXT NOT NULL REFERENCES risk_verdict (id),
  subject TEXT NOT NULL,
  campaign TEXT NOT NULL,
  rule TEXT NOT NULL,
  decision TEXT NOT NULL,
  reason TEXT NOT NULL,
  decided_by TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX risk_decision_by_subject ON risk_decision (subject, at_ms, id);

-- Who helped whom.
CREATE TABLE help (
  campaign TEXT NOT NULL,
  session TEXT NOT NULL,
  helper TEXT NOT NULL,
  owner TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, session, helper)
);
CREATE INDEX help_by_helper ON help (campaign, helper, at_ms);

-- Buyers around whom a ring may have closed since somebody looked.
CREATE TABLE ring_due (
  campaign TEXT NOT NULL,
  buyer TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, buyer)
);
CREATE INDEX ring_due_by_time ON ring_due (at_ms, campaign, buyer);
