//! How the fields in Redis read: entries of `ev` and their lines, records of `resv`, decisions of `ref`. Pure.

use std::str::FromStr;

use serde::Deserialize;

use crate::fold::{
    CONFIRMED, EXPIRED, Event, Line, REFUNDED, RELEASED, RESERVED, decision_content, decision_place,
};

/// An entry of a stream: its id, then its fields and values in turn.
pub type Entry = (String, Vec<String>);

/// A number as the scripts write it: digits, no zero before them.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain && is_short)
}

/// An entry of `ev`: one batch.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub generation: u64,
    pub number: u64,
    pub at_ms: i64,
    /// One line for each change.
    pub lines: &'a str,
}

impl<'a> Batch<'a> {
    pub fn of((id, fields): &'a Entry) -> Option<Self> {
        let (generation, number_of_batch) = id.split_once('-')?;
        let [at, at_ms, c, lines] = &fields[..] else {
            return None;
        };
        (at == "at" && c == "c").then_some(())?;
        Some(Self {
            generation: number(generation)?,
            number: number(number_of_batch)?,
            at_ms: number(at_ms)?,
            lines,
        })
    }
}

/// A line of a batch: one change.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    Reserved(Reserved<'a>),
    Run(Run<'a>),
    Event(EventLine<'a>),
}

/// `R|serial|buyer|key|lines`: a reservation that was made.
#[derive(Debug, Clone, Copy)]
pub struct Reserved<'a> {
    pub serial: u64,
    pub buyer: &'a str,
    pub key: &'a str,
    pub lines: &'a str,
}

/// `W;lines;serials;keys`: a run of reservations with the same line; serials and `buyer|key` are parted by `,`.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    lines: &'a str,
    serials: &'a str,
    keys: &'a str,
}

impl<'a> Run<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';');
        let run = Self {
            lines: parts.next()?,
            serials: parts.next()?,
            keys: parts.next()?,
        };
        let is_even = run.serials.split(',').count() == run.keys.split(',').count();
        (is_even && parts.next().is_none()).then_some(run)
    }

    /// The reservations in their order; `None` for one that cannot be read.
    pub fn reservations(self) -> impl Iterator<Item = Option<Reserved<'a>>> {
        let pairs = self.serials.split(',').zip(self.keys.split(','));
        pairs.map(move |(serial, field)| {
            let (buyer, key) = field.split_once('|')?;
            Some(Reserved {
                serial: number(serial)?,
                buyer,
                key,
                lines: self.lines,
            })
        })
    }
}

/// `E|serial|type|reservation|reference|data`: any other change. Absent parts are empty.
#[derive(Debug, Clone, Copy)]
pub struct EventLine<'a> {
    pub serial: u64,
    pub kind: &'a str,
    pub reservation: Option<u64>,
    pub reference: Option<&'a str>,
    pub data: Option<&'a str>,
}

impl<'a> Change<'a> {
    pub fn of(text: &'a str) -> Option<Self> {
        if let Some(run) = text.strip_prefix("W;") {
            return Run::of(run).map(Self::Run);
        }
        let present = |text: &'a str| (!text.is_empty()).then_some(text);
        let mut parts = text.splitn(6, '|');
        let mut next = || parts.next();
        match next()? {
            "R" => {
                let reserved = Reserved {
                    serial: number(next()?)?,
                    buyer: next()?,
                    key: next()?,
                    lines: next()?,
                };
                next().is_none().then_some(Self::Reserved(reserved))
            }
            "E" => Some(Self::Event(EventLine {
                serial: number(next()?)?,
                kind: next()?,
                reservation: match next()? {
                    "" => None,
                    serial => Some(number(serial)?),
                },
                reference: present(next()?),
                data: present(next()?),
            })),
            _ => None,
        }
    }
}

