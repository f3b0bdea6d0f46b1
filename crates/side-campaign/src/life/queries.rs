//! SQL of campaigns.

/// In: id. Out: the campaign with the definition of the version in force, or the draft.
pub(super) const FIND: &str = "SELECT c.id, c.state, c.version, c.published_at_ms, \
     COALESCE(v.definition, c.draft) AS definition, v.rules_hash \
     FROM campaign c LEFT JOIN campaign_version v ON v.campaign = c.id AND v.version = c.version \
     WHERE c.id = $1";

/// In: id, version. Out: as [`FIND`], of that version.
pub(super) const AT_VERSION: &str = "SELECT c.id, c.state, v.version, c.published_at_ms, \
     v.definition, v.rules_hash \
     FROM campaign c JOIN campaign_version v ON v.campaign = c.id WHERE c.id = $1 AND v.version = $2";

/// In: id. Out: the seed, sealed and in clear.
pub(super) const SEED: &str = "SELECT seed_sealed, seed FROM campaign WHERE id = $1";

/// In: id. Out: the row, which nobody else changes before this transaction ends.
pub(super) const LOCK: &str = "UPDATE campaign SET revision = revision + 1 WHERE id = $1 \
     RETURNING seed_sealed";

/// In: id, kind, draft, start, end, now. Touches no row where the id is taken.
pub(super) const INSERT_DRAFT: &str = "INSERT INTO campaign (id, kind, state, draft, starts_at_ms, ends_at_ms, created_at_ms) \
     VALUES ($1, $2, 'DRAFT', $3, $4, $5, $6) ON CONFLICT DO NOTHING";

/// In: kind, draft, start, end, id.
pub(super) const REPLACE_DRAFT: &str = "UPDATE campaign SET kind = $1, draft = $2, \
     starts_at_ms = $3, ends_at_ms = $4 WHERE id = $5 AND state = 'DRAFT'";

/// In: state to, due, id, state from.
pub(super) const MOVE: &str =
    "UPDATE campaign SET state = $1, due_at_ms = $2 WHERE id = $3 AND state = $4";

/// In: campaign, from, to, who, reason, now.
pub(super) const INSERT_MOVE: &str = "INSERT INTO campaign_move \
     (campaign, from_state, to_state, who, reason, at_ms) VALUES ($1, $2, $3, $4, $5, $6)";

/// In: sealed seed, its hash, now, id.
pub(super) const COMMIT_SEED: &str = "UPDATE campaign SET seed_sealed = $1, seed_hash = $2, \
     published_at_ms = $3 WHERE id = $4 AND seed_sealed IS NULL";

/// In: root, id.
pub(super) const COMMIT_ROOT: &str = "UPDATE campaign SET root = $1 WHERE id = $2";

/// In: seed in clear, id.
pub(super) const REVEAL_SEED: &str = "UPDATE campaign SET seed = $1 WHERE id = $2";

/// In: campaign, version, definition, hash, worst case, private hash, reason, who, now.
pub(super) const INSERT_VERSION: &str = "INSERT INTO campaign_version (campaign, version, definition, \
     rules_hash, worst_case, private_hash, reason, who, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// In: version, start, end, due, id, version before.
pub(super) const SET_VERSION: &str = "UPDATE campaign SET version = $1, starts_at_ms = $2, \
     ends_at_ms = $3, due_at_ms = $4 WHERE id = $5 AND version = $6";

/// In: now, id. Touches no row where it was done.
pub(super) const SET_PLAN_B: &str =
    "UPDATE campaign SET plan_b_at_ms = $1 WHERE id = $2 AND plan_b_at_ms IS NULL";

/// In: kind, campaign.
pub(super) const TOUCH_SINGLE: &str = "INSERT INTO campaign_single (kind, campaign) VALUES ($1, $2) \
     ON CONFLICT (kind) DO UPDATE SET campaign = EXCLUDED.campaign";

/// In: kind, id, start, end. Out: another one whose time overlaps.
pub(super) const OVERLAPPING: &str = "SELECT id FROM campaign WHERE kind = $1 AND id <> $2 \
     AND state IN ('PUBLISHED', 'WARMUP', 'RUNNING', 'PAUSED') \
     AND ends_at_ms > $3 AND starts_at_ms < $4 ORDER BY id LIMIT 1";

