//! SQL of giveaways.

/// In: campaign, buyer, ticket, time, new. Touches no row where the buyer is in, or the end has begun.
pub(super) const JOIN: &str = "INSERT INTO giveaway_participation (campaign, buyer, ticket, joined_at_ms, is_new) \
     SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS BIGINT), CAST($5 AS BIGINT) \
     WHERE NOT EXISTS (SELECT 1 FROM giveaway_settling WHERE campaign = $1) ON CONFLICT DO NOTHING";

/// In: campaign, buyer. Out: `joined_at_ms`, `is_new`.
pub(super) const PARTICIPATION: &str =
    "SELECT joined_at_ms, is_new FROM giveaway_participation WHERE campaign = $1 AND buyer = $2";

/// In: campaign, buyer, reward, id, state, time.
pub(super) const REWARD: &str = "INSERT INTO giveaway_reward (campaign, buyer, reward, id, state, at_ms) VALUES ($1, $2, $3, $4, $5, $6)";

/// In: campaign, buyer. Out: `reward`, `id`, `state`.
pub(super) const REWARDS: &str = "SELECT reward, id, state FROM giveaway_reward WHERE campaign = $1 AND buyer = $2 \
     ORDER BY reward LIMIT 100";

/// In: campaign, buyer, source of what joining gave. Out: `id`, `source`, `reward`, `state`, `given_id`, `reason` of those
/// grants, and of all that were given again.
pub(super) const GRANTS: &str = "SELECT id, source, reward, state, given_id, reason FROM reward_grant \
     WHERE campaign = $1 AND buyer = $2 AND (source = $3 OR source LIKE 'again:%') ORDER BY id LIMIT 2000";

/// In: campaign, reward. Out: `state` that was told last.
pub(super) const LAST_STATE: &str = "SELECT state FROM giveaway_reward WHERE campaign = $1 AND reward = $2 \
     ORDER BY at_ms DESC LIMIT 1";

/// In: campaign, stream, price of one, units, round.
pub(super) const RESERVE: &str = "INSERT INTO giveaway_reserve (campaign, stream, each_minor, units, round) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (campaign, stream) DO UPDATE SET each_minor = excluded.each_minor, units = excluded.units, \
     round = excluded.round";

/// In: campaign. Out: `stream`, `each_minor`, `units`, `round` of all: as many as its rules ever named.
pub(super) const RESERVES: &str = "SELECT stream, each_minor, units, round FROM giveaway_reserve \
     WHERE campaign = $1 ORDER BY stream LIMIT 1000";

/// In: campaign, stream. Out: `each_minor`, `units`, `round`.
pub(super) const RESERVED: &str =
    "SELECT each_minor, units, round FROM giveaway_reserve WHERE campaign = $1 AND stream = $2";

/// In: units, round, campaign, stream.
pub(super) const RESERVE_NEXT: &str =
    "UPDATE giveaway_reserve SET units = $1, round = $2 WHERE campaign = $3 AND stream = $4";

/// In: campaign, root of the empty list. Begins the end, once.
pub(super) const SETTLING_BEGIN: &str = "INSERT INTO giveaway_settling (campaign, phase, listed, listed_at_ms, listed_ticket, root, drawn, \
     stream_index, stream_winners, pieces) VALUES ($1, 'LIST', 0, -1, '', $2, 0, 0, 0, 0) ON CONFLICT DO NOTHING";

/// In: campaign. Out: the row, which is then this transaction's until its end: pieces come one after another.
pub(super) const SETTLING_TAKE: &str = "UPDATE giveaway_settling SET pieces = pieces + 1 WHERE campaign = $1 \
     RETURNING phase, listed, listed_at_ms, listed_ticket, root, drawn, stream_index, stream_winners";

/// In: phase, listed, listed_at_ms, listed_ticket, root, drawn, stream_index, stream_winners, campaign.
pub(super) const SETTLING_PUT: &str = "UPDATE giveaway_settling SET phase = $1, listed = $2, listed_at_ms = $3, listed_ticket = $4, root = $5, \
     drawn = $6, stream_index = $7, stream_winners = $8 WHERE campaign = $9";

/// In: campaign, time and ticket to go on after, limit. Out: `joined_at_ms`, `ticket`, `verdict` as it stands now.
pub(super) const TICKETS_AFTER: &str = "SELECT p.joined_at_ms AS joined_at_ms, p.ticket AS ticket, e.verdict AS verdict \
     FROM giveaway_participation p LEFT JOIN participant e ON e.campaign = p.campaign AND e.buyer = p.buyer \
     WHERE p.campaign = $1 AND (p.joined_at_ms, p.ticket) > ($2, $3) ORDER BY p.joined_at_ms, p.ticket LIMIT $4";

/// In: campaign. Out: `participations`.
pub(super) const COUNT: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS participations FROM giveaway_participation WHERE campaign = $1";

/// In: campaign, slot. Out: `position`.
pub(super) const SLOT: &str =
    "SELECT position FROM giveaway_slot WHERE campaign = $1 AND slot = $2";

/// In: campaign, slot, position.
pub(super) const SLOT_PUT: &str = "INSERT INTO giveaway_slot (campaign, slot, position) VALUES ($1, $2, $3) \
     ON CONFLICT (campaign, slot) DO UPDATE SET position = $3";

/// In: campaign, list, position. Out: `ticket` as it was listed, `buyer`, `verdict` as it stands now.
pub(super) const TICKET_AT: &str = "SELECT t.ticket AS ticket, p.buyer AS buyer, e.verdict AS verdict FROM proof_ticket t \
     JOIN giveaway_participation p ON p.campaign = t.campaign AND p.ticket = SUBSTR(t.ticket, 1, 64) \
     LEFT JOIN participant e ON e.campaign = p.campaign AND e.buyer = p.buyer \
     WHERE t.campaign = $1 AND t.list = $2 AND t.position = $3";
