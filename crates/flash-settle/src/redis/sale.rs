//! One sale in Redis, stopped or being sold from: reads everything, each step at one moment together with the events until then.
//!
//! Redis has no read transaction that lasts. But events never change, and each of our scripts writes the events of its
//! batch and all that they change at once. So every step asks in one MULTI/EXEC for the events since the last step and for
//! a part of another key; the part is then held against all events up to that very moment. Nothing that was written in
//! between can look like damage, and no damage can hide behind it.

use std::collections::{BTreeSet, HashMap};

use redis::{Connection, Pipeline, RedisResult};

use super::Listed;
use super::keys::{SALES, SaleKeys};
use super::meta::{Content, Sizes};
use super::text::{Batch, Change, Entry};
use super::told::{Stage, Told, decided_on};
use crate::keys::check_twice;
use crate::report::{Code, FINDINGS_MAX, Report};

/// Fields that one step asks for; Redis serves nobody else meanwhile.
const SCAN_COUNT: usize = 500;
/// Entries of `ev`, up to 256 changes each, that one step asks for.
const EVENTS_COUNT: usize = 50;

/// The steps through one sale.
struct Walk<'a> {
    connection: &'a mut Connection,
    keys: SaleKeys,
    told: Told,
    report: &'a mut Report,
}

/// Fields and their values, in a hash.
type Fields = HashMap<String, String>;
/// The next cursor, and what a step of a scan hands over.
type Scanned = (u64, Vec<(String, String)>);

/// How an entry of a key is held against what the events tell.
type Take = fn(&mut Told, &str, &str, &mut Report);

/// Audits one sale; gives the greatest serial in it.
pub fn audit(
    connection: &mut Connection,
    mut listed: Listed,
    report: &mut Report,
) -> RedisResult<u64> {
    let keys = SaleKeys::of(&listed.sale_id);
    if !is_there(connection, &listed, &keys, report)? {
        return Ok(0);
    }
    if listed.is_making {
        // It may have been listed under another number meanwhile; now that it is made it keeps it.
        let value: Option<String> = redis::cmd("HGET")
            .arg(SALES)
            .arg(&listed.sale_id)
            .query(connection)?;
        let value = value.unwrap_or_default();
        match Listed::of(listed.sale_id.clone(), &value) {
            Some(now) => listed = now,
            None => return Ok(0),
        }
    }
    let mut walk = Walk {
        connection,
        keys,
        told: Told::of(listed.sale_no),
        report,
    };
    walk.events()?;
    walk.scan(Stage::Records, Told::record)?;
    walk.scan(Stage::Keys, Told::key)?;
    walk.scan(Stage::Sums, Told::sum)?;
    walk.scan(Stage::Decisions, Told::decision)?;
    walk.missing()?;
    walk.settle(&listed)?;
    Ok(walk.told.serial_max)
}

