//! Every statement over notices, reminders and verifications, with what it takes and gives.

mod codes;

pub(super) use codes::*;
use side_books::sql::{Query, query};

/// Inserts a notice unless its key is there.
pub(super) struct NewNotice<'a> {
    pub(super) id: &'a str,
    pub(super) key: &'a str,
    pub(super) kind: &'a str,
    pub(super) is_urgent: bool,
    pub(super) buyer: Option<&'a str>,
    pub(super) words: Option<&'a str>,
    pub(super) sealed: Option<String>,
    pub(super) subject: Option<&'a str>,
    pub(super) due_at_ms: i64,
    pub(super) give_up_ms: Option<i64>,
    pub(super) made_at_ms: i64,
}

/// In: [`NewNotice`]. Changes one row, or none if the key is there.
pub(super) fn insert_notice<'q>(new: NewNotice<'_>) -> Query<'q> {
    query(
        "INSERT INTO notice (id, key, kind, is_urgent, buyer, words, sealed, subject, state, due_at_ms, \
         next_attempt_ms, give_up_ms, made_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'WAITING', $9, $10, $11, $12) ON CONFLICT DO NOTHING",
    )
    .bind(new.id.to_owned())
    .bind(new.key.to_owned())
    .bind(new.kind.to_owned())
    .bind(i64::from(new.is_urgent))
    .bind(new.buyer.map(str::to_owned))
    .bind(new.words.map(str::to_owned))
    .bind(new.sealed)
    .bind(new.subject.map(str::to_owned))
    .bind(new.due_at_ms)
    .bind(new.due_at_ms)
    .bind(new.give_up_ms)
    .bind(new.made_at_ms)
}

/// In: key, words, when it is due now, until when it is worth sending. Moves a notice that nobody has tried to send yet.
pub(super) fn move_notice<'q>(
    key: &str,
    words: &str,
    due_at_ms: i64,
    give_up_ms: i64,
) -> Query<'q> {
    query(
        "UPDATE notice SET due_at_ms = $1, next_attempt_ms = $2, give_up_ms = $3, words = $4 \
         WHERE key = $5 AND state = 'WAITING' AND attempts = 0",
    )
    .bind(due_at_ms)
    .bind(due_at_ms)
    .bind(give_up_ms)
    .bind(words.to_owned())
    .bind(key.to_owned())
}

/// In: key. Withdraws a notice that waits.
pub(super) fn withdraw<'q>(key: &str) -> Query<'q> {
    query(
        "UPDATE notice SET state = 'WITHDRAWN', sealed = NULL WHERE key = $1 AND state = 'WAITING'",
    )
    .bind(key.to_owned())
}

/// In: buyer, subject. Withdraws the reminders that wait.
pub(super) fn withdraw_reminders<'q>(buyer: &str, subject: &str) -> Query<'q> {
    query(
        "UPDATE notice SET state = 'WITHDRAWN' WHERE buyer = $1 AND subject = $2 AND state = 'WAITING' \
         AND kind IN ('reminder', 'second_reminder')",
    )
    .bind(buyer.to_owned())
    .bind(subject.to_owned())
}

/// In: urgent or not, now, how many. Out: id, kind, buyer, words, sealed, subject, attempts of those that are due, oldest
/// first.
pub(super) fn due<'q>(is_urgent: bool, now_ms: i64, limit: i64) -> Query<'q> {
    query(
        "SELECT id, kind, buyer, words, sealed, subject, attempts FROM notice \
         WHERE state = 'WAITING' AND is_urgent = $1 AND next_attempt_ms <= $2 \
         ORDER BY next_attempt_ms, id LIMIT $3",
    )
    .bind(i64::from(is_urgent))
    .bind(now_ms)
    .bind(limit)
}

/// In: urgent or not, now, how many. Gives up what waits past its time and is not on its way out.
pub(super) fn give_up_late<'q>(is_urgent: bool, now_ms: i64, limit: i64) -> Query<'q> {
    query(
        "UPDATE notice SET state = 'GIVEN_UP', sealed = NULL WHERE state = 'WAITING' AND id IN ( \
         SELECT id FROM notice WHERE state = 'WAITING' AND is_urgent = $1 AND next_attempt_ms <= $2 \
         AND give_up_ms <= $3 ORDER BY next_attempt_ms, id LIMIT $4)",
    )
    .bind(i64::from(is_urgent))
    .bind(now_ms)
    .bind(now_ms)
    .bind(limit)
}

