//! Proof that rewards balance: grants against holds, coupons, prizes and the counts that are kept of them.
//!
//! Reads what was committed and changes nothing. Each check finds the rows that break one rule, at most [`FINDINGS_MAX`].

use flash_types::side::BoxFuture;
use side_books::audit::{Finding, Prove};
use side_books::sql::{Get as _, Reader, Reads, SqlError, query};

/// Most findings of one check: a few name the cause.
pub const FINDINGS_MAX: i64 = 100;

/// A word for the rule, what breaks it, how.
pub type Found = (&'static str, String, String);

/// Checks everything; empty where all is right. On PostgreSQL the checks see one moment only inside of one transaction at
/// REPEATABLE READ, and each for itself otherwise: a finding under load is looked at twice.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn prove(reads: &mut impl Reads) -> Result<Vec<Found>, SqlError> {
    let mut found = Vec::new();
    for (code, sql) in CHECKS {
        for row in reads.rows(query(sql).bind(FINDINGS_MAX)).await? {
            found.push((*code, row.text("subject")?, row.text("detail")?));
        }
    }
    Ok(found)
}

/// The proof as the audit of the books asks for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rewards;

impl Prove for Rewards {
    fn name(&self) -> &'static str {
        "rewards"
    }

    fn prove<'a>(&'a self, reads: &'a mut Reader) -> BoxFuture<'a, Result<Vec<Finding>, SqlError>> {
        Box::pin(async move {
            let found = prove(reads).await?.into_iter();
            Ok(found
                .map(|(code, subject, detail)| Finding {
                    code,
                    subject,
                    detail,
                })
                .collect())
        })
    }
}

/// Each in: most; out: subject, detail.
const CHECKS: &[(&str, &str)] = &[
    ("reward_hold_sum", HOLD_SUM),
    ("reward_hold_state", HOLD_STATE),
    ("reward_hold_amount", HOLD_AMOUNT),
    ("reward_hold_stray", HOLD_STRAY),
    ("reward_given_once", GIVEN_ONCE),
    ("reward_stock_over", STOCK_OVER),
    ("reward_stock_count", STOCK_COUNT),
    ("reward_stock_missing", STOCK_MISSING),
    ("reward_buyer_count", BUYER_COUNT),
];

/// The cost of grants whose promise is open, against the open holds of coupons and gifts, by campaign.
const HOLD_SUM: &str = "SELECT c.campaign AS subject, \
     'open grants ' || CAST(c.promised AS TEXT) || ', open holds ' || CAST(c.held AS TEXT) AS detail \
     FROM (SELECT u.campaign AS campaign, CAST(SUM(u.promised) AS BIGINT) AS promised, CAST(SUM(u.held) AS BIGINT) AS held \
       FROM (SELECT g.campaign AS campaign, g.cost_minor AS promised, 0 AS held FROM reward_grant g \
         LEFT JOIN coupon k ON k.grant_id = g.id LEFT JOIN prize p ON p.grant_id = g.id \
         WHERE g.state = 'WAITING' OR (g.state = 'GIVEN' AND (k.state IN ('ISSUED', 'LOCKED') OR p.state IN ('DRAWN', 'CLAIMED'))) \
         UNION ALL SELECT h.campaign AS campaign, 0 AS promised, h.amount AS held FROM hold h \
         WHERE h.state = 'open' AND h.what IN ('coupon', 'gift') AND h.key LIKE 'grant:%') u GROUP BY u.campaign) c \
     WHERE c.promised <> c.held ORDER BY c.campaign LIMIT $1";

/// A grant's hold is open while its promise is, posted once it was kept, voided once it is gone.
const HOLD_STATE: &str = "SELECT w.id AS subject, 'hold is ' || w.is_so || ', not ' || w.should_be AS detail \
     FROM (SELECT g.id AS id, COALESCE(h.state, 'missing') AS is_so, CASE \
       WHEN g.state = 'REVOKED' THEN 'voided' WHEN g.state = 'WAITING' THEN 'open' \
       WHEN k.state IN ('ISSUED', 'LOCKED') OR p.state IN ('DRAWN', 'CLAIMED') THEN 'open' \
       WHEN k.state = 'USED' OR p.state IN ('FULFILLING', 'DELIVERED') THEN 'posted' ELSE 'voided' END AS should_be \
       FROM reward_grant g LEFT JOIN hold h ON h.key = g.hold_key \
       LEFT JOIN coupon k ON k.grant_id = g.id LEFT JOIN prize p ON p.grant_id = g.id WHERE g.cost_minor > 0) w \
     WHERE w.is_so <> w.should_be ORDER BY w.id LIMIT $1";

