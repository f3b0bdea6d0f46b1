//! SQL of the books: accounts, transfers, holds, frozen campaigns.
//!
//! Every change of a balance is a condition and a change in one statement. In a transfer all accounts are changed, in the order
//! of their ids, before its entries are written: whoever writes an entry holds the lock of its account.

/// id, owner, kind, currency, may_go_negative.
pub(crate) const OPEN_ACCOUNT: &str = "INSERT INTO account (id, owner, kind, currency, may_go_negative) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT DO NOTHING";

/// id -> balance, currency.
pub(crate) const ACCOUNT: &str = "SELECT balance, currency FROM account WHERE id = $1";

/// key, kind, reverses, rule_snapshot, at_ms -> id; nothing where the key was used or the reversed transfer is reversed.
pub(crate) const INSERT_TRANSFER: &str = "INSERT INTO transfer (key, kind, reverses, rule_snapshot, at_ms) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT DO NOTHING RETURNING id";

/// delta, account -> currency; nothing where the account is not there or would go below zero.
pub(crate) const ADD_TO_ACCOUNT: &str = "UPDATE account SET balance = balance + $1 \
     WHERE id = $2 AND (may_go_negative = 1 OR balance + $1 >= 0) RETURNING currency";

/// transfer, currency, account, delta.
pub(crate) const INSERT_ENTRY: &str =
    "INSERT INTO entry (transfer, currency, account, delta) VALUES ($1, $2, $3, $4)";

/// transfer, currency, twice account and delta.
pub(crate) const INSERT_TWO_ENTRIES: &str = "INSERT INTO entry (transfer, currency, account, delta) \
     VALUES ($1, $2, $3, $4), ($1, $2, $5, $6)";

/// transfer, currency, three times account and delta.
pub(crate) const INSERT_THREE_ENTRIES: &str = "INSERT INTO entry (transfer, currency, account, delta) \
     VALUES ($1, $2, $3, $4), ($1, $2, $5, $6), ($1, $2, $7, $8)";

/// key -> id, kind, reverses and, per leg, account and delta.
pub(crate) const TRANSFER_BY_KEY: &str = "SELECT t.id, t.kind, t.reverses, e.account, e.delta \
     FROM transfer t JOIN entry e ON e.transfer = t.id WHERE t.key = $1";

/// id -> kind, reverses and, per leg, account and delta.
pub(crate) const TRANSFER_BY_ID: &str = "SELECT t.kind, t.reverses, e.account, e.delta \
     FROM transfer t JOIN entry e ON e.transfer = t.id WHERE t.id = $1 ORDER BY e.account";

/// id of a transfer -> id of the one that reverses it.
pub(crate) const REVERSED_BY: &str = "SELECT id FROM transfer WHERE reverses = $1";

/// key, what, amount, at_ms, id of the account `available`: nothing where the key was used, the account holds less, or its
/// campaign is frozen.
pub(crate) const INSERT_HOLD: &str = "INSERT INTO hold (key, campaign, what, currency, amount, state, opened_at_ms) \
     SELECT $1, a.owner, $2, a.currency, $3, 'open', $4 FROM account a \
     WHERE a.id = $5 AND a.balance >= $3 \
     AND NOT EXISTS (SELECT 1 FROM frozen f WHERE f.campaign = a.owner) ON CONFLICT DO NOTHING";

/// key -> campaign, amount, posted, state.
pub(crate) const HOLD: &str = "SELECT campaign, amount, posted, state FROM hold WHERE key = $1";

/// state, posted, closed_at_ms, key -> campaign, amount; nothing where it is closed, holds less, or its campaign is frozen.
pub(crate) const CLOSE_HOLD: &str = "UPDATE hold SET state = $1, posted = $2, closed_at_ms = $3 \
     WHERE key = $4 AND state = 'open' AND amount >= $2 \
     AND NOT EXISTS (SELECT 1 FROM frozen f WHERE f.campaign = hold.campaign) RETURNING campaign, amount";

/// campaign -> id, balance of each part of its budget.
pub(crate) const BUDGET: &str =
    "SELECT id, balance FROM account WHERE owner = $1 AND kind = 'budget'";

/// campaign -> reason.
pub(crate) const FROZEN: &str = "SELECT reason FROM frozen WHERE campaign = $1";

/// campaign, reason, at_ms.
pub(crate) const FREEZE: &str = "INSERT INTO frozen (campaign, reason, at_ms) \
     VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// campaign, finding, at_ms. Touches no row where it has frozen the campaign before.
pub(crate) const FREEZE_FOR: &str = "INSERT INTO frozen_finding (campaign, finding, at_ms) \
     VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// campaign.
pub(crate) const THAW: &str = "DELETE FROM frozen WHERE campaign = $1";