/// In: now, limit. Out: campaigns that time moves.
pub(super) const DUE: &str = "SELECT id FROM campaign WHERE due_at_ms <= $1 \
     AND state NOT IN ('ENDED', 'SETTLING') ORDER BY due_at_ms, id LIMIT $2";

/// In: now, limit. Out: campaigns that are settled, those first that waited longest.
pub(super) const TO_SETTLE: &str = "SELECT id FROM campaign WHERE due_at_ms <= $1 \
     AND state IN ('ENDED', 'SETTLING') ORDER BY due_at_ms, id LIMIT $2";

/// In: later, id, now.
pub(super) const POSTPONE: &str =
    "UPDATE campaign SET due_at_ms = $1 WHERE id = $2 AND due_at_ms <= $3";

/// In: campaign. Out: a row where a buyer has something of it.
pub(super) const HAS_GIVEN: &str = "SELECT key FROM hold WHERE campaign = $1 AND state = 'open' \
     AND what IN ('coupon', 'gift') LIMIT 1";

/// In: campaign, limit. Out: keys of promises that are open.
pub(super) const OPEN_HOLDS: &str =
    "SELECT key FROM hold WHERE campaign = $1 AND state = 'open' ORDER BY key LIMIT $2";

/// In: id. Out: everything that is shown of one.
pub(super) const SHOW: &str = "SELECT c.id, c.kind, c.state, c.version, c.draft, c.seed_hash, c.seed, c.root, \
     c.plan_b_at_ms, c.created_at_ms, c.published_at_ms, \
     v.definition, v.rules_hash, v.private_hash, v.worst_case \
     FROM campaign c LEFT JOIN campaign_version v ON v.campaign = c.id AND v.version = c.version \
     WHERE c.id = $1";

/// In: kind or '', state or '', published before (ms, id), limit. Out: those in public view, newest first.
pub(super) const LIST_PUBLIC: &str = "SELECT c.id, c.kind, c.state, c.version, c.seed_hash, \
     c.published_at_ms AS order_ms, v.definition, v.rules_hash \
     FROM campaign c JOIN campaign_version v ON v.campaign = c.id AND v.version = c.version \
     WHERE c.state IN ('PUBLISHED', 'WARMUP', 'RUNNING', 'PAUSED', 'ENDED', 'SETTLING', 'SETTLED') \
     AND (CAST($1 AS TEXT) = '' OR c.kind = $1) AND (CAST($2 AS TEXT) = '' OR c.state = $2) \
     AND (c.published_at_ms < $3 OR (c.published_at_ms = $3 AND c.id < $4)) \
     ORDER BY c.published_at_ms DESC, c.id DESC LIMIT $5";

/// In: kind or '', state or '', made before (ms, id), limit. Out: all, newest first.
pub(super) const LIST_ALL: &str = "SELECT c.id, c.kind, c.state, c.version, c.seed_hash, \
     c.created_at_ms AS order_ms, COALESCE(v.definition, c.draft) AS definition, v.rules_hash \
     FROM campaign c LEFT JOIN campaign_version v ON v.campaign = c.id AND v.version = c.version \
     WHERE (CAST($1 AS TEXT) = '' OR c.kind = $1) AND (CAST($2 AS TEXT) = '' OR c.state = $2) \
     AND (c.created_at_ms < $3 OR (c.created_at_ms = $3 AND c.id < $4)) \
     ORDER BY c.created_at_ms DESC, c.id DESC LIMIT $5";

/// In: campaign, after version, limit.
pub(super) const LIST_VERSIONS: &str = "SELECT version, definition, rules_hash, private_hash, worst_case, reason, \
     who, at_ms FROM campaign_version WHERE campaign = $1 AND version > $2 ORDER BY version LIMIT $3";

/// In: campaign, before number, limit.
pub(super) const LIST_NOTES: &str = "SELECT id, at_ms, who, what, subject, detail FROM audit_note \
     WHERE campaign = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
