//! The checker: the client log against what the server shows and what its store proves.
//!
//! Five points: (1) never more sold and reserved than there is; (2) every acknowledged reservation is there, as
//! acknowledged; (3) one decision per (sale, buyer, key); (4) the books balance; (5) what was unknown is
//! applied or not applied, never both, and asking twice gives the same. Pure but for [`gather`], [`audit_store`] and [`audit_redis`].

mod gather;

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Audit, Stored};
use crate::log::{Answer, Attempt, Entry, Line, Sight};

pub use gather::{audit_redis, audit_store, gather, look_at_unknowns};

/// Which of the points does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// (1) More sold and reserved than there is.
    Oversold,
    /// (2) An acknowledged answer is not there, or not as acknowledged.
    Lost,
    /// (3) A key with two decisions, or a reservation that no key explains.
    TwoDecisions,
    /// (4) The books do not balance.
    Unbalanced,
    /// (5) An unknown that is both, or neither for ever.
    Undecided,
    /// One buyer has more than one buyer may have.
    Limit,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which point.
    pub rule: Rule,
    /// What, in one sentence.
    pub detail: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// A key of a buyer in a sale.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyOf {
    /// The sale.
    pub sale: String,
    /// The buyer.
    pub buyer: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Display for KeyOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {} of {} in {}", self.key, self.buyer, self.sale)
    }
}

/// What the server shows.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// The admin's audit of each sale.
    pub audits: BTreeMap<String, Audit>,
    /// All reservations of these sales.
    pub listed: Vec<Stored>,
    /// Reads by name, of every reservation that the log names.
    pub by_id: BTreeMap<String, Option<Stored>>,
    /// Reads by key, of every key in the log; two of each that was ever unknown.
    pub by_key: BTreeMap<KeyOf, Vec<Option<Stored>>>,
    /// `stampede audit`: its exit code and what it said.
    pub store_audit: Option<(Option<i32>, String)>,
    /// Most units of an item for one buyer: by (sale, item).
    pub limits: BTreeMap<(String, String), u32>,
}

/// What the log says about one key.
#[derive(Default)]
struct Story<'a> {
    lines: BTreeSet<&'a [Line]>,
    acknowledged: BTreeSet<&'a str>,
    named_by_unknown: BTreeSet<&'a str>,
    has_unknown: bool,
    is_sent: bool,
    // Numbers of the attempts that met a no of business.
    refused: Vec<(usize, &'a str)>,
}

fn stories(entries: &[Entry]) -> BTreeMap<KeyOf, Story<'_>> {
    let mut stories = BTreeMap::<KeyOf, Story<'_>>::new();
    for (number, entry) in entries.iter().enumerate() {
        let Attempt::Purchase {
            sale,
            buyer,
            key,
            lines,
        } = &entry.attempt
        else {
            continue;
        };
        let key = KeyOf {
            sale: sale.clone(),
            buyer: buyer.clone(),
            key: key.clone(),
        };
        let story = stories.entry(key).or_default();
        story.lines.insert(lines);
        story.is_sent |= entry.answer != Some(Answer::NotSent);
        match &entry.answer {
            Some(Answer::Yes { reservation, .. }) => {
                story.acknowledged.insert(reservation);
            }
            Some(Answer::Unknown { reservation, .. }) => {
                story.has_unknown = true;
                story.named_by_unknown.extend(reservation.as_deref());
            }
            None => story.has_unknown = true,
            Some(Answer::No { status, outcome }) => {
                // Too many, too busy, not yet decided: these may meet a key that won.
                let is_business = !matches!(*status, 401 | 408 | 429 | 500..)
                    && outcome != "in_flight"
                    && outcome != "idempotency_key_reused";
                if is_business {
                    story.refused.push((number, outcome));
                }
            }
            Some(Answer::NotSent) => {}
        }
    }
    stories
}

/// Holds a log against the books; nothing found means that all five points hold.
pub fn check(entries: &[Entry], sights: &[Sight], books: &Books) -> Vec<Finding> {
    let stories = stories(entries);
    let mut findings = Vec::new();
    check_stock(books, &mut findings);
    check_limits(books, &mut findings);
    for (key, story) in &stories {
        check_key(key, story, books, &mut findings);
    }
    check_commands(entries, books, &mut findings);
    check_sights(&stories, sights, books, &mut findings);
    check_explained(&stories, books, &mut findings);
    findings
}

