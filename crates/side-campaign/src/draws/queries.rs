//! SQL of draws and proofs.

/// In: campaign, stream. Out: `sequence`, the next one; counts from 1.
pub(super) const NEXT: &str = "INSERT INTO draw_stream (campaign, stream, next_sequence) VALUES ($1, $2, 2) \
     ON CONFLICT (campaign, stream) DO UPDATE SET next_sequence = draw_stream.next_sequence + 1 \
     RETURNING next_sequence - 1 AS sequence";

/// In: all columns of a draw.
pub(super) const RECORD: &str = "INSERT INTO draw (campaign, stream, sequence, subject, low, high, value, at_ms, detail) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// In: campaign. Out: `seed_hash`, `seed` (NULL until it is revealed), `root`, `published_at_ms`.
pub(super) const SEED: &str = "SELECT seed_hash, seed, root, published_at_ms FROM campaign WHERE id = $1 AND seed_hash IS NOT NULL";

/// In: campaign to go on after, limit. Out: `id` of those whose seed is revealed.
pub(super) const REVEALED: &str =
    "SELECT id FROM campaign WHERE seed IS NOT NULL AND id > $1 ORDER BY id LIMIT $2";

/// In: campaign. Out: `version`, `definition`, `rules_hash`, `private_hash`, `at_ms`, the first first.
pub(super) const VERSIONS: &str = "SELECT version, definition, rules_hash, private_hash, at_ms FROM campaign_version \
     WHERE campaign = $1 ORDER BY version LIMIT 1000";

/// In: campaign, list, root, time.
pub(super) const PUBLISH_ROOT: &str = "INSERT INTO proof_root (campaign, list, root, at_ms) VALUES ($1, $2, $3, $4) \
     ON CONFLICT DO NOTHING";

/// In: campaign, list. Out: `root`.
pub(super) const ROOT: &str = "SELECT root FROM proof_root WHERE campaign = $1 AND list = $2";

/// In: campaign. Out: `list`, `root`, `at_ms`.
pub(super) const ROOTS: &str =
    "SELECT list, root, at_ms FROM proof_root WHERE campaign = $1 ORDER BY list LIMIT 1000";

/// In: campaign, list, position, ticket, time.
pub(super) const TICKET: &str = "INSERT INTO proof_ticket (campaign, list, position, ticket, at_ms) VALUES ($1, $2, $3, $4, $5)";

/// In: campaign, list and position to go on after, limit. Out: a page of tickets.
pub(super) const TICKETS: &str = "SELECT list, position, ticket, at_ms FROM proof_ticket WHERE campaign = $1 \
     AND (list > $2 OR (list = $2 AND position > $3)) ORDER BY list, position LIMIT $4";

/// In: campaign, stream and sequence to go on after, limit. Out: a page of draws.
pub(super) const DRAWS: &str = "SELECT stream, sequence, subject, low, high, value, at_ms, detail FROM draw WHERE campaign = $1 \
     AND (stream > $2 OR (stream = $2 AND sequence > $3)) ORDER BY stream, sequence LIMIT $4";

/// In: campaign, list and rank to go on after, limit. Out: a page of winners.
pub(super) const WINNERS: &str = "SELECT list, rank, buyer, score, reward, state, stream, sequence, at_ms FROM winner \
     WHERE campaign = $1 AND (list > $2 OR (list = $2 AND rank > $3)) ORDER BY list, rank LIMIT $4";

/// In: all columns of a winner.
pub(super) const ANNOUNCE: &str = "INSERT INTO winner (campaign, list, rank, buyer, score, reward, state, stream, sequence, at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
