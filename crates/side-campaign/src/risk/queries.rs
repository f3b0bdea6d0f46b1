//! Statements of verdicts.

/// In: id, campaign, rule, subject, verdict, is_shadow, evidence, found_at_ms. Out: id, if it is new, or was a shadow and
/// is none any more.
pub(super) const INSERT_VERDICT: &str = "INSERT INTO risk_verdict \
     (id, campaign, rule, subject, verdict, is_shadow, evidence, found_at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
     ON CONFLICT (campaign, rule, subject) DO UPDATE SET is_shadow = 0, verdict = excluded.verdict, \
     evidence = excluded.evidence, found_at_ms = excluded.found_at_ms \
     WHERE risk_verdict.is_shadow = 1 AND excluded.is_shadow = 0 AND risk_verdict.decision IS NULL \
     RETURNING id";

/// In: subject, campaign. Out: standing: 0 clear, 1 review, 2 deny.
pub(super) const STANDING: &str = "SELECT CAST(COALESCE(MAX(CASE COALESCE(decision, verdict) \
     WHEN 'DENY' THEN 2 WHEN 'REVIEW' THEN 1 ELSE 0 END), 0) AS BIGINT) AS standing \
     FROM risk_verdict WHERE subject = $1 AND campaign = $2 AND is_shadow = 0";

/// In: verdict or NULL, campaign, buyer. Keeps the cache.
pub(super) const SET_PARTICIPANT: &str =
    "UPDATE participant SET verdict = $1 WHERE campaign = $2 AND buyer = $3";

/// In: id. Out: the verdict.
pub(super) const FIND_VERDICT: &str = "SELECT id, campaign, rule, subject, verdict, is_shadow, evidence, found_at_ms, decided_by, \
     decided_at_ms, decision, reason FROM risk_verdict WHERE id = $1";

/// In: decision, who, at_ms, reason, id, decision that it replaces (empty: none). Rows: 0 if another stands.
pub(super) const DECIDE: &str = "UPDATE risk_verdict SET decision = $1, decided_by = $2, \
     decided_at_ms = $3, reason = $4 WHERE id = $5 AND COALESCE(decision, '') = $6";

/// In: verdict, subject, campaign, rule, decision, reason, who, at_ms.
pub(super) const INSERT_DECISION: &str = "INSERT INTO risk_decision \
     (verdict, subject, campaign, rule, decision, reason, decided_by, at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// In: campaign, found_at_ms and id to go on after, rule (empty: all), what stands (empty: all), limit.
/// Out: a page of verdicts.
pub(super) const LIST_VERDICTS: &str = "SELECT id, campaign, rule, subject, verdict, is_shadow, evidence, found_at_ms, decided_by, \
     decided_at_ms, decision, reason FROM risk_verdict \
     WHERE campaign = $1 AND (found_at_ms, id) > ($2, $3) AND ($4 = '' OR rule = $4) \
     AND ($5 = '' OR COALESCE(decision, verdict) = $5) ORDER BY found_at_ms, id LIMIT $6";

/// Out: per rule, shadow and what stands: how many.
pub(super) const COUNT_VERDICTS: &str = "SELECT rule, is_shadow, COALESCE(decision, verdict) AS stands, CAST(COUNT(*) AS BIGINT) AS verdicts \
     FROM risk_verdict GROUP BY rule, is_shadow, COALESCE(decision, verdict) \
     ORDER BY rule, is_shadow, stands LIMIT 200";

/// In: campaign, address hash, joined since, buyer who is left out, rule, is_shadow, limit.
/// Out: buyer, joined_at_ms, is_marked (a verdict of the rule is there already), newest first.
pub(super) const FROM_ADDRESS: &str = "SELECT p.buyer, p.joined_at_ms, CAST(CASE WHEN EXISTS (SELECT 1 \
     FROM risk_verdict v WHERE v.campaign = p.campaign AND v.rule = $5 AND v.subject = p.buyer \
     AND v.is_shadow <= $6) THEN 1 ELSE 0 END AS BIGINT) AS is_marked FROM participant p \
     WHERE p.campaign = $1 AND p.address_hash = $2 AND p.joined_at_ms >= $3 AND p.buyer <> $4 \
     ORDER BY p.joined_at_ms DESC LIMIT $7";

/// In: campaign, device hash, buyer who is left out, rule, is_shadow, limit. Out: as of [`FROM_ADDRESS`].
pub(super) const ON_DEVICE: &str = "SELECT p.buyer, p.joined_at_ms, CAST(CASE WHEN EXISTS (SELECT 1 \
     FROM risk_verdict v WHERE v.campaign = p.campaign AND v.rule = $4 AND v.subject = p.buyer \
     AND v.is_shadow <= $5) THEN 1 ELSE 0 END AS BIGINT) AS is_marked FROM participant p \
     WHERE p.campaign = $1 AND p.device_hash = $2 AND p.buyer <> $3 \
     ORDER BY p.joined_at_ms DESC LIMIT $6";

/// In: campaign, session, helper, owner, at_ms. Rows: 0 if it was there.
pub(super) const INSERT_HELP: &str = "INSERT INTO help (campaign, session, helper, owner, at_ms) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (campaign, session, helper) DO NOTHING";

/// In: campaign, helper, limit. Out: owner, newest first.
pub(super) const HELPED_BY: &str = "SELECT owner FROM help WHERE campaign = $1 AND helper = $2 \
     ORDER BY at_ms DESC LIMIT $3";

/// In: campaign, buyer, at_ms. The row is held even where it is there: who takes it out waits for this transaction.
pub(super) const INSERT_DUE: &str = "INSERT INTO ring_due (campaign, buyer, at_ms) VALUES ($1, $2, $3) \
     ON CONFLICT (campaign, buyer) DO UPDATE SET at_ms = excluded.at_ms";

/// Out: campaign, buyer of the first.
pub(super) const FIRST_DUE: &str =
    "SELECT campaign, buyer FROM ring_due ORDER BY at_ms, campaign, buyer LIMIT 1";

/// In: now, campaign, buyer. The look waits behind all others.
pub(super) const PUT_OFF_DUE: &str =
    "UPDATE ring_due SET at_ms = $1 WHERE campaign = $2 AND buyer = $3 AND at_ms <= $1";

/// In: campaign, buyer. Rows: 0 if another worker has it.
pub(super) const DELETE_DUE: &str = "DELETE FROM ring_due WHERE campaign = $1 AND buyer = $2";

/// In: order, buyer, limit. Out: campaign, reward, at_ms of what was given for it, and not taken back.
pub(super) const GRANTS_FOR: &str = "SELECT campaign, reward, at_ms FROM reward_grant \
     WHERE order_id = $1 AND buyer = $2 AND state <> 'REVOKED' ORDER BY campaign, at_ms DESC LIMIT $3";