/// In: id, attempts as read, now, end of the lease, when to give up where nothing says so. Out: give_up_ms. The count of
/// attempts is the fencing number of whoever took it.
pub(super) fn lease<'q>(
    id: &str,
    attempts: i64,
    now_ms: i64,
    until_ms: i64,
    give_up_ms: i64,
) -> Query<'q> {
    query(
        "UPDATE notice SET attempts = attempts + 1, next_attempt_ms = $1, \
         give_up_ms = COALESCE(give_up_ms, $2) \
         WHERE id = $3 AND state = 'WAITING' AND attempts = $4 AND next_attempt_ms <= $5 \
         RETURNING give_up_ms",
    )
    .bind(until_ms)
    .bind(give_up_ms)
    .bind(id.to_owned())
    .bind(attempts)
    .bind(now_ms)
}

/// In: id, attempts as leased, now. A notice was taken; withdrawn meanwhile or not.
pub(super) fn sent<'q>(id: &str, attempts: i64, now_ms: i64) -> Query<'q> {
    query(
        "UPDATE notice SET state = 'SENT', sent_at_ms = $1, sealed = NULL \
         WHERE id = $2 AND attempts = $3 AND state IN ('WAITING', 'WITHDRAWN')",
    )
    .bind(now_ms)
    .bind(id.to_owned())
    .bind(attempts)
}

/// In: id, attempts as leased, when to try again.
pub(super) fn again<'q>(id: &str, attempts: i64, next_ms: i64) -> Query<'q> {
    query(
        "UPDATE notice SET next_attempt_ms = $1 WHERE id = $2 AND attempts = $3 AND state = 'WAITING'",
    )
    .bind(next_ms)
    .bind(id.to_owned())
    .bind(attempts)
}

/// In: id, attempts as leased, `GIVEN_UP` or `WITHDRAWN`.
pub(super) fn end<'q>(id: &str, attempts: i64, state: &'static str) -> Query<'q> {
    query(
        "UPDATE notice SET state = $1, sealed = NULL WHERE id = $2 AND attempts = $3 AND state = 'WAITING'",
    )
    .bind(state)
    .bind(id.to_owned())
    .bind(attempts)
}

/// In: id, now. Out: opened_at_ms, the first one.
pub(super) fn open<'q>(id: &str, now_ms: i64) -> Query<'q> {
    query("UPDATE notice SET opened_at_ms = COALESCE(opened_at_ms, $1) WHERE id = $2 RETURNING opened_at_ms")
        .bind(now_ms)
        .bind(id.to_owned())
}

/// In: subject, buyer. Out: a row if the buyer opened a reminder of it, bought after one, or reacted otherwise.
pub(super) fn has_reacted<'q>(subject: &str, buyer: &str) -> Query<'q> {
    query(
        "SELECT id FROM notice WHERE buyer = $1 AND subject = $2 AND opened_at_ms IS NOT NULL \
         UNION ALL SELECT order_id FROM notice_order WHERE buyer = $3 AND subject = $4 \
         UNION ALL SELECT buyer FROM notice_reaction WHERE subject = $5 AND buyer = $6 LIMIT 1",
    )
    .bind(buyer.to_owned())
    .bind(subject.to_owned())
    .bind(buyer.to_owned())
    .bind(subject.to_owned())
    .bind(subject.to_owned())
    .bind(buyer.to_owned())
}

/// In: subject, buyer, now.
pub(super) fn insert_reaction<'q>(subject: &str, buyer: &str, now_ms: i64) -> Query<'q> {
    query("INSERT INTO notice_reaction (subject, buyer, at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(subject.to_owned())
        .bind(buyer.to_owned())
        .bind(now_ms)
}

/// In: buyer, from, to. Out: id, subject, kind of the last reminder or care message that was sent between.
pub(super) fn last_sent<'q>(buyer: &str, from_ms: i64, to_ms: i64) -> Query<'q> {
    query(
        "SELECT id, subject, kind FROM notice WHERE buyer = $1 AND state = 'SENT' \
         AND sent_at_ms >= $2 AND sent_at_ms <= $3 \
         AND kind IN ('reminder', 'second_reminder', 'order_care') \
         ORDER BY sent_at_ms DESC, id DESC LIMIT 1",
    )
    .bind(buyer.to_owned())
    .bind(from_ms)
    .bind(to_ms)
}

/// In: the order and the notice that it followed. Changes nothing if the order is there.
pub(super) fn insert_order<'q>(
    order: &crate::fact::Order,
    notice: &str,
    subject: Option<String>,
    kind: String,
) -> Query<'q> {
    query(
        "INSERT INTO notice_order (order_id, notice, subject, kind, buyer, currency, paid_minor, \
         refunded_minor, is_first, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT DO NOTHING",
    )
    .bind(order.order_id.clone())
    .bind(notice.to_owned())
    .bind(subject)
    .bind(kind)
    .bind(order.buyer.as_str().to_owned())
    .bind(order.currency.clone())
    .bind(order.paid_minor)
    .bind(order.refunded_minor)
    .bind(i64::from(order.is_first))
    .bind(order.paid_at.0)
}