/// A used coupon spent what it took off, a shipped prize what it costs; every hold is as large as its grant's cost.
const HOLD_AMOUNT: &str = "SELECT g.id AS subject, \
     'held ' || CAST(h.amount AS TEXT) || ', posted ' || CAST(h.posted AS TEXT) || ', cost ' || CAST(g.cost_minor AS TEXT) AS detail \
     FROM reward_grant g JOIN hold h ON h.key = g.hold_key \
     LEFT JOIN coupon k ON k.grant_id = g.id LEFT JOIN prize p ON p.grant_id = g.id \
     WHERE h.amount <> g.cost_minor OR h.campaign <> g.campaign \
     OR (k.state = 'USED' AND h.posted <> k.discount_minor) \
     OR (p.state IN ('FULFILLING', 'DELIVERED') AND h.posted <> p.cost_minor) ORDER BY g.id LIMIT $1";

/// No hold under a grant's key without the grant.
const HOLD_STRAY: &str = "SELECT h.key AS subject, 'no grant has this hold' AS detail FROM hold h \
     LEFT JOIN reward_grant g ON g.hold_key = h.key WHERE h.key LIKE 'grant:%' AND g.id IS NULL ORDER BY h.key LIMIT $1";

/// A given grant has exactly one coupon or prize, its own buyer's, not taken back; one that waits has none; one that is
/// revoked has none that is usable.
const GIVEN_ONCE: &str = "SELECT g.id AS subject, g.state || ', coupon ' || COALESCE(k.state, 'none') || ', prize ' \
     || COALESCE(p.state, 'none') AS detail FROM reward_grant g \
     LEFT JOIN coupon k ON k.grant_id = g.id LEFT JOIN prize p ON p.grant_id = g.id WHERE NOT (CASE g.state \
       WHEN 'GIVEN' THEN (k.id IS NOT NULL AND p.id IS NULL AND g.kind = 'coupon' AND COALESCE(g.given_id, '') = k.id AND k.buyer = g.buyer \
           AND k.state <> 'REVOKED') \
         OR (p.id IS NOT NULL AND k.id IS NULL AND g.kind = 'gift' AND COALESCE(g.given_id, '') = p.id AND p.buyer = g.buyer \
           AND p.state NOT IN ('EXPIRED', 'WITHDRAWN')) \
       WHEN 'WAITING' THEN k.id IS NULL AND p.id IS NULL \
       ELSE COALESCE(k.state, 'REVOKED') = 'REVOKED' AND COALESCE(p.state, 'EXPIRED') IN ('EXPIRED', 'WITHDRAWN') END) \
     ORDER BY g.id LIMIT $1";

/// No more than there are.
const STOCK_OVER: &str = "SELECT s.campaign || '/' || s.reward AS subject, \
     CAST(COUNT(g.id) AS TEXT) || ' given of ' || CAST(s.total AS TEXT) AS detail \
     FROM reward_stock s JOIN reward_grant g ON g.campaign = s.campaign AND g.reward = s.reward AND g.state <> 'REVOKED' \
     WHERE s.total IS NOT NULL GROUP BY s.campaign, s.reward, s.total HAVING COUNT(g.id) > s.total \
     ORDER BY s.campaign, s.reward LIMIT $1";

/// The count of a reward is the count of its grants.
const STOCK_COUNT: &str = "SELECT s.campaign || '/' || s.reward AS subject, \
     'counted ' || CAST(s.given AS TEXT) || ', grants ' || CAST(COUNT(g.id) AS TEXT) AS detail \
     FROM reward_stock s LEFT JOIN reward_grant g \
     ON g.campaign = s.campaign AND g.reward = s.reward AND g.state <> 'REVOKED' \
     GROUP BY s.campaign, s.reward, s.given HAVING COUNT(g.id) <> s.given ORDER BY s.campaign, s.reward LIMIT $1";

/// Every grant is counted somewhere.
const STOCK_MISSING: &str = "SELECT g.id AS subject, 'is not counted' AS detail FROM reward_grant g \
     LEFT JOIN reward_stock s ON s.campaign = g.campaign AND s.reward = g.reward \
     LEFT JOIN reward_per_buyer b ON b.campaign = g.campaign AND b.reward = g.reward AND b.buyer = g.buyer \
     WHERE s.reward IS NULL OR b.buyer IS NULL ORDER BY g.id LIMIT $1";

/// The count of a buyer is the count of the buyer's grants.
const BUYER_COUNT: &str = "SELECT b.campaign || '/' || b.reward || '/' || b.buyer AS subject, \
     'counted ' || CAST(b.given AS TEXT) || ', grants ' || CAST(COUNT(g.id) AS TEXT) AS detail \
     FROM reward_per_buyer b LEFT JOIN reward_grant g \
     ON g.campaign = b.campaign AND g.reward = b.reward AND g.buyer = b.buyer AND g.state <> 'REVOKED' \
     GROUP BY b.campaign, b.reward, b.buyer, b.given HAVING COUNT(g.id) <> b.given \
     ORDER BY b.campaign, b.reward, b.buyer LIMIT $1";
