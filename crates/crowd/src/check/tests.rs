use super::*;
use crate::api::{AuditItem, StoredLine};

const SALE: &str = "s";

fn lines(units: u32) -> Vec<Line> {
    vec![("i".into(), units)]
}

fn purchase(buyer: &str, key: &str, answer: Option<Answer>) -> Entry {
    Entry {
        sent_at_ms: 0,
        attempt: Attempt::Purchase {
            sale: SALE.into(),
            buyer: buyer.into(),
            key: key.into(),
            lines: lines(1),
        },
        answer,
    }
}

fn yes(id: &str) -> Option<Answer> {
    Some(Answer::Yes {
        status: 201,
        reservation: id.into(),
    })
}

fn no(outcome: &str) -> Option<Answer> {
    Some(Answer::No {
        status: 409,
        outcome: outcome.into(),
    })
}

fn unknown(id: Option<&str>) -> Option<Answer> {
    Some(Answer::Unknown {
        why: "504".into(),
        reservation: id.map(str::to_owned),
    })
}

fn stored(id: &str, buyer: &str, state: &str) -> Stored {
    Stored {
        reservation_id: id.into(),
        sale_id: SALE.into(),
        buyer_id: buyer.into(),
        state: state.into(),
        lines: vec![StoredLine {
            item: "i".into(),
            quantity: 1,
            refunded_units: 0,
        }],
        payment_ref: (state == "confirmed").then(|| format!("pay-{id}")),
    }
}

fn key_of(buyer: &str, key: &str) -> KeyOf {
    KeyOf {
        sale: SALE.into(),
        buyer: buyer.into(),
        key: key.into(),
    }
}

/// A world in which all is well: a paid, a reserved, a lost-answer one and a refused one.
fn world() -> (Vec<Entry>, Vec<Sight>, Books) {
    let confirm = Entry {
        sent_at_ms: 0,
        attempt: Attempt::Confirm {
            reservation: "r1".into(),
            payment_ref: "pay-r1".into(),
        },
        answer: yes("r1"),
    };
    let entries = vec![
        purchase("a", "k1", yes("r1")),
        purchase("b", "k1", yes("r2")),
        purchase("b", "k1", yes("r2")),
        purchase("c", "k1", unknown(None)),
        purchase("d", "k1", no("sold_out")),
        purchase("e", "k1", None),
        confirm,
    ];
    let sights = vec![Sight {
        sale: SALE.into(),
        buyer: "c".into(),
        key: "k1".into(),
        reservation: Some("r3".into()),
        after_attempts: 6,
    }];
    let all = [
        stored("r1", "a", "confirmed"),
        stored("r2", "b", "reserved"),
        stored("r3", "c", "reserved"),
    ];
    let mut books = Books {
        listed: all.to_vec(),
        ..Books::default()
    };
    for one in &all {
        books
            .by_id
            .insert(one.reservation_id.clone(), Some(one.clone()));
        let times = if one.buyer_id == "c" { 2 } else { 1 };
        let reads = vec![Some(one.clone()); times];
        books.by_key.insert(key_of(&one.buyer_id, "k1"), reads);
    }
    books.by_key.insert(key_of("d", "k1"), vec![None]);
    books.by_key.insert(key_of("e", "k1"), vec![None, None]);
    let item = AuditItem {
        item: "i".into(),
        stock_units: 3,
        unreleased_units: 0,
        available_units: 0,
        reserved_units: 2,
        sold_units: 1,
    };
    let audit = Audit {
        ok: true,
        items: vec![item],
        findings: vec![],
    };
    books.audits.insert(SALE.into(), audit);
    books.store_audit = Some((Some(0), String::new()));
    books.limits.insert((SALE.into(), "i".into()), 1);
    (entries, sights, books)
}

/// Plants one fault and sees that this rule, and no other unless it is named, is found broken.
fn planted(
    fault: impl FnOnce(&mut Vec<Entry>, &mut Vec<Sight>, &mut Books),
    expected: &[Rule],
) -> Vec<Finding> {
    let (mut entries, mut sights, mut books) = world();
    fault(&mut entries, &mut sights, &mut books);
    let findings = check(&entries, &sights, &books);
    let rules: BTreeSet<_> = findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, expected.iter().copied().collect(), "{findings:#?}");
    findings
}

fn item(books: &mut Books) -> &mut AuditItem {
    &mut books.audits.get_mut(SALE).unwrap().items[0]
}

#[test]
fn a_world_in_which_all_is_well_has_no_findings() {
    planted(|_, _, _| {}, &[]);
}

#[test]
fn more_taken_than_there_is() {
    planted(
        |_, _, books| item(books).stock_units = 2,
        &[Rule::Oversold, Rule::Unbalanced],
    );
}