/// In: order, what went back of it in all.
pub(super) fn refund_order<'q>(order_id: &str, refunded_minor: i64) -> Query<'q> {
    query("UPDATE notice_order SET refunded_minor = $1 WHERE order_id = $2 AND refunded_minor < $3")
        .bind(refunded_minor)
        .bind(order_id.to_owned())
        .bind(refunded_minor)
}

/// In: subject. Out: per kind recipients, sent, given_up, opened.
pub(super) fn count_notices<'q>(subject: &str) -> Query<'q> {
    query(
        "SELECT kind, CAST(COUNT(DISTINCT CASE WHEN state = 'SENT' THEN COALESCE(buyer, id) END) AS BIGINT) AS recipients, \
         CAST(SUM(CASE WHEN state = 'SENT' THEN 1 ELSE 0 END) AS BIGINT) AS sent, \
         CAST(SUM(CASE WHEN state = 'GIVEN_UP' THEN 1 ELSE 0 END) AS BIGINT) AS given_up, \
         CAST(SUM(CASE WHEN opened_at_ms IS NULL THEN 0 ELSE 1 END) AS BIGINT) AS opened \
         FROM notice WHERE subject = $1 GROUP BY kind ORDER BY kind",
    )
    .bind(subject.to_owned())
}

/// In: subject. Out: recipients of any kind.
pub(super) fn count_recipients<'q>(subject: &str) -> Query<'q> {
    query(
        "SELECT CAST(COUNT(DISTINCT COALESCE(buyer, id)) AS BIGINT) AS recipients \
         FROM notice WHERE subject = $1 AND state = 'SENT'",
    )
    .bind(subject.to_owned())
}

/// In: subject, currency. Out: per kind buyers, orders, turnover, returning (buyers whose order was not their first).
pub(super) fn count_orders<'q>(subject: &str, currency: &str) -> Query<'q> {
    query(
        "SELECT kind, CAST(COUNT(DISTINCT buyer) AS BIGINT) AS buyers, CAST(COUNT(*) AS BIGINT) AS orders, \
         CAST(COALESCE(SUM(paid_minor - refunded_minor), 0) AS BIGINT) AS turnover, \
         CAST(COUNT(DISTINCT CASE WHEN is_first = 0 THEN buyer END) AS BIGINT) AS returning_buyers \
         FROM notice_order WHERE subject = $1 AND currency = $2 GROUP BY kind",
    )
    .bind(subject.to_owned())
    .bind(currency.to_owned())
}

/// In: subject, currency. Out: buyers and returning_buyers of any kind.
pub(super) fn count_buyers<'q>(subject: &str, currency: &str) -> Query<'q> {
    query(
        "SELECT CAST(COUNT(DISTINCT buyer) AS BIGINT) AS buyers, \
         CAST(COUNT(DISTINCT CASE WHEN is_first = 0 THEN buyer END) AS BIGINT) AS returning_buyers \
         FROM notice_order WHERE subject = $1 AND currency = $2",
    )
    .bind(subject.to_owned())
    .bind(currency.to_owned())
}

/// In: subject, buyer, the start as it is planned, now. Changes nothing if they asked before.
pub(super) fn subscribe<'q>(
    subject: &str,
    buyer: &str,
    starts_at_ms: i64,
    now_ms: i64,
) -> Query<'q> {
    query(
        "INSERT INTO reminder (subject, buyer, starts_at_ms, at_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(subject.to_owned())
    .bind(buyer.to_owned())
    .bind(starts_at_ms)
    .bind(now_ms)
}

/// In: subject, buyer.
pub(super) fn unsubscribe<'q>(subject: &str, buyer: &str) -> Query<'q> {
    query("DELETE FROM reminder WHERE subject = $1 AND buyer = $2")
        .bind(subject.to_owned())
        .bind(buyer.to_owned())
}

