//! All SQL of grants.

use side_books::sql::{Get as _, Row, SqlError};

/// Begins what [`BACK_TO`] undoes.
pub(super) const SAVE: &str = "SAVEPOINT reward";
/// Undoes everything since [`SAVE`], and lets go of the rows.
pub(super) const BACK_TO: &str = "ROLLBACK TO SAVEPOINT reward";
/// Forgets the last [`SAVE`].
pub(super) const FORGET: &str = "RELEASE SAVEPOINT reward";

/// In: id, campaign, source, reward, buyer, order, kind, state, cost, hold key, verdict, rule, now. Touches no row where the source
/// was there before.
pub(super) const INSERT: &str = "INSERT INTO reward_grant (id, campaign, source, reward, buyer, order_id, kind, state, \
     cost_minor, hold_key, verdict, rule_snapshot, at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (campaign, source, reward) DO NOTHING";

/// In: campaign, source, reward. Out: state, given_id.
pub(super) const BY_SOURCE_AND_REWARD: &str =
    "SELECT state, given_id FROM reward_grant WHERE campaign = $1 AND source = $2 AND reward = $3";

/// In: grant. Out: all of it.
pub(super) const BY_ID: &str = "SELECT * FROM reward_grant WHERE id = $1";

/// In: campaign, source. Out: all grants of it that are not revoked.
pub(super) const BY_SOURCE: &str = "SELECT * FROM reward_grant \
     WHERE campaign = $1 AND source = $2 AND state <> 'REVOKED' ORDER BY id";

/// In: campaign, buyer. Out: all grants of it that are not revoked.
pub(super) const BY_BUYER: &str = "SELECT * FROM reward_grant \
     WHERE campaign = $1 AND buyer = $2 AND state <> 'REVOKED' ORDER BY id";

/// In: campaign, buyer, what the reasons begin with, most. Out: id, reward and order of grants that a verdict took back or
/// never let be given, and that were not given again.
pub(super) const TAKEN_BY_VERDICT: &str = "SELECT id, reward, order_id FROM reward_grant g \
     WHERE campaign = $1 AND buyer = $2 AND state = 'REVOKED' AND reason LIKE $3 || '%' \
     AND NOT EXISTS (SELECT 1 FROM reward_grant a WHERE a.campaign = g.campaign \
     AND a.source = 'again:' || g.id AND a.reward = g.reward) ORDER BY id LIMIT $4";

/// In: coupon or prize, grant. The grant has its id.
pub(super) const GIVE: &str = "UPDATE reward_grant SET given_id = $1 WHERE id = $2";

/// In: grant. Touches the row of a grant that waits, and only one of two at once does.
pub(super) const RELEASE: &str =
    "UPDATE reward_grant SET state = 'GIVEN' WHERE id = $1 AND state = 'WAITING'";

/// In: reason, now, grant, the state that it is in.
pub(super) const CLOSE: &str = "UPDATE reward_grant SET state = 'REVOKED', reason = $1, closed_at_ms = $2 \
     WHERE id = $3 AND state = $4";

/// In: reason, now, campaign, source, reward. Completes a grant that was denied when it was due.
pub(super) const CLOSE_DENIED: &str = "UPDATE reward_grant SET reason = $1, closed_at_ms = $2 \
     WHERE campaign = $3 AND source = $4 AND reward = $5 AND state = 'REVOKED' AND closed_at_ms IS NULL";

/// In: campaign, buyer, denied, allowed, reason, now. The last word stands.
pub(super) const PUT_OFF: &str = "INSERT INTO verdict_put_off (campaign, buyer, is_denied, is_allowed, reason, at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (campaign, buyer) DO UPDATE SET is_denied = excluded.is_denied, \
     is_allowed = excluded.is_allowed, reason = excluded.reason, at_ms = excluded.at_ms";

/// Out: the oldest that is put off and need not be any more.
pub(super) const FIRST_PUT_OFF: &str = "SELECT campaign, buyer, is_denied, is_allowed, reason, at_ms FROM verdict_put_off p \
     WHERE NOT EXISTS (SELECT 1 FROM frozen WHERE frozen.campaign = p.campaign) ORDER BY at_ms, campaign, buyer LIMIT 1";

/// In: campaign, buyer, at_ms. Touches no row where another took it, or a later word came.
pub(super) const TAKE_PUT_OFF: &str =
    "DELETE FROM verdict_put_off WHERE campaign = $1 AND buyer = $2 AND at_ms = $3";

/// In: how many more, campaign, reward. Touches the row where so many are left.
pub(super) const TAKE: &str = "UPDATE reward_stock SET given = given + $1 \
     WHERE campaign = $2 AND reward = $3 AND (total IS NULL OR given + $1 <= total)";

/// In: campaign, reward, total. Makes the row, or raises its total: the rules get only better for buyers.
pub(super) const RAISE: &str = "INSERT INTO reward_stock (campaign, reward, total, given) VALUES ($1, $2, $3, 0) \
     ON CONFLICT (campaign, reward) DO UPDATE SET total = excluded.total \
     WHERE reward_stock.total < excluded.total OR (excluded.total IS NULL AND reward_stock.total IS NOT NULL)";

/// In: campaign, reward, buyer, most. Touches the row where one more is allowed.
pub(super) const TAKE_FOR_BUYER: &str = "INSERT INTO reward_per_buyer (campaign, reward, buyer, given) \
     VALUES ($1, $2, $3, 1) ON CONFLICT (campaign, reward, buyer) \
     DO UPDATE SET given = reward_per_buyer.given + 1 WHERE reward_per_buyer.given + 1 <= $4";

/// In: campaign, reward.
pub(super) const PUT_BACK: &str =
    "UPDATE reward_stock SET given = given - 1 WHERE campaign = $1 AND reward = $2 AND given >= 1";

/// In: campaign, reward, buyer.
pub(super) const PUT_BACK_FOR_BUYER: &str = "UPDATE reward_per_buyer SET given = given - 1 \
     WHERE campaign = $1 AND reward = $2 AND buyer = $3 AND given >= 1";

/// The key of a grant's hold.
pub(crate) fn hold_key(grant_id: &str) -> String {
    format!("grant:{grant_id}")
}

/// A grant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) campaign: String,
    pub(super) source: String,
    pub(super) reward: String,
    pub(super) buyer: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) cost_minor: i64,
    pub(super) given_id: Option<String>,
    pub(super) rule_snapshot: String,
}

impl Stored {
    pub(super) fn read(row: &Row) -> Result<Self, SqlError> {
        Ok(Self {
            id: row.text("id")?,
            campaign: row.text("campaign")?,
            source: row.text("source")?,
            reward: row.text("reward")?,
            buyer: row.text("buyer")?,
            kind: row.text("kind")?,
            state: row.text("state")?,
            cost_minor: row.int("cost_minor")?,
            given_id: row.text_or_null("given_id")?,
            rule_snapshot: row.text("rule_snapshot")?,
        })
    }
}
