//! SQL of the audit: pages by key, each an input of what was last seen and a limit.

/// Balances that are not the sum of their entries are made it.
pub(super) const REBUILD: &str = "UPDATE account SET balance = \
     (SELECT CAST(COALESCE(SUM(e.delta), 0) AS BIGINT) FROM entry e WHERE e.account = account.id) \
     WHERE balance <> (SELECT CAST(COALESCE(SUM(e.delta), 0) AS BIGINT) FROM entry e WHERE e.account = account.id)";

/// account, id of an entry, limit -> entries by account and id, with their accounts.
pub(super) const ENTRIES_BY_ACCOUNT: &str = "SELECT e.account, e.id, e.currency, e.delta, \
     a.currency AS its_currency, a.may_go_negative, a.balance \
     FROM entry e JOIN account a ON a.id = e.account \
     WHERE (e.account, e.id) > ($1, $2) ORDER BY e.account, e.id LIMIT $3";

/// -> the number of accounts.
pub(super) const ACCOUNTS: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM account";

/// limit -> accounts that hold something without an entry.
pub(super) const WITHOUT_ENTRIES: &str = "SELECT a.id, a.balance FROM account a WHERE a.balance <> 0 \
     AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.account = a.id) ORDER BY a.id LIMIT $1";

/// id of a transfer, limit -> transfers by id, once per leg.
pub(super) const LEGS_BY_TRANSFER: &str = "SELECT t.id, t.key, e.currency, e.delta \
     FROM transfer t LEFT JOIN entry e ON e.transfer = t.id \
     WHERE t.id > $1 ORDER BY t.id LIMIT $2";

/// key, limit -> promises by key, with what their transfers moved.
pub(super) const HOLDS: &str = "SELECT h.key, h.amount, h.posted, h.state, \
     o.delta AS opened, p.delta AS kept, s.delta AS spent, v.delta AS voided \
     FROM hold h \
     LEFT JOIN transfer ot ON ot.key = 'hold|' || h.key \
     LEFT JOIN entry o ON o.transfer = ot.id AND o.account = 'budget:' || h.campaign || ':held' \
     LEFT JOIN transfer pt ON pt.key = 'post|' || h.key \
     LEFT JOIN entry p ON p.transfer = pt.id AND p.account = 'budget:' || h.campaign || ':held' \
     LEFT JOIN entry s ON s.transfer = pt.id AND s.account = 'budget:' || h.campaign || ':spent' \
     LEFT JOIN transfer vt ON vt.key = 'void|' || h.key \
     LEFT JOIN entry v ON v.transfer = vt.id AND v.account = 'budget:' || h.campaign || ':held' \
     WHERE h.key > $1 ORDER BY h.key LIMIT $2";

/// limit -> transfers of promises that are not there.
pub(super) const WITHOUT_HOLD: &str = "SELECT t.key FROM transfer t \
     WHERE t.kind IN ('hold', 'post', 'void', 'recover') \
     AND t.key = t.kind || '|' || SUBSTR(t.key, LENGTH(t.kind) + 2) \
     AND NOT EXISTS (SELECT 1 FROM hold h WHERE h.key = SUBSTR(t.key, LENGTH(t.kind) + 2)) \
     ORDER BY t.id LIMIT $1";

/// owner, limit -> per campaign with a budget: what its accounts hold, and what its promises say.
pub(super) const BUDGETS: &str = "SELECT a.owner, a.balance AS held, \
     (SELECT s.balance FROM account s WHERE s.id = 'budget:' || a.owner || ':spent') AS spent, \
     (SELECT CAST(COALESCE(SUM(h.amount), 0) AS BIGINT) FROM hold h \
        WHERE h.campaign = a.owner AND h.state = 'open') AS open_holds, \
     (SELECT CAST(COALESCE(SUM(h.posted), 0) AS BIGINT) FROM hold h \
        WHERE h.campaign = a.owner AND h.state = 'posted') AS posted, \
     (SELECT CAST(COALESCE(SUM(e.delta), 0) AS BIGINT) FROM entry e JOIN transfer t ON t.id = e.transfer \
        WHERE e.account = 'budget:' || a.owner || ':spent' AND t.kind = 'recover') AS recovered \
     FROM account a WHERE a.kind = 'budget' AND a.id = 'budget:' || a.owner || ':held' AND a.owner > $1 \
     ORDER BY a.owner LIMIT $2";

/// limit -> keys that were taken and not answered.
pub(super) const WITHOUT_ANSWER: &str = "SELECT scope, key FROM command WHERE answer IS NULL OR status IS NULL \
     ORDER BY scope, key LIMIT $1";

/// id of a transfer, limit -> entries of later transfers.
pub(super) const ENTRIES_SINCE: &str = "SELECT transfer, account, currency, delta FROM entry \
     WHERE transfer > $1 ORDER BY transfer, account LIMIT $2";

/// account, id of an entry -> balance, what its entries after that one sum to, and the last of them.
pub(super) const BALANCE_SINCE: &str = "SELECT a.balance, a.kind, a.owner, a.may_go_negative, \
     (SELECT CAST(COALESCE(SUM(e.delta), 0) AS BIGINT) FROM entry e WHERE e.account = a.id AND e.id > $2) AS since, \
     (SELECT MAX(e.id) FROM entry e WHERE e.account = a.id) AS last_id \
     FROM account a WHERE a.id = $1";

/// campaign -> what is held, and what its open promises say.
pub(super) const HELD: &str = "SELECT a.balance AS held, \
     (SELECT CAST(COALESCE(SUM(h.amount), 0) AS BIGINT) FROM hold h \
        WHERE h.campaign = a.owner AND h.state = 'open') AS open_holds \
     FROM account a WHERE a.owner = $1 AND a.id = 'budget:' || a.owner || ':held'";

/// limit -> findings that have frozen a campaign.
pub(super) const FROZEN_FINDINGS: &str =
    "SELECT campaign, finding FROM frozen_finding ORDER BY campaign, finding LIMIT $1";

/// campaign, finding.
pub(super) const FORGET_FINDING: &str =
    "DELETE FROM frozen_finding WHERE campaign = $1 AND finding = $2";