/// Whether there is something to audit: `meta`, and no key of another type than it should have.
fn is_there(
    connection: &mut Connection,
    listed: &Listed,
    keys: &SaleKeys,
    report: &mut Report,
) -> RedisResult<bool> {
    let content = keys.content();
    let of_types = [(keys.meta.as_str(), "hash"), (&keys.w, "hash")];
    let all = of_types.into_iter().chain(content);
    let mut pipe = redis::pipe();
    pipe.atomic();
    for (key, _) in all.clone() {
        pipe.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = pipe.query(connection)?;
    let (mut left, mut is_readable) = (Vec::new(), true);
    for ((key, wanted), found) in all.zip(&types) {
        if found != "none" && found != wanted {
            is_readable = false;
            report.add(Code::Damaged, format!("{key} is a {found}, not a {wanted}"));
        }
        if found != "none" && key != keys.w {
            left.push(key);
        }
    }
    if types[0] != "none" {
        return Ok(is_readable);
    }
    // A sale that is being made has nothing before its first batch, and all after it.
    if !listed.is_making || !left.is_empty() {
        let left = match &left[..] {
            [] => "and nothing else of it is left".into(),
            left => format!("of it there are {}", left.join(", ")),
        };
        report.add(
            Code::SaleMissing,
            format!("{} is not there, {left}", keys.meta),
        );
    }
    Ok(false)
}

impl Walk<'_> {
    /// Reads `ev` up to its end.
    fn events(&mut self) -> RedisResult<()> {
        loop {
            let entries = self.entries(&after(self.told.id.as_deref()))?;
            if entries.is_empty() {
                return Ok(());
            }
            self.take(&entries);
        }
    }

    fn entries(&mut self, from: &str) -> RedisResult<Vec<Entry>> {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.keys.ev).arg(from).arg("+");
        range.arg("COUNT").arg(EVENTS_COUNT).query(self.connection)
    }

    fn take(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.told.take(entry, self.report);
        }
    }

    /// Begins a step: the first answer is the events since the last one.
    fn step(&self) -> Pipeline {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("XRANGE").arg(&self.keys.ev);
        pipe.arg(after(self.told.id.as_deref())).arg("+");
        pipe
    }

    /// Holds all of one key against the events. What was there when the scan began and stayed is handed over by HSCAN.
    fn scan(&mut self, stage: Stage, take: Take) -> RedisResult<()> {
        let key = match stage {
            Stage::Events | Stage::Records => &self.keys.resv,
            Stage::Keys => &self.keys.key,
            Stage::Sums => &self.keys.buyer,
            Stage::Decisions => &self.keys.reference,
        };
        let key = key.clone();
        self.told.begin(stage);
        let mut cursor = 0_u64;
        loop {
            let mut pipe = self.step();
            pipe.cmd("HSCAN").arg(&key).arg(cursor);
            pipe.arg("COUNT").arg(SCAN_COUNT);
            let (events, (next, fields)): (Vec<Entry>, Scanned) = pipe.query(self.connection)?;
            self.take(&events);
            for (field, value) in &fields {
                take(&mut self.told, field, value, self.report);
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// What events made and no scan found.
    fn missing(&mut self) -> RedisResult<()> {
        let (told, report) = (&self.told, &mut *self.report);
        let reservations = told.fold.reservations.iter().zip(&told.marks);
        for (reservation, mark) in reservations {
            let name = reservation.name();
            if !mark.has_record {
                let detail = format!("events speak of {name}, which is not there");
                report.add(Code::ReservationMissing, detail);
            }
            if !mark.has_key {
                let detail = format!("the key that won {name} does not point at it");
                report.add(Code::KeyIndex, detail);
            }
            if mark.list != 0 && !mark.has_list {
                let serial = reservation.serial;
                let detail = format!("of|{serial} is not there, events decided on {name}");
                report.add(Code::DecisionMissing, detail);
            }
        }
        let mut held: Vec<_> = told
            .held
            .iter()
            .filter(|(_, held)| held.units > 0 && !held.is_found)
            .map(|((_, item), held)| (held.serial, *item, held.units))
            .collect();
        let decided = told.decisions.values().filter(|decided| !decided.is_found);
        let mut decided: Vec<u64> = decided.map(|decided| decided.serial).collect();
        held.sort_unstable();
        decided.sort_unstable();
        self.missing_in_words(&held, &decided)
    }

    /// Reads the names of what is missing from its events.
    fn missing_in_words(&mut self, held: &[(u64, u16, i64)], decided: &[u64]) -> RedisResult<()> {
        let serials = held.iter().map(|(serial, ..)| *serial);
        let serials = serials.chain(decided.iter().copied());
        let lines = self.lines_of(serials.take(FINDINGS_MAX).collect())?;
        let line_of = |serial| lines.get(serial).and_then(|line| Change::of(line));
        let sale_no = self.told.sale_no;
        for (serial, item, units) in held {
            let buyer = match line_of(serial) {
                Some(Change::Reserved(reserved)) => reserved.buyer.to_owned(),
                Some(Change::Event(_) | Change::Run(_)) | None => {
                    format!("the buyer of r{sale_no}-{serial}")
                }
            };
            let detail = format!(
                "{buyer}|{item} is not there, the reservations of that buyer sum to {units}"
            );
            self.report.add(Code::BuyerSum, detail);
        }
        for serial in decided {
            let event = match line_of(serial) {
                Some(Change::Event(event)) => {
                    let reservation = event.reservation;
                    let of = reservation.map(|serial| format!(" of r{sale_no}-{serial}"));
                    format!(
                        "event {serial} ({}{}) decided on {}",
                        event.kind,
                        of.unwrap_or_default(),
                        decided_on(event.reference, event.data)
                    )
                }
                Some(Change::Reserved(_) | Change::Run(_)) | None => {
                    format!("event {serial} decided")
                }
            };
            let detail = format!("{event}; that decision is not there");
            self.report.add(Code::DecisionMissing, detail);
        }
        Ok(())
    }

    /// The lines of these events and reservations. Reads `ev` once more, unless there are none.
    fn lines_of(&mut self, mut serials: BTreeSet<u64>) -> RedisResult<HashMap<u64, String>> {
        let mut lines = HashMap::new();
        let mut from = after(None);
        while !serials.is_empty() {
            let entries = self.entries(&from)?;
            for batch in entries.iter().filter_map(Batch::of) {
                for line in batch.lines.split('\n') {
                    let mut keep = |serial: u64, line: &dyn Fn() -> String| {
                        if serials.remove(&serial) {
                            lines.insert(serial, line());
                        }
                    };
                    match Change::of(line) {
                        Some(Change::Event(event)) => keep(event.serial, &|| line.to_owned()),
                        Some(Change::Reserved(one)) => keep(one.serial, &|| line.to_owned()),
                        Some(Change::Run(run)) => run
                            .reservations()
                            .flatten()
                            .for_each(|one| keep(one.serial, &|| one.line())),
                        None => {}
                    }
                }
            }
            match entries.last() {
                Some((id, _)) => from = after(Some(id)),
                None => break,
            }
        }
        Ok(lines)
    }

    /// The last step: `meta` and all sizes.
    fn settle(&mut self, listed: &Listed) -> RedisResult<()> {
        let mut pipe = self.step();
        pipe.cmd("HGETALL").arg(&self.keys.meta);
        pipe.cmd("HGETALL").arg(&self.keys.w);
        for (key, kind) in self.keys.content() {
            let size = if kind == "hash" { "HLEN" } else { "XLEN" };
            pipe.cmd(size).arg(key);
        }
        type Answers = (Vec<Entry>, Fields, Fields, u64, u64, u64, u64, u64, u64);
        let (events, meta, w, resv, key, buyer, reference, ev, note): Answers =
            pipe.query(self.connection)?;
        self.take(&events);
        let content = Content {
            meta,
            w,
            sizes: Sizes {
                resv,
                key,
                buyer,
                reference,
                ev,
                note,
            },
        };
        content.check(listed, &self.told, self.report);
        let told = &self.told;
        self.report.counts.decisions += told.decisions.len() as u64;
        self.report.counts.notes += note;
        let reservations = told.fold.reservations.iter().zip(&told.marks);
        let mut keys: Vec<(u64, u64)> = reservations
            .map(|(reservation, mark)| (mark.key, reservation.serial))
            .collect();
        check_twice(&mut keys, self.report);
        Ok(())
    }
}

/// Where a range begins that leaves this entry and all before it out.
fn after(id: Option<&str>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| format!("({id}"))
}