/// In: subject, seconds before the start, start, due, now. Changes nothing if it is there.
pub(super) fn insert_round<'q>(
    subject: &str,
    before_s: i64,
    starts_at_ms: i64,
    due_at_ms: i64,
    now_ms: i64,
) -> Query<'q> {
    query(
        "INSERT INTO reminder_round (subject, before_s, starts_at_ms, due_at_ms, after_buyer, state, checked_at_ms) \
         VALUES ($1, $2, $3, $4, '', 'PENDING', $5) ON CONFLICT DO NOTHING",
    )
    .bind(subject.to_owned())
    .bind(before_s)
    .bind(starts_at_ms)
    .bind(due_at_ms)
    .bind(now_ms)
}

/// In: start, due, now, subject, seconds before. One that is to come (again) begins with the first buyer.
pub(super) fn move_round<'q>(
    subject: &str,
    before_s: i64,
    starts_at_ms: i64,
    due_at_ms: i64,
    now_ms: i64,
) -> Query<'q> {
    query(
        "UPDATE reminder_round SET starts_at_ms = $1, due_at_ms = $2, checked_at_ms = $3, \
         after_buyer = CASE WHEN $4 = 1 THEN '' ELSE after_buyer END, \
         state = CASE WHEN state = 'DONE' AND $5 = 0 THEN 'DONE' ELSE 'PENDING' END \
         WHERE subject = $6 AND before_s = $7 AND state <> 'OVER'",
    )
    .bind(starts_at_ms)
    .bind(due_at_ms)
    .bind(now_ms)
    .bind(i64::from(due_at_ms > now_ms))
    .bind(i64::from(due_at_ms > now_ms))
    .bind(subject.to_owned())
    .bind(before_s)
}

/// In: now, subject. None of its reminders is sent for now.
pub(super) fn rest_rounds<'q>(subject: &str, now_ms: i64) -> Query<'q> {
    query(
        "UPDATE reminder_round SET checked_at_ms = $1, \
         state = CASE WHEN state = 'PENDING' THEN 'RESTING' ELSE state END \
         WHERE subject = $2 AND state <> 'OVER'",
    )
    .bind(now_ms)
    .bind(subject.to_owned())
}

/// In: now, subject. None of its reminders is ever sent again.
pub(super) fn end_rounds<'q>(subject: &str, now_ms: i64) -> Query<'q> {
    query("UPDATE reminder_round SET checked_at_ms = $1, state = 'OVER' WHERE subject = $2 AND state <> 'OVER'")
        .bind(now_ms)
        .bind(subject.to_owned())
}

/// In: now, subject, seconds before. This one is not planned any more.
pub(super) fn end_round<'q>(subject: &str, before_s: i64, now_ms: i64) -> Query<'q> {
    query("UPDATE reminder_round SET checked_at_ms = $1, state = 'OVER' WHERE subject = $2 AND before_s = $3")
        .bind(now_ms)
        .bind(subject.to_owned())
        .bind(before_s)
}

/// In: subject. Out: before_s, starts_at_ms of its rounds that are not over.
pub(super) fn rounds<'q>(subject: &str) -> Query<'q> {
    query(
        "SELECT before_s, starts_at_ms FROM reminder_round WHERE subject = $1 AND state <> 'OVER' ORDER BY before_s",
    )
    .bind(subject.to_owned())
}

/// In: looked at before, how many. Out: subject; those whose start was not looked at for a while.
pub(super) fn unchecked<'q>(before_ms: i64, limit: i64) -> Query<'q> {
    query(
        "SELECT DISTINCT subject FROM reminder_round WHERE state IN ('PENDING', 'RESTING', 'DONE') \
         AND checked_at_ms <= $1 ORDER BY subject LIMIT $2",
    )
    .bind(before_ms)
    .bind(limit)
}

/// In: now. Out: subject, before_s of the round that is due for longest.
pub(super) fn due_round<'q>(now_ms: i64) -> Query<'q> {
    query(
        "SELECT subject, before_s FROM reminder_round WHERE state = 'PENDING' AND due_at_ms <= $1 \
         ORDER BY due_at_ms, subject LIMIT 1",
    )
    .bind(now_ms)
}

/// In: subject, seconds before, now. Out: due_at_ms, after_buyer, if it is (still) due.
pub(super) fn round<'q>(subject: &str, before_s: i64, now_ms: i64) -> Query<'q> {
    query(
        "SELECT due_at_ms, after_buyer FROM reminder_round \
         WHERE subject = $1 AND before_s = $2 AND state = 'PENDING' AND due_at_ms <= $3",
    )
    .bind(subject.to_owned())
    .bind(before_s)
    .bind(now_ms)
}

