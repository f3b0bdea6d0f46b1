-- What was given: one row per campaign, source and reward, for ever; order_id: for which order, if for one. WAITING -> GIVEN | REVOKED; GIVEN -> REVOKED.
CREATE TABLE reward_grant (
  id TEXT PRIMARY KEY,
  campaign TEXT NOT NULL,
  source TEXT NOT NULL,
  reward TEXT NOT NULL,
  buyer TEXT NOT NULL,
  order_id TEXT,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  cost_minor BIGINT NOT NULL,
  hold_key TEXT,
  given_id TEXT,
  verdict TEXT,
  rule_snapshot TEXT NOT NULL,
  reason TEXT,
  at_ms BIGINT NOT NULL,
  closed_at_ms BIGINT,
  UNIQUE (campaign, source, reward),
  CHECK (kind IN ('coupon', 'gift')),
  CHECK (state IN ('WAITING', 'GIVEN', 'REVOKED')),
  CHECK (cost_minor >= 0 AND (cost_minor = 0 OR hold_key IS NOT NULL))
);
CREATE INDEX reward_grant_by_buyer ON reward_grant (campaign, buyer, state);
CREATE INDEX reward_grant_of_buyer ON reward_grant (buyer, at_ms);
CREATE INDEX reward_grant_by_order ON reward_grant (order_id);
CREATE INDEX reward_grant_by_state ON reward_grant (campaign, state, id);

-- Caches of reward_grant: how many are not revoked. total NULL: as many as the budget holds.
CREATE TABLE reward_stock (
  campaign TEXT NOT NULL,
  reward TEXT NOT NULL,
  total BIGINT,
  given BIGINT NOT NULL,
  PRIMARY KEY (campaign, reward),
  CHECK (given >= 0 AND (total IS NULL OR given <= total))
);

CREATE TABLE reward_per_buyer (
  campaign TEXT NOT NULL,
  reward TEXT NOT NULL,
  buyer TEXT NOT NULL,
  given BIGINT NOT NULL,
  PRIMARY KEY (campaign, reward, buyer),
  CHECK (given >= 0)
);

-- ISSUED -> LOCKED (order) -> USED; LOCKED -> ISSUED; ISSUED | LOCKED -> EXPIRED | REVOKED.
-- locked_until_ms is 0 where no order has it; turns counts the transactions that had the row to themselves.
CREATE TABLE coupon (
  id TEXT PRIMARY KEY,
  campaign TEXT NOT NULL,
  reward TEXT NOT NULL,
  title TEXT NOT NULL,
  buyer TEXT NOT NULL,
  grant_id TEXT NOT NULL UNIQUE REFERENCES reward_grant (id),
  source TEXT NOT NULL,
  face_minor BIGINT NOT NULL,
  threshold_minor BIGINT NOT NULL,
  currency TEXT NOT NULL,
  valid_from_ms BIGINT NOT NULL,
  valid_until_ms BIGINT NOT NULL,
  state TEXT NOT NULL,
  order_id TEXT,
  discount_minor BIGINT,
  locked_until_ms BIGINT NOT NULL DEFAULT 0,
  used_at_ms BIGINT,
  issued_at_ms BIGINT NOT NULL,
  turns BIGINT NOT NULL DEFAULT 0,
  CHECK (state IN ('ISSUED', 'LOCKED', 'USED', 'EXPIRED', 'REVOKED')),
  CHECK (face_minor >= 0 AND threshold_minor >= 0),
  CHECK (discount_minor IS NULL OR (discount_minor >= 0 AND discount_minor <= face_minor)),
  CHECK (state NOT IN ('LOCKED', 'USED') OR (order_id IS NOT NULL AND discount_minor IS NOT NULL))
);
CREATE INDEX coupon_by_buyer ON coupon (buyer, id);
CREATE INDEX coupon_by_campaign ON coupon (campaign, id);
CREATE INDEX coupon_by_campaign_buyer ON coupon (campaign, buyer, id);
CREATE INDEX coupon_by_order ON coupon (order_id);
CREATE INDEX coupon_due ON coupon (state, valid_until_ms);

-- DRAWN -> CLAIMED (address) -> FULFILLING (shipped) -> DELIVERED; CLAIMED -> DRAWN (address erased);
-- DRAWN -> EXPIRED; DRAWN | CLAIMED -> WITHDRAWN. address_until_ms: when a sealed address is erased by itself.
CREATE TABLE prize (
  id TEXT PRIMARY KEY,
  campaign TEXT NOT NULL,
  reward TEXT NOT NULL,
  title TEXT NOT NULL,
  buyer TEXT NOT NULL,
  grant_id TEXT NOT NULL UNIQUE REFERENCES reward_grant (id),
  source TEXT NOT NULL,
  place BIGINT,
  cost_minor BIGINT NOT NULL,
  state TEXT NOT NULL,
  claim_until_ms BIGINT NOT NULL,
  address_sealed TEXT,
  address_until_ms BIGINT,
  carrier TEXT,
  tracking TEXT,
  drawn_at_ms BIGINT NOT NULL,
  claimed_at_ms BIGINT,
  shipped_at_ms BIGINT,
  delivered_at_ms BIGINT,
  turns BIGINT NOT NULL DEFAULT 0,
  CHECK (state IN ('DRAWN', 'CLAIMED', 'FULFILLING', 'DELIVERED', 'EXPIRED', 'WITHDRAWN')),
  CHECK (state <> 'CLAIMED' OR address_sealed IS NOT NULL),
  CHECK (state NOT IN ('DRAWN', 'EXPIRED', 'WITHDRAWN') OR address_sealed IS NULL)
);
CREATE INDEX prize_by_buyer ON prize (buyer, id);
CREATE INDEX prize_by_campaign ON prize (campaign, id);
CREATE INDEX prize_due ON prize (state, claim_until_ms);
CREATE INDEX prize_address_due ON prize (address_until_ms);

-- Verdicts on buyers of frozen campaigns, to be followed once their budgets move again.
CREATE TABLE verdict_put_off (
  campaign TEXT NOT NULL,
  buyer TEXT NOT NULL,
  is_denied BIGINT NOT NULL,
  is_allowed BIGINT NOT NULL,
  reason TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, buyer)
);
CREATE INDEX verdict_put_off_by_time ON verdict_put_off (at_ms, campaign, buyer);