#[test]
fn counters_that_agree_with_themselves_but_not_with_the_reservations() {
    planted(
        |_, _, books| {
            item(books).reserved_units = 1;
            item(books).available_units = 1;
        },
        &[Rule::Unbalanced],
    );
}

#[test]
fn a_leak_that_nobody_holds() {
    planted(
        |_, _, books| item(books).stock_units = 4,
        &[Rule::Unbalanced],
    );
}

#[test]
fn an_acknowledged_reservation_that_is_gone() {
    planted(
        |_, _, books| {
            books.by_id.insert("r2".into(), None);
            books.by_key.insert(key_of("b", "k1"), vec![None]);
            books.listed.retain(|one| one.reservation_id != "r2");
            item(books).reserved_units = 1;
            item(books).available_units = 1;
        },
        &[Rule::Lost],
    );
}

#[test]
fn an_acknowledged_reservation_with_other_lines_or_another_buyer() {
    let alter = |change: fn(&mut Stored)| {
        move |_: &mut Vec<Entry>, _: &mut Vec<Sight>, books: &mut Books| {
            change(books.by_id.get_mut("r1").unwrap().as_mut().unwrap());
        }
    };
    planted(alter(|one| one.lines[0].quantity = 2), &[Rule::Lost]);
    planted(alter(|one| one.buyer_id = "z".into()), &[Rule::Lost]);
}

#[test]
fn an_acknowledged_payment_or_release_that_is_gone() {
    planted(
        |_, _, books| {
            let paid = books.by_id.get_mut("r1").unwrap().as_mut().unwrap();
            paid.payment_ref = Some("another".into());
        },
        &[Rule::Lost],
    );
    planted(
        |entries, _, _| {
            entries.push(Entry {
                sent_at_ms: 0,
                attempt: Attempt::Cancel {
                    reservation: "r2".into(),
                },
                answer: yes("r2"),
            });
        },
        &[Rule::Lost],
    );
}

#[test]
fn a_key_with_two_reservations() {
    planted(
        |entries, _, books| {
            entries.push(purchase("b", "k1", yes("r9")));
            let twin = stored("r9", "b", "released");
            books.by_id.insert("r9".into(), Some(twin.clone()));
            books.listed.push(twin);
        },
        &[Rule::TwoDecisions],
    );
}

#[test]
fn a_reservation_that_no_key_explains() {
    planted(
        |_, _, books| books.listed.push(stored("r9", "c", "expired")),
        &[Rule::TwoDecisions],
    );
}

#[test]
fn a_no_that_took_units() {
    planted(
        |_, _, books| {
            let taken = stored("r9", "d", "released");
            books.listed.push(taken.clone());
            books.by_key.insert(key_of("d", "k1"), vec![Some(taken)]);
        },
        &[Rule::TwoDecisions],
    );
}

#[test]
fn an_unknown_that_is_both() {
    planted(
        |entries, _, books| {
            entries.push(purchase("c", "k1", unknown(Some("r8"))));
            let other = stored("r8", "c", "released");
            books.by_id.insert("r8".into(), Some(other));
        },
        &[Rule::Undecided],
    );
}

#[test]
fn an_unknown_that_gives_another_answer_each_time() {
    planted(
        |_, _, books| {
            let reads = books.by_key.get_mut(&key_of("c", "k1")).unwrap();
            reads[1] = None;
        },
        &[Rule::Undecided],
    );
}

#[test]
fn an_unknown_that_never_ends() {
    planted(
        |_, _, books| {
            for read in books.by_key.get_mut(&key_of("c", "k1")).unwrap() {
                read.as_mut().unwrap().state = "unknown".into();
            }
        },
        &[Rule::Undecided],
    );
}

#[test]
fn an_unknown_that_was_seen_applied_and_then_told_no() {
    planted(
        |entries, _, _| {
            entries.insert(6, purchase("c", "k1", no("sold_out")));
        },
        &[Rule::Undecided],
    );
    planted(
        |_, sights, _| sights[0].reservation = Some("r7".into()),
        &[Rule::Undecided],
    );
}

#[test]
fn a_no_that_came_before_the_win_is_no_finding() {
    planted(
        |entries, _, _| entries.insert(0, purchase("b", "k1", no("sold_out"))),
        &[],
    );
}

#[test]
fn one_buyer_with_more_than_allowed() {
    planted(
        |_, _, books| {
            books.limits.insert((SALE.into(), "i".into()), 0);
        },
        &[Rule::Limit],
    );
}

#[test]
fn an_audit_of_the_store_that_does_not_pass() {
    planted(
        |_, _, books| books.store_audit = Some((Some(3), "event missing".into())),
        &[Rule::Unbalanced],
    );
}