/// In: subject, after whom, how long before the start, when that is now, how many. Out: buyer. Left out are those for whom it
/// was too late when they asked, by the start that was planned then and by the present one.
pub(super) fn subscribers<'q>(
    subject: &str,
    after: &str,
    before_ms: i64,
    due_at_ms: i64,
    limit: i64,
) -> Query<'q> {
    query(
        "SELECT buyer FROM reminder WHERE subject = $1 AND buyer > $2 \
         AND (at_ms <= starts_at_ms - $3 OR at_ms <= $4) ORDER BY buyer LIMIT $5",
    )
    .bind(subject.to_owned())
    .bind(after.to_owned())
    .bind(before_ms)
    .bind(due_at_ms)
    .bind(limit)
}

/// In: subject, seconds before, last buyer of the piece before and of this one, whether it was the last. Changes nothing if
/// another process did this piece.
pub(super) fn advance_round<'q>(
    subject: &str,
    before_s: i64,
    from: &str,
    to: &str,
    is_done: bool,
) -> Query<'q> {
    query(
        "UPDATE reminder_round SET after_buyer = $1, state = $2 \
         WHERE subject = $3 AND before_s = $4 AND after_buyer = $5 AND state = 'PENDING'",
    )
    .bind(to.to_owned())
    .bind(if is_done { "DONE" } else { "PENDING" })
    .bind(subject.to_owned())
    .bind(before_s)
    .bind(from.to_owned())
}

/// A care message to be sent.
pub(super) struct NewCare<'a> {
    pub(super) id: &'a str,
    pub(super) campaign: &'a str,
    pub(super) words: &'a str,
    pub(super) paid_after_ms: i64,
    pub(super) paid_before_ms: i64,
    pub(super) only_sale: Option<&'a str>,
    pub(super) not_received: bool,
    pub(super) at_ms: i64,
}

/// In: [`NewCare`]. It begins with the first order of its time.
pub(super) fn insert_care<'q>(new: &NewCare<'_>) -> Query<'q> {
    query(
        "INSERT INTO care (id, campaign, words, paid_after_ms, paid_before_ms, only_sale, not_received, \
         after_ms, after_order, state, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', 'PENDING', $9)",
    )
    .bind(new.id.to_owned())
    .bind(new.campaign.to_owned())
    .bind(new.words.to_owned())
    .bind(new.paid_after_ms)
    .bind(new.paid_before_ms)
    .bind(new.only_sale.map(str::to_owned))
    .bind(i64::from(new.not_received))
    .bind(new.paid_after_ms)
    .bind(new.at_ms)
}

/// Out: all of the oldest care message that is not sent to all.
pub(super) fn due_care<'q>() -> Query<'q> {
    query(
        "SELECT id, campaign, words, paid_before_ms, only_sale, not_received, after_ms, after_order \
         FROM care WHERE state = 'PENDING' ORDER BY id LIMIT 1",
    )
}

/// In: from where (time, order), to when (not included), how many. Out: id, buyer, paid_at_ms, sale_id, received_at_ms,
/// is_whole (not all went back).
pub(super) fn orders_between<'q>(
    after_ms: i64,
    after_order: &str,
    before_ms: i64,
    limit: i64,
) -> Query<'q> {
    query(
        "SELECT id, buyer, paid_at_ms, sale_id, received_at_ms, \
         CASE WHEN refunded_minor < paid_minor OR paid_minor = 0 THEN 1 ELSE 0 END AS is_whole \
         FROM shop_order WHERE (paid_at_ms > $1 OR (paid_at_ms = $2 AND id > $3)) AND paid_at_ms < $4 \
         ORDER BY paid_at_ms, id LIMIT $5",
    )
    .bind(after_ms)
    .bind(after_ms)
    .bind(after_order.to_owned())
    .bind(before_ms)
    .bind(limit)
}

/// In: id, place before and after (time, order), whether it was the last piece. Changes nothing if another process did it.
pub(super) fn advance_care<'q>(
    id: &str,
    from: (i64, &str),
    to: (i64, &str),
    is_done: bool,
) -> Query<'q> {
    query(
        "UPDATE care SET after_ms = $1, after_order = $2, state = $3 \
         WHERE id = $4 AND after_ms = $5 AND after_order = $6 AND state = 'PENDING'",
    )
    .bind(to.0)
    .bind(to.1.to_owned())
    .bind(if is_done { "DONE" } else { "PENDING" })
    .bind(id.to_owned())
    .bind(from.0)
    .bind(from.1.to_owned())
}
