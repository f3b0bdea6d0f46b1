//! Statements over codes and verified numbers.

use side_books::sql::{Query, query};

/// In: buyer. Out: phone_hash, at_ms.
pub(in crate::notices) fn verified_phone<'q>(buyer: &str) -> Query<'q> {
    query("SELECT phone_hash, at_ms FROM verified_phone WHERE buyer = $1").bind(buyer.to_owned())
}

/// In: keyed hash of a number. Out: buyer.
pub(in crate::notices) fn phone_owner<'q>(phone_hash: &str) -> Query<'q> {
    query("SELECT buyer FROM verified_phone WHERE phone_hash = $1").bind(phone_hash.to_owned())
}

/// In: buyer, keyed hash, now. Changes nothing if the buyer has a number or the number a buyer.
pub(in crate::notices) fn insert_phone<'q>(
    buyer: &str,
    phone_hash: &str,
    now_ms: i64,
) -> Query<'q> {
    query("INSERT INTO verified_phone (buyer, phone_hash, at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(buyer.to_owned())
        .bind(phone_hash.to_owned())
        .bind(now_ms)
}

/// In: buyer, now. The same number was verified again.
pub(in crate::notices) fn renew_phone<'q>(buyer: &str, now_ms: i64) -> Query<'q> {
    query("UPDATE verified_phone SET at_ms = $1 WHERE buyer = $2")
        .bind(now_ms)
        .bind(buyer.to_owned())
}

/// In: buyer. Before another number takes its place.
pub(in crate::notices) fn delete_phone<'q>(buyer: &str) -> Query<'q> {
    query("DELETE FROM verified_phone WHERE buyer = $1").bind(buyer.to_owned())
}

/// In: scope, now. Puts those who ask under one scope in order: the second waits here for the first.
pub(in crate::notices) fn touch_scope<'q>(scope: &str, now_ms: i64) -> Query<'q> {
    query(
        "INSERT INTO verification_scope (scope, touched_ms) VALUES ($1, $2) \
         ON CONFLICT (scope) DO UPDATE SET touched_ms = excluded.touched_ms",
    )
    .bind(scope.to_owned())
    .bind(now_ms)
}

/// In: scope, since when, which one of the latest (0 is the last). Out: at_ms.
pub(in crate::notices) fn nth_last_ask<'q>(scope: &str, since_ms: i64, n: i64) -> Query<'q> {
    query(
        "SELECT at_ms FROM verification_ask WHERE scope = $1 AND at_ms > $2 \
         ORDER BY at_ms DESC LIMIT 1 OFFSET $3",
    )
    .bind(scope.to_owned())
    .bind(since_ms)
    .bind(n)
}

/// In: scope, now.
pub(in crate::notices) fn insert_ask<'q>(scope: &str, now_ms: i64) -> Query<'q> {
    query("INSERT INTO verification_ask (scope, at_ms) VALUES ($1, $2)")
        .bind(scope.to_owned())
        .bind(now_ms)
}

/// In: buyer. Out: id of those that end here: only the latest code of a buyer counts.
pub(in crate::notices) fn supersede<'q>(buyer: &str) -> Query<'q> {
    query("UPDATE verification SET state = 'SUPERSEDED' WHERE buyer = $1 AND state = 'OPEN' RETURNING id")
        .bind(buyer.to_owned())
}

/// In: id, buyer, keyed hashes of number and code, now, end.
pub(in crate::notices) fn insert_verification<'q>(
    id: &str,
    buyer: &str,
    phone_hash: String,
    code_hash: String,
    now_ms: i64,
    expires_at_ms: i64,
) -> Query<'q> {
    query(
        "INSERT INTO verification (id, buyer, phone_hash, code_hash, state, at_ms, expires_at_ms) \
         VALUES ($1, $2, $3, $4, 'OPEN', $5, $6)",
    )
    .bind(id.to_owned())
    .bind(buyer.to_owned())
    .bind(phone_hash)
    .bind(code_hash)
    .bind(now_ms)
    .bind(expires_at_ms)
}

/// In: id, buyer, now, most tries. Out: phone_hash, code_hash, tries after this one. Whoever gets a row may look once.
pub(in crate::notices) fn take_try<'q>(
    id: &str,
    buyer: &str,
    now_ms: i64,
    tries_max: i64,
) -> Query<'q> {
    query(
        "UPDATE verification SET tries = tries + 1 WHERE id = $1 AND buyer = $2 AND state = 'OPEN' \
         AND expires_at_ms > $3 AND tries < $4 RETURNING phone_hash, code_hash, tries",
    )
    .bind(id.to_owned())
    .bind(buyer.to_owned())
    .bind(now_ms)
    .bind(tries_max)
}

/// In: id, buyer. Out: state, tries, expires_at_ms, verified_at_ms.
pub(in crate::notices) fn verification<'q>(id: &str, buyer: &str) -> Query<'q> {
    query("SELECT state, tries, expires_at_ms, verified_at_ms FROM verification WHERE id = $1 AND buyer = $2")
        .bind(id.to_owned())
        .bind(buyer.to_owned())
}

/// In: id, `VERIFIED` with when, or `REFUSED` without.
pub(in crate::notices) fn close_verification<'q>(
    id: &str,
    state: &'static str,
    verified_at_ms: Option<i64>,
) -> Query<'q> {
    query(
        "UPDATE verification SET state = $1, verified_at_ms = $2 WHERE id = $3 AND state = 'OPEN'",
    )
    .bind(state)
    .bind(verified_at_ms)
    .bind(id.to_owned())
}

/// In: before when, how many. Asks that count nowhere any more.
pub(in crate::notices) fn delete_asks<'q>(before_ms: i64, limit: i64) -> Query<'q> {
    query(
        "DELETE FROM verification_ask WHERE id IN \
         (SELECT id FROM verification_ask WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
    )
    .bind(before_ms)
    .bind(limit)
}

/// In: before when, how many, before when again (it may have been touched since it was chosen).
pub(in crate::notices) fn delete_scopes<'q>(before_ms: i64, limit: i64) -> Query<'q> {
    query(
        "DELETE FROM verification_scope WHERE scope IN \
         (SELECT scope FROM verification_scope WHERE touched_ms < $1 ORDER BY touched_ms LIMIT $2) \
         AND touched_ms < $3",
    )
    .bind(before_ms)
    .bind(limit)
    .bind(before_ms)
}

/// In: expired before when, how many.
pub(in crate::notices) fn delete_verifications<'q>(before_ms: i64, limit: i64) -> Query<'q> {
    query(
        "DELETE FROM verification WHERE id IN \
         (SELECT id FROM verification WHERE expires_at_ms < $1 ORDER BY expires_at_ms LIMIT $2)",
    )
    .bind(before_ms)
    .bind(limit)
}