fn check_stock(books: &Books, findings: &mut Vec<Finding>) {
    let mut found = |rule, detail| findings.push(Finding { rule, detail });
    for (sale, audit) in &books.audits {
        if !audit.ok {
            found(
                Rule::Unbalanced,
                format!("the audit of {sale} says {:?}", audit.findings),
            );
        }
        for item in &audit.items {
            let name = format!("{} of {sale}", item.item);
            let taken = item.sold_units + item.reserved_units;
            if taken > item.stock_units {
                found(
                    Rule::Oversold,
                    format!("{name}: {taken} taken of {}", item.stock_units),
                );
            }
            if item.unreleased_units + item.available_units + taken != item.stock_units {
                found(Rule::Unbalanced, format!("{name}: {item:?}"));
            }
            let units_in = |states: &[&str]| -> u64 {
                let of_sale = books.listed.iter().filter(|stored| {
                    stored.sale_id == *sale && states.contains(&stored.state.as_str())
                });
                of_sale
                    .flat_map(|stored| &stored.lines)
                    .filter(|line| line.item == item.item)
                    .map(|line| u64::from(line.quantity - line.refunded_units.min(line.quantity)))
                    .sum()
            };
            let (reserved, confirmed) = (units_in(&["reserved"]), units_in(&["confirmed"]));
            if reserved + confirmed > item.stock_units {
                found(
                    Rule::Oversold,
                    format!(
                        "{name}: buyers hold {reserved} and {confirmed}, of {}",
                        item.stock_units
                    ),
                );
            }
            // What was refunded without going back on sale stays sold.
            if reserved != item.reserved_units || confirmed > item.sold_units {
                found(
                    Rule::Unbalanced,
                    format!(
                        "{name}: buyers hold {reserved} and {confirmed}, the audit says {item:?}"
                    ),
                );
            }
        }
    }
    if let Some((code, said)) = &books.store_audit
        && *code != Some(0)
    {
        found(
            Rule::Unbalanced,
            format!("the store's audit ended with {code:?}: {said}"),
        );
    }
}

fn check_limits(books: &Books, findings: &mut Vec<Finding>) {
    let mut held = BTreeMap::<(&str, &str, &str), u32>::new();
    for stored in &books.listed {
        if matches!(stored.state.as_str(), "reserved" | "confirmed") {
            for line in &stored.lines {
                *held
                    .entry((&stored.sale_id, &line.item, &stored.buyer_id))
                    .or_default() += line.quantity - line.refunded_units.min(line.quantity);
            }
        }
    }
    for ((sale, item, buyer), units) in held {
        let limit = books.limits.get(&(sale.to_owned(), item.to_owned()));
        if let Some(limit) = limit.filter(|limit| units > **limit) {
            findings.push(Finding {
                rule: Rule::Limit,
                detail: format!("{buyer} holds {units} of {item} in {sale}, {limit} are allowed"),
            });
        }
    }
}

fn check_key(key: &KeyOf, story: &Story<'_>, books: &Books, findings: &mut Vec<Finding>) {
    let mut found = |rule, detail| findings.push(Finding { rule, detail });
    let reads = books.by_key.get(key).map(Vec::as_slice).unwrap_or_default();
    let by_key = reads.first().and_then(Option::as_ref);
    if story.acknowledged.len() > 1 {
        found(
            Rule::TwoDecisions,
            format!("{key} was given {:?}", story.acknowledged),
        );
    }
    for id in &story.acknowledged {
        match books.by_id.get(*id).and_then(Option::as_ref) {
            None => found(
                Rule::Lost,
                format!("{id}, acknowledged for {key}, is not there"),
            ),
            Some(stored) if !is_of(stored, key, story) => {
                found(
                    Rule::Lost,
                    format!("{id}, acknowledged for {key}, is now {stored:?}"),
                );
            }
            Some(_) => {}
        }
        match by_key {
            None => found(
                Rule::Lost,
                format!("{key} won {id}, but does not lead to it"),
            ),
            Some(stored) if stored.reservation_id != *id => found(
                Rule::TwoDecisions,
                format!("{key} won {id}, but leads to {}", stored.reservation_id),
            ),
            Some(_) => {}
        }
    }
    let Some(stored) = by_key else {
        check_reads(key, reads, findings);
        return;
    };
    let id = stored.reservation_id.as_str();
    if !is_of(stored, key, story) {
        found(
            Rule::Lost,
            format!("{key} leads to what it did not ask for: {stored:?}"),
        );
    }
    if story.acknowledged.is_empty() && !story.has_unknown {
        let told = if story.is_sent {
            "was told no"
        } else {
            "was never sent"
        };
        found(Rule::TwoDecisions, format!("{key} {told}, but has {id}"));
    }
    for named in story.named_by_unknown.iter().filter(|named| **named != id) {
        if books.by_id.get(*named).is_some_and(Option::is_some) {
            found(Rule::Undecided, format!("{key} has both {named} and {id}"));
        }
    }
    check_reads(key, reads, findings);
}

