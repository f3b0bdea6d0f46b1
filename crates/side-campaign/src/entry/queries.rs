//! Statements of entries.

/// In: campaign, buyer. Out: joined_at_ms, is_new, verdict.
pub(super) const FIND_PARTICIPANT: &str =
    "SELECT joined_at_ms, is_new, verdict FROM participant WHERE campaign = $1 AND buyer = $2";

/// In: campaign, buyer, joined_at_ms, is_new, version, address_hash, device_hash, phone_hash. Rows: 0 if there already.
pub(super) const INSERT_PARTICIPANT: &str = "INSERT INTO participant \
     (campaign, buyer, joined_at_ms, is_new, version, address_hash, device_hash, phone_hash) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (campaign, buyer) DO NOTHING";

/// In: campaign, joined_at_ms and buyer to go on after, limit. Out: a page of participants.
pub(super) const LIST_PARTICIPANTS: &str = "SELECT buyer, joined_at_ms, is_new, version, verdict, address_hash, device_hash, phone_hash \
     FROM participant WHERE campaign = $1 AND (joined_at_ms, buyer) > ($2, $3) \
     ORDER BY joined_at_ms, buyer LIMIT $4";

/// In: campaign, joined_at_ms and buyer to go on after, limit, verdict. Out: a page of participants with that verdict.
pub(super) const LIST_PARTICIPANTS_OF: &str = "SELECT buyer, joined_at_ms, is_new, version, verdict, address_hash, device_hash, phone_hash \
     FROM participant WHERE campaign = $1 AND (joined_at_ms, buyer) > ($2, $3) AND verdict = $5 \
     ORDER BY joined_at_ms, buyer LIMIT $4";

/// In: campaign, joined_at_ms and buyer to go on after, limit. Out: a page of participants without a verdict.
pub(super) const LIST_PARTICIPANTS_CLEAR: &str = "SELECT buyer, joined_at_ms, is_new, version, verdict, address_hash, device_hash, phone_hash \
     FROM participant WHERE campaign = $1 AND (joined_at_ms, buyer) > ($2, $3) AND verdict IS NULL \
     ORDER BY joined_at_ms, buyer LIMIT $4";

/// In: campaign. Sees to it that there is a count.
pub(super) const OPEN_COUNT: &str = "INSERT INTO entry_count (campaign, participants) VALUES ($1, 0) \
     ON CONFLICT (campaign) DO NOTHING";

/// In: campaign. Holds the row for the transaction.
pub(super) const HOLD_COUNT: &str =
    "UPDATE entry_count SET participants = participants WHERE campaign = $1";

/// In: campaign, most participants. Rows: 0 if it is full.
pub(super) const TAKE_PLACE: &str = "UPDATE entry_count SET participants = participants + 1 \
     WHERE campaign = $1 AND participants < $2";

/// In: campaign.
pub(super) const GIVE_PLACE_BACK: &str =
    "UPDATE entry_count SET participants = participants - 1 WHERE campaign = $1";

/// In: campaign. Out: participants.
pub(super) const COUNT: &str = "SELECT participants FROM entry_count WHERE campaign = $1";

/// In: buyer. Out: phone_hash, if one was verified.
pub(super) const VERIFIED_PHONE: &str = "SELECT phone_hash FROM verified_phone WHERE buyer = $1";

/// In: buyer. Out: paid_at_ms of the first paid order, if there is one.
pub(super) const FIRST_ORDER: &str = "SELECT paid_at_ms FROM buyer_first_order WHERE buyer = $1";

/// In: campaign, buyer, task, at_ms. Rows: 0 if it was done already.
pub(super) const INSERT_SIGN_UP: &str = "INSERT INTO sign_up (campaign, buyer, task, at_ms) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (campaign, buyer, task) DO NOTHING";

/// In: campaign, buyer, task. Out: at_ms.
pub(super) const FIND_SIGN_UP: &str =
    "SELECT at_ms FROM sign_up WHERE campaign = $1 AND buyer = $2 AND task = $3";

/// In: campaign, buyer, address hash, device hash (each an empty text where not known). Out: a row if one is blocked.
pub(super) const IS_BLOCKED: &str = "SELECT list FROM block_entry WHERE campaign = $1 AND \
     ((list = 'buyers' AND value = $2) OR (list = 'addresses' AND value = $3) \
     OR (list = 'devices' AND value = $4)) LIMIT 1";

/// In: campaign, list, value, reason, who, at_ms. Rows: 0 if it was there.
pub(super) const INSERT_BLOCK: &str = "INSERT INTO block_entry (campaign, list, value, reason, who, at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (campaign, list, value) DO NOTHING";

/// In: campaign, list, value. Rows: 0 if it was not there.
pub(super) const DELETE_BLOCK: &str =
    "DELETE FROM block_entry WHERE campaign = $1 AND list = $2 AND value = $3";

/// In: campaign, list and value to go on after, limit. Out: a page of the block lists.
pub(super) const LIST_BLOCKS: &str = "SELECT list, value, reason, who, at_ms FROM block_entry \
     WHERE campaign = $1 AND (list, value) > ($2, $3) ORDER BY list, value LIMIT $4";

/// In: buyer, day, at_ms. Out: refusals of that day, with this one.
pub(super) const COUNT_REFUSAL: &str = "INSERT INTO refusal_count (buyer, day, refusals, last_at_ms) VALUES ($1, $2, 1, $3) \
     ON CONFLICT (buyer, day) DO UPDATE SET refusals = refusal_count.refusals + 1, \
     last_at_ms = excluded.last_at_ms RETURNING refusals";

/// In: buyer, campaign, endpoint, outcome, detail, at_ms.
pub(super) const INSERT_REFUSAL: &str = "INSERT INTO refusal (buyer, campaign, endpoint, outcome, detail, at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6)";
