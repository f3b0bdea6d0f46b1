//! All SQL of prizes.

use flash_types::Timestamp;
use side_books::sql::{Get as _, Row, SqlError};

use super::model::PrizeState;

/// In: id, campaign, reward, title, buyer, grant, source, cost, claim until, now.
pub(super) const INSERT: &str = "INSERT INTO prize (id, campaign, reward, title, buyer, grant_id, source, cost_minor, state, \
     claim_until_ms, drawn_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'DRAWN', $9, $10)";

/// In: prize. Out: all of it, and nobody else changes it before this transaction ends.
pub(super) const HAVE: &str = "UPDATE prize SET turns = turns + 1 WHERE id = $1 RETURNING *";

/// In: state, sealed address, address until, carrier, tracking, claimed at, shipped at, delivered at, prize that this
/// transaction has.
pub(super) const WRITE: &str = "UPDATE prize SET state = $1, address_sealed = $2, address_until_ms = $3, carrier = $4, \
     tracking = $5, claimed_at_ms = $6, shipped_at_ms = $7, delivered_at_ms = $8 WHERE id = $9";

/// In: rank, prize.
pub(super) const SET_RANK: &str = "UPDATE prize SET place = $1 WHERE id = $2";

/// In: now, most. Out: ids of prizes that nobody claimed in time.
pub(super) const UNCLAIMED: &str = "SELECT id FROM prize WHERE state = 'DRAWN' AND claim_until_ms <= $1 \
     AND NOT EXISTS (SELECT 1 FROM frozen WHERE frozen.campaign = prize.campaign) ORDER BY claim_until_ms, id LIMIT $2";

/// In: now, prize. Out: what its grant is found by, where nobody claimed it.
pub(super) const EXPIRE: &str = "UPDATE prize SET state = 'EXPIRED' \
     WHERE id = $2 AND state = 'DRAWN' AND claim_until_ms <= $1 RETURNING grant_id, campaign, reward, buyer, cost_minor";

/// In: now, most. Out: ids of prizes whose address has been kept long enough.
pub(super) const STALE_ADDRESSES: &str = "SELECT id FROM prize WHERE address_until_ms <= $1 \
     ORDER BY address_until_ms, id LIMIT $2";

/// In: now, prize.
pub(super) const ERASE_ADDRESS: &str = "UPDATE prize SET address_sealed = NULL, address_until_ms = NULL \
     WHERE id = $2 AND address_until_ms <= $1 AND state IN ('FULFILLING', 'DELIVERED')";

/// In: now, buyer, state or '', cursor or '', most. Out: prizes, the newest first.
pub(super) const OF_BUYER: &str = "SELECT * FROM prize WHERE buyer = $2 AND ($3 = '' OR $3 = CASE \
     WHEN state = 'DRAWN' AND claim_until_ms <= $1 THEN 'EXPIRED' ELSE state END) \
     AND ($4 = '' OR id < $4) ORDER BY id DESC LIMIT $5";

/// In: now, campaign, state or '', cursor or '', most. Out: prizes, the newest first.
pub(super) const OF_CAMPAIGN: &str = "SELECT * FROM prize WHERE campaign = $2 AND ($3 = '' OR $3 = CASE \
     WHEN state = 'DRAWN' AND claim_until_ms <= $1 THEN 'EXPIRED' ELSE state END) \
     AND ($4 = '' OR id < $4) ORDER BY id DESC LIMIT $5";

/// A prize as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prize {
    pub(super) id: String,
    pub(super) campaign: String,
    pub(super) reward: String,
    pub(super) title: String,
    pub(super) buyer: String,
    pub(super) grant_id: String,
    pub(super) source: String,
    pub(super) rank: Option<i64>,
    pub(super) cost_minor: i64,
    pub(super) state: PrizeState,
    pub(super) claim_until: Timestamp,
    pub(super) address_sealed: Option<String>,
    pub(super) address_until: Option<Timestamp>,
    pub(super) carrier: Option<String>,
    pub(super) tracking: Option<String>,
    pub(super) drawn_at: Timestamp,
    pub(super) claimed_at: Option<Timestamp>,
    pub(super) shipped_at: Option<Timestamp>,
    pub(super) delivered_at: Option<Timestamp>,
}

impl Prize {
    pub(super) fn read(row: &Row) -> Result<Self, SqlError> {
        let state = row.text("state")?;
        let state = PrizeState::parse(&state)
            .ok_or_else(|| SqlError::Broken(format!("a prize is {state}")))?;
        let time = |column| Ok::<_, SqlError>(row.int_or_null(column)?.map(Timestamp));
        Ok(Self {
            id: row.text("id")?,
            campaign: row.text("campaign")?,
            reward: row.text("reward")?,
            title: row.text("title")?,
            buyer: row.text("buyer")?,
            grant_id: row.text("grant_id")?,
            source: row.text("source")?,
            rank: row.int_or_null("place")?,
            cost_minor: row.int("cost_minor")?,
            state,
            claim_until: Timestamp(row.int("claim_until_ms")?),
            address_sealed: row.text_or_null("address_sealed")?,
            address_until: time("address_until_ms")?,
            carrier: row.text_or_null("carrier")?,
            tracking: row.text_or_null("tracking")?,
            drawn_at: Timestamp(row.int("drawn_at_ms")?),
            claimed_at: time("claimed_at_ms")?,
            shipped_at: time("shipped_at_ms")?,
            delivered_at: time("delivered_at_ms")?,
        })
    }
}