fn check_reads(key: &KeyOf, reads: &[Option<Stored>], findings: &mut Vec<Finding>) {
    let ids: BTreeSet<_> = reads
        .iter()
        .map(|read| read.as_ref().map(|stored| &stored.reservation_id))
        .collect();
    let mut found = |detail| {
        findings.push(Finding {
            rule: Rule::Undecided,
            detail,
        });
    };
    if ids.len() > 1 {
        found(format!("{key} was asked for twice and gave {ids:?}"));
    }
    if reads
        .last()
        .and_then(Option::as_ref)
        .is_some_and(|stored| stored.state == "unknown")
    {
        found(format!("{key} is still unknown"));
    }
}

fn is_of(stored: &Stored, key: &KeyOf, story: &Story<'_>) -> bool {
    stored.sale_id == key.sale
        && stored.buyer_id == key.buyer
        && story.lines.contains(stored.lines().as_slice())
}

fn check_commands(entries: &[Entry], books: &Books, findings: &mut Vec<Finding>) {
    for entry in entries {
        let Some(Answer::Yes { .. }) = &entry.answer else {
            continue;
        };
        let (id, wanted, payment) = match &entry.attempt {
            Attempt::Purchase { .. } => continue,
            Attempt::Confirm {
                reservation,
                payment_ref,
            } => (
                reservation,
                &["confirmed", "refunded"][..],
                Some(payment_ref),
            ),
            Attempt::Cancel { reservation } => (reservation, &["released"][..], None),
        };
        let holds = books
            .by_id
            .get(id)
            .and_then(Option::as_ref)
            .is_some_and(|stored| {
                wanted.contains(&stored.state.as_str())
                    && payment.is_none_or(|payment| stored.payment_ref.as_ref() == Some(payment))
            });
        if !holds {
            findings.push(Finding {
                rule: Rule::Lost,
                detail: format!(
                    "{:?} was acknowledged, but {:?}",
                    entry.attempt,
                    books.by_id.get(id)
                ),
            });
        }
    }
}

fn check_sights(
    stories: &BTreeMap<KeyOf, Story<'_>>,
    sights: &[Sight],
    books: &Books,
    findings: &mut Vec<Finding>,
) {
    for sight in sights {
        let Some(seen) = &sight.reservation else {
            continue;
        };
        let key = KeyOf {
            sale: sight.sale.clone(),
            buyer: sight.buyer.clone(),
            key: sight.key.clone(),
        };
        let now = books
            .by_key
            .get(&key)
            .and_then(|reads| reads.first()?.as_ref());
        if now.is_none_or(|stored| stored.reservation_id != *seen) {
            findings.push(Finding {
                rule: Rule::Undecided,
                detail: format!("{key} was seen with {seen}, now it leads to {now:?}"),
            });
        }
        let refused = stories.get(&key).and_then(|story| {
            story
                .refused
                .iter()
                .find(|(number, _)| *number >= sight.after_attempts)
        });
        if let Some((_, outcome)) = refused {
            findings.push(Finding {
                rule: Rule::Undecided,
                detail: format!("{key} was seen with {seen} and then told {outcome}"),
            });
        }
    }
}

fn check_explained(
    stories: &BTreeMap<KeyOf, Story<'_>>,
    books: &Books,
    findings: &mut Vec<Finding>,
) {
    let explained: BTreeSet<&str> = stories
        .keys()
        .filter_map(|key| books.by_key.get(key))
        .flatten()
        .flatten()
        .map(|stored| stored.reservation_id.as_str())
        .collect();
    let mut seen = BTreeSet::new();
    for stored in &books.listed {
        let id = stored.reservation_id.as_str();
        let why = if !seen.insert(id) {
            "is listed twice"
        } else if !explained.contains(id) {
            "belongs to no key that was sent"
        } else {
            continue;
        };
        findings.push(Finding {
            rule: Rule::TwoDecisions,
            detail: format!("{id} of {} {why}", stored.buyer_id),
        });
    }
    for (key, reads) in &books.by_key {
        for stored in reads.iter().flatten() {
            if !seen.contains(stored.reservation_id.as_str())
                && books.audits.contains_key(&key.sale)
            {
                findings.push(Finding {
                    rule: Rule::Lost,
                    detail: format!("{} of {key} is not in the list", stored.reservation_id),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