impl Reserved<'_> {
    /// As a line of its own.
    pub fn line(&self) -> String {
        format!(
            "R|{}|{}|{}|{}",
            self.serial, self.buyer, self.key, self.lines
        )
    }
}

/// Lines as they were reserved, nothing refunded yet: `item,units,price`, parted by `;`.
pub fn reserved_lines(text: &str) -> Option<Vec<Line>> {
    let line = |part| line_of(part).filter(|(_, facts)| *facts == part);
    text.split(';')
        .map(|part| line(part).map(|(line, _)| line))
        .collect()
}

/// `item,units,price[,refunded,restocked]`; and of that the part that never changes.
fn line_of(text: &str) -> Option<(Line, &str)> {
    let parts: Vec<&str> = text.split(',').collect();
    let (item, units, price, refunded, restocked) = match parts[..] {
        [item, units, price] => (item, units, price, "0", "0"),
        [item, units, price, refunded, restocked] => (item, units, price, refunded, restocked),
        _ => return None,
    };
    number::<i64>(price)?;
    let line = Line {
        item: number(item)?,
        units: number(units)?,
        refunded: number(refunded)?,
        restocked: number(restocked)?,
        ..Line::default()
    };
    let facts_bytes = item.len() + 1 + units.len() + 1 + price.len();
    Some((line, &text[..facts_bytes]))
}

/// A record of `resv`: `state|created_ms|expires_ms|buyer|key|payment|lines`.
#[derive(Debug)]
pub struct Record<'a> {
    pub state: u8,
    pub buyer: &'a str,
    pub key: &'a str,
    pub payment: Option<&'a str>,
    pub lines: Vec<Line>,
    pub expires_ms: i64,
    /// What never changes of it.
    pub facts: String,
}

impl<'a> Record<'a> {
    pub fn of(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(7, '|').collect();
        let [state, created, expires, buyer, key, payment, lines] = parts[..] else {
            return None;
        };
        let lines: Vec<(Line, &str)> = lines.split(';').map(line_of).collect::<Option<_>>()?;
        let plain: Vec<&str> = lines.iter().map(|(_, facts)| *facts).collect();
        Some(Self {
            state: state_of(state)?,
            buyer,
            key,
            payment: (!payment.is_empty()).then_some(payment),
            expires_ms: number(expires)?,
            facts: facts(created, buyer, key, &plain.join(";")),
            lines: lines.into_iter().map(|(line, _)| line).collect(),
        })
    }
}

/// What never changes of a reservation, as one text.
pub fn facts(created: &str, buyer: &str, key: &str, lines: &str) -> String {
    format!("{created}|{buyer}|{key}|{lines}")
}

fn state_of(letter: &str) -> Option<u8> {
    Some(match letter {
        "r" => RESERVED,
        "c" => CONFIRMED,
        "l" => RELEASED,
        "e" => EXPIRED,
        "f" => REFUNDED,
        _ => return None,
    })
}

/// Place and content of a decision: `kind|scope|reference` -> `outcome|serial|detail`.
pub fn decision_of(sale_no: u32, field: &str, value: &str) -> Option<(u64, u64)> {
    let mut parts = field.splitn(3, '|');
    let (kind, scope, reference) = (parts.next()?, number(parts.next()?)?, parts.next()?);
    let mut parts = value.splitn(3, '|');
    let (outcome, serial, detail) = (parts.next()?, number::<u64>(parts.next()?)?, parts.next()?);
    let detail = (!detail.is_empty()).then_some(detail);
    Some((
        decision_place(sale_no, kind, reference, scope),
        decision_content(outcome, (serial != 0).then_some(serial), detail),
    ))
}

/// The field of `ref` in which what an event decided on a reservation stands.
pub fn decision_field(event: &Event<'_>, reservation: u64) -> String {
    let reference = event.reference.unwrap_or_default();
    if event.kind == "reservation.refunded" {
        format!("refund|{reservation}|{reference}")
    } else if event.reference.is_none() {
        // Nobody paid or asked: the price of an item fell.
        let item = facts_of(event.data).item;
        format!("price_protection|{reservation}|{item}")
    } else {
        format!("payment|0|{reference}")
    }
}

/// Of the facts of an event those that only this audit needs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventFacts {
    pub item: u16,
    /// Until when a reservation is kept from now on.
    pub until: i64,
}

/// What cannot be read is told by the fold.
pub fn facts_of(data: Option<&str>) -> EventFacts {
    let facts = data.and_then(|data| serde_json::from_str(data).ok());
    facts.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        assert_eq!(number::<u64>("0"), Some(0));
        assert_eq!(number::<u64>("120"), Some(120));
        for other in ["", "-1", "+1", "01", "00", "1 ", "1.0", "x"] {
            assert_eq!(number::<i64>(other), None, "{other:?}");
        }
        assert_eq!(number::<u16>("65536"), None);
    }

    #[test]
    fn lines_of_a_batch_are_read() {
        let data = r#"{"reason":"a|b"}"#;
        let text = format!("E|7|sale.frozen|||{data}");
        match Change::of(&text) {
            Some(Change::Event(event)) => {
                assert_eq!((event.serial, event.kind), (7, "sale.frozen"));
                assert_eq!((event.reservation, event.reference), (None, None));
                assert_eq!(event.data, Some(data));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            Change::of("R|8|b|k|0,1,2;1,1,2"),
            Some(Change::Reserved(Reserved { serial: 8, .. }))
        ));
        let Some(Change::Run(run)) = Change::of("W;0,1,2;8,9;b|k,c|l") else {
            panic!("a run");
        };
        let lines: Vec<String> = run.reservations().map(|one| one.unwrap().line()).collect();
        assert_eq!(lines, ["R|8|b|k|0,1,2", "R|9|c|l|0,1,2"]);
        let Some(Change::Run(run)) = Change::of("W;0,1,2;8,x;b|k,c|l") else {
            panic!("a run");
        };
        assert_eq!(run.reservations().filter(Option::is_none).count(), 1);
        for broken in ["W;0,1,2;8,9;b|k", "W;0,1,2;8", "W;0,1,2;8;b|k;x"] {
            assert!(Change::of(broken).is_none(), "{broken:?}");
        }
        for broken in [
            "",
            "R|8|b|k",
            "R|8|b|k|0,1,2|x",
            "R|x|b|k|0,1,2",
            "E|7|sale.paused||",
            "E|7|sale.paused|x||",
            "X|7|||",
        ] {
            assert!(Change::of(broken).is_none(), "{broken:?}");
        }
        assert_eq!(reserved_lines("0,1,2;3,4,5").unwrap().len(), 2);
        for broken in ["", "0,1", "0,1,2;", "0,1,2,0,0", "70000,1,2", "0,1,-2"] {
            assert!(reserved_lines(broken).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn the_facts_of_a_record_leave_out_what_changes() {
        let new = Record::of("r|1|2|b|k||0,1,9;1,2,9").unwrap();
        let old = Record::of("f|1|3|b|k|p|0,1,9,1,0;1,2,9,2,2").unwrap();
        assert_eq!(new.facts, old.facts);
        assert_eq!((new.payment, old.payment), (None, Some("p")));
        assert_eq!((new.expires_ms, old.expires_ms), (2, 3));
        assert_eq!((old.lines[1].refunded, old.lines[1].restocked), (2, 2));
        assert_ne!(
            new.facts,
            Record::of("r|1|2|b|k||0,1,9;1,2,8").unwrap().facts
        );
        for broken in [
            "r|1|x|b|k||0,1,9",
            "r|1|2|b|k|0,1,9",
            "q|1|2|b|k||0,1,9",
            "r|1|2|b|k||0,1,9,1",
        ] {
            assert!(Record::of(broken).is_none(), "{broken:?}");
        }
    }
}
