//! Reads of events, and of what was counted. The streams are read in steps, an entry holds a whole batch.
//!
//! Within a sale ids ascend, and so do the times of entries; that is what every search here rests on. Events of all sales
//! are merged by (time, sale, place), and end before the time that Redis told first: what is committed later has that time
//! or a later one, so nothing can come to stand before what was handed out.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flash_types::{SaleNo, Serial, Timestamp};
use redis::{FromRedisValue, RedisResult};

use super::keys::{SEPARATOR, SaleKeys};
use super::lane::Lane;
use super::read::{Connection, Reader, failed};
use super::wire::record_of;
use crate::words::{ATTEMPTS, EventWords, as_it_stood, attempts_of, is_internal};
use crate::{
    AttemptsRow, EventPlace, EventRow, Page, ReadError, ReservationFilter, ReservationRow,
};

/// Entries of a stream that one step asks for.
const ENTRIES_STEP: usize = 16;
/// Places that an entry has for its changes: more than a batch can have.
const PLACES: u64 = 4_096;
/// Sales that one step asks about.
const SALES_STEP: usize = 256;
/// Records that one step asks for.
const RECORDS_STEP: usize = 256;

const _: () = assert!(PLACES > flash_types::bounds::REDIS_BATCH_JOBS_MAX as u64);

/// An entry of `ev`: one batch.
struct Entry {
    generation: u64,
    number: u64,
    at: Timestamp,
    lines: String,
}

/// The id of an entry.
type Id = (u64, u64);

impl Entry {
    fn id(&self) -> Id {
        (self.generation, self.number)
    }

    fn of((id, fields): &(String, Vec<String>)) -> Result<Self, ReadError> {
        let broken = || ReadError(format!("the event entry {id} cannot be read"));
        let (generation, number) = id.split_once('-').ok_or_else(broken)?;
        let [at_name, at, lines_name, lines] = &fields[..] else {
            return Err(broken());
        };
        if at_name != "at" || lines_name != "c" {
            return Err(broken());
        }
        Ok(Self {
            generation: generation.parse().map_err(|_| broken())?,
            number: number.parse().map_err(|_| broken())?,
            at: Timestamp(at.parse().map_err(|_| broken())?),
            lines: lines.clone(),
        })
    }

    fn place(&self, line: u64) -> EventPlace {
        EventPlace {
            generation: self.generation,
            sequence: self.number * PLACES + line,
        }
    }

    /// Its changes in their order, those of a run one by one.
    fn changes(&self) -> Result<Vec<EventWords>, ReadError> {
        let mut changes = Vec::new();
        for line in self.lines.split('\n') {
            let is_read = match line.as_bytes().first() {
                Some(b'W') => run_of(line, &mut changes),
                _ => change_of(line).map(|words| changes.push(words)),
            };
            is_read.ok_or_else(|| {
                let (generation, number) = self.id();
                ReadError(format!(
                    "{line:?} of event entry {generation}-{number} cannot be read"
                ))
            })?;
        }
        Ok(changes)
    }
}

/// `R|serial|buyer|key|lines` or `E|serial|type|reservation|reference|data`.
fn change_of(line: &str) -> Option<EventWords> {
    let mut parts = line.splitn(6, SEPARATOR);
    let (letter, serial) = (parts.next()?, parts.next()?);
    if letter == "R" {
        let (_, key) = (parts.next()?, parts.next()?);
        return reserved(serial, key);
    }
    let (kind, of) = (parts.next()?, parts.next()?);
    let (reference, data) = (parts.next()?, parts.next()?);
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Some(EventWords {
        kind: kind.to_owned().into(),
        reservation: match of {
            "" => None,
            serial => Some(Serial(serial.parse().ok()?)),
        },
        reference: text(reference),
        data: text(data),
    })
    .filter(|_| letter == "E")
}

/// `W;line;serials;buyer|key fields`.
fn run_of(line: &str, changes: &mut Vec<EventWords>) -> Option<()> {
    let mut parts = line.split(';').skip(2);
    let (serials, fields) = (parts.next()?, parts.next()?);
    let mut fields = fields.split(',');
    for serial in serials.split(',') {
        let (_, key) = fields.next()?.split_once(SEPARATOR)?;
        changes.push(reserved(serial, key)?);
    }
    fields.next().is_none().then_some(())
}

fn reserved(serial: &str, key: &str) -> Option<EventWords> {
    Some(EventWords {
        kind: "reservation.reserved".into(),
        reservation: Some(Serial(serial.parse().ok()?)),
        reference: Some(key.to_owned()),
        data: None,
    })
}

/// One sale's stream.
struct Stream<'a> {
    connection: &'a mut Connection,
    keys: &'a SaleKeys,
    sale_no: SaleNo,
}

impl Stream<'_> {
    async fn ask<T: FromRedisValue>(&mut self, cmd: &redis::Cmd) -> Result<T, ReadError> {
        let asked: RedisResult<T> = cmd.query_async(self.connection).await;
        asked.map_err(failed)
    }

    /// Entries from an id on, that one included.
    async fn entries(&mut self, from: Id, count: usize) -> Result<Vec<Entry>, ReadError> {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&self.keys.ev).arg(format!("{}-{}", from.0, from.1));
        let read: Vec<(String, Vec<String>)> =
            self.ask(cmd.arg("+").arg("COUNT").arg(count)).await?;
        read.iter().map(Entry::of).collect()
    }

    async fn first_from(&mut self, from: Id) -> Result<Option<Entry>, ReadError> {
        Ok(self.entries(from, 1).await?.pop())
    }

    /// The last entry up to an id, that one included.
    async fn last_until(&mut self, until: &str) -> Result<Option<Entry>, ReadError> {
        Ok(self.last_entries(until, 1).await?.pop())
    }

    /// Entries up to an id, that one included, from the last on.
    async fn last_entries(&mut self, until: &str, count: usize) -> Result<Vec<Entry>, ReadError> {
        let mut cmd = redis::cmd("XREVRANGE");
        cmd.arg(&self.keys.ev).arg(&[until, "-", "COUNT"]);
        let read: Vec<(String, Vec<String>)> = self.ask(cmd.arg(count)).await?;
        read.iter().map(Entry::of).collect()
    }

    /// The place of the last event that anybody is told: a sale that ended is counted on for a while.
    async fn last_told(&mut self) -> Result<Option<EventPlace>, ReadError> {
        let (mut until, mut count) = ("+".to_owned(), 1);
        loop {
            let entries = self.last_entries(&until, count).await?;
            let Some(first) = entries.last() else {
                return Ok(None);
            };
            // The id itself does not belong to what follows.
            until = format!("({}-{}", first.generation, first.number);
            count = ENTRIES_STEP;
            for entry in &entries {
                let lines = (0..).zip(entry.changes()?);
                let told = lines.filter(|(_, words)| !is_internal(&words.kind));
                if let Some((line, _)) = told.last() {
                    return Ok(Some(entry.place(line)));
                }
            }
        }
    }

    /// The first entry of this time or a later one. Generations are few and their numbers lie close; the numbers of
    /// entries go on over all of them.
    async fn first_at(&mut self, at: Timestamp) -> Result<Option<Entry>, ReadError> {
        let Some(last) = self.last_until("+").await? else {
            return Ok(None);
        };
        if last.at < at {
            return Ok(None);
        }
        // The least generation from which on all are so late; the entry looked for lies in the one before, or is its first.
        let mut found = last.id();
        let (mut low, mut high) = (0, last.generation + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_from((middle, 0)).await? {
                Some(entry) if entry.at < at => low = middle + 1,
                Some(entry) => {
                    found = found.min(entry.id());
                    high = middle;
                }
                None => high = middle,
            }
        }
        let generation = low.saturating_sub(1);
        let (mut low, mut high) = (0, last.number + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_from((generation, middle)).await? {
                Some(entry) if entry.at < at => low = middle + 1,
                Some(entry) => {
                    found = found.min(entry.id());
                    high = middle;
                }
                None => high = middle,
            }
        }
        self.first_from(found).await
    }

    /// The events of these entries that are told, after a place, with their reservations.
    async fn told(
        &mut self,
        entries: &[Entry],
        after: EventPlace,
        limit: usize,
    ) -> Result<Vec<EventRow>, ReadError> {
        let mut told = Vec::new();
        'all: for entry in entries {
            for (line, words) in (0..).zip(entry.changes()?) {
                let place = entry.place(line);
                if told.len() == limit {
                    break 'all;
                }
                if place > after && !is_internal(&words.kind) {
                    told.push((place, entry.at, words));
                }
            }
        }
        let records = self.records(&told).await?;
        let rows = told.into_iter().map(|(place, at, words)| {
            let reservation = match words.reservation {
                Some(serial) => {
                    let missing = || format!("reservation {} of an event is missing", serial.0);
                    let (row, made_with) = records.get(&serial).ok_or_else(missing)?;
                    Some(as_it_stood(row.clone(), &words, *made_with)?)
                }
                None => None,
            };
            Ok(EventRow {
                sale_no: self.sale_no,
                place,
                kind: words.kind.into_owned(),
                at,
                reservation,
                reference: words.reference,
                data: words.data,
            })
        });
        rows.collect::<Result<_, String>>().map_err(ReadError)
    }

    /// The reservations of these events, each with the expiry that it was made with.
    async fn records(
        &mut self,
        told: &[(EventPlace, Timestamp, EventWords)],
    ) -> Result<HashMap<Serial, (ReservationRow, Timestamp)>, ReadError> {
        let serials = told.iter().filter_map(|(_, _, words)| words.reservation);
        let serials: BTreeSet<u64> = serials.map(|serial| serial.0).collect();
        let mut records = HashMap::with_capacity(serials.len());
        if serials.is_empty() {
            return Ok(records);
        }
        let mut cmd = redis::cmd("HGET");
        let window_ms: u64 = self.ask(cmd.arg(&[&self.keys.meta, "window_ms"])).await?;
        let serials: Vec<u64> = serials.into_iter().collect();
        for serials in serials.chunks(RECORDS_STEP) {
            for row in self.rows(serials).await?.into_iter().flatten() {
                let made_with = row.created_at.plus(Duration::from_millis(window_ms));
                records.insert(row.serial, (row, made_with));
            }
        }
        Ok(records)
    }

    async fn rows(&mut self, serials: &[u64]) -> Result<Vec<Option<ReservationRow>>, ReadError> {
        let mut cmd = redis::cmd("HMGET");
        let texts: Vec<Option<String>> = self.ask(cmd.arg(&self.keys.resv).arg(serials)).await?;
        let rows = serials.iter().zip(texts).map(|(serial, text)| {
            let row = text.map(|text| record_of(self.sale_no, &serial.to_string(), &text));
            row.transpose().map_err(ReadError)
        });
        rows.collect()
    }
}

/// Where a list of all sales' events goes on: after what was handed out last.
struct From {
    at: Timestamp,
    sale_no: SaleNo,
    place: EventPlace,
}

impl Reader {
    pub async fn events(
        &self,
        lane: &Lane,
        after: EventPlace,
        limit: usize,
    ) -> Result<Vec<EventRow>, ReadError> {
        let mut connection = self.connection().await?;
        let mut stream = stream(&mut connection, lane);
        let (mut rows, mut from) = (Vec::new(), id_of(after));
        while rows.len() < limit {
            let entries = stream.entries(from, ENTRIES_STEP).await?;
            let Some(last) = entries.last() else { break };
            from = next(last.id());
            rows.extend(stream.told(&entries, after, limit - rows.len()).await?);
        }
        Ok(rows)
    }

    pub async fn events_of_all(
        &self,
        lanes: &[Arc<Lane>],
        after: Option<(SaleNo, EventPlace)>,
        limit: usize,
    ) -> Result<Vec<EventRow>, ReadError> {
        let mut connection = self.connection().await?;
        let now = time(&mut connection).await?;
        let from = self.from(&mut connection, lanes, after).await?;
        let lanes = late_enough(&mut connection, lanes, from.at).await?;
        // The next entry of each sale; of one sale at a time the entries themselves.
        let mut heads = BinaryHeap::new();
        for (index, lane) in lanes.iter().enumerate() {
            let mut stream = stream(&mut connection, lane);
            let head = match lane.sale_no.cmp(&from.sale_no) {
                std::cmp::Ordering::Equal => stream.first_from(id_of(from.place)).await?,
                std::cmp::Ordering::Less => stream.first_at(Timestamp(from.at.0 + 1)).await?,
                std::cmp::Ordering::Greater => stream.first_at(from.at).await?,
            };
            heads.extend(head.map(|head| Reverse((head.at, lane.sale_no, head.id(), index))));
        }
        let mut rows = Vec::new();
        while let Some(Reverse((at, sale_no, id, index))) = heads.pop() {
            if rows.len() >= limit || at >= now {
                break;
            }
            let place = if sale_no == from.sale_no {
                from.place
            } else {
                EventPlace::default()
            };
            let mut stream = stream(&mut connection, &lanes[index]);
            let mut entries = stream.entries(id, ENTRIES_STEP).await?;
            let others = heads
                .peek()
                .map(|Reverse((at, sale_no, ..))| (*at, *sale_no));
            let is_due = |entry: &Entry| {
                entry.at < now && others.is_none_or(|others| (entry.at, sale_no) < others)
            };
            let due = entries.iter().take_while(|entry| is_due(entry)).count();
            let rest = entries.split_off(due);
            rows.extend(stream.told(&entries, place, limit - rows.len()).await?);
            let head = match (rest.into_iter().next(), entries.last()) {
                (Some(head), _) => Some(head),
                (None, Some(last)) => stream.first_from(next(last.id())).await?,
                (None, None) => None,
            };
            heads.extend(head.map(|head| Reverse((head.at, sale_no, head.id(), index))));
        }
        Ok(rows)
    }

    /// The time of an event. Of one that was lost, that of what came before it: rather twice than not at all.
    async fn from(
        &self,
        connection: &mut Connection,
        lanes: &[Arc<Lane>],
        after: Option<(SaleNo, EventPlace)>,
    ) -> Result<From, ReadError> {
        let first = From {
            at: Timestamp(0),
            sale_no: SaleNo(0),
            place: EventPlace::default(),
        };
        let Some((sale_no, place)) = after else {
            return Ok(first);
        };
        let Some(lane) = lanes.iter().find(|lane| lane.sale_no == sale_no) else {
            return Err(ReadError(format!("sale {} is not in Redis", sale_no.0)));
        };
        let (generation, number) = id_of(place);
        let until = format!("{generation}-{number}");
        let at = stream(connection, lane).last_until(&until).await?;
        Ok(From {
            at: at.map_or(Timestamp(0), |entry| entry.at),
            sale_no,
            place,
        })
    }

    pub async fn attempts(&self, lane: &Lane) -> Result<Vec<AttemptsRow>, ReadError> {
        let mut connection = self.connection().await?;
        let mut stream = stream(&mut connection, lane);
        let (mut rows, mut from) = (Vec::new(), (0, 0));
        loop {
            let entries = stream.entries(from, ENTRIES_STEP).await?;
            let Some(last) = entries.last() else {
                return Ok(rows);
            };
            from = next(last.id());
            // Most entries have none, and need not be taken apart.
            let counted = entries
                .iter()
                .filter(|entry| entry.lines.contains(ATTEMPTS));
            for entry in counted {
                for words in entry.changes()? {
                    if words.kind == ATTEMPTS {
                        let row = attempts_of(words.data.as_deref().unwrap_or_default());
                        rows.push(row.map_err(ReadError)?);
                    }
                }
            }
        }
    }

    pub async fn last_places(
        &self,
        lanes: &[Arc<Lane>],
    ) -> Result<Vec<(SaleNo, EventPlace)>, ReadError> {
        let mut connection = self.connection().await?;
        let mut places = Vec::new();
        for lane in lanes {
            let last = stream(&mut connection, lane).last_told().await?;
            places.extend(last.map(|place| (lane.sale_no, place)));
        }
        Ok(places)
    }

    /// A page of those reservations that changed after a time. What did is told by the events since then.
    pub async fn updated(
        &self,
        lane: &Lane,
        time: Timestamp,
        filter: ReservationFilter,
        page: Page,
    ) -> Result<Vec<ReservationRow>, ReadError> {
        let mut connection = self.connection().await?;
        let mut stream = stream(&mut connection, lane);
        let mut serials = BTreeSet::new();
        let mut from = match stream.first_at(Timestamp(time.0.saturating_add(1))).await? {
            Some(first) => first.id(),
            None => return Ok(Vec::new()),
        };
        loop {
            let entries = stream.entries(from, ENTRIES_STEP).await?;
            let Some(last) = entries.last() else { break };
            from = next(last.id());
            for entry in &entries {
                let changed = entry.changes()?.into_iter();
                let changed = changed.filter_map(|words| words.reservation);
                serials.extend(changed.filter(|serial| *serial > page.after));
            }
        }
        let serials: Vec<u64> = serials.into_iter().map(|serial| serial.0).collect();
        let mut rows = Vec::new();
        for serials in serials.chunks(RECORDS_STEP) {
            let read = stream.rows(serials).await?.into_iter().flatten();
            let wanted = read.filter(|row| super::read::is_wanted(row, filter));
            rows.extend(wanted.take(page.limit - rows.len()));
            if rows.len() == page.limit {
                break;
            }
        }
        Ok(rows)
    }
}

fn stream<'a>(connection: &'a mut Connection, lane: &'a Lane) -> Stream<'a> {
    Stream {
        connection,
        keys: &lane.keys,
        sale_no: lane.sale_no,
    }
}

/// The entry that a place lies in.
fn id_of(place: EventPlace) -> Id {
    (place.generation, place.sequence / PLACES)
}

/// The first id that comes after another.
fn next((generation, number): Id) -> Id {
    (generation, number + 1)
}

async fn time(connection: &mut Connection) -> Result<Timestamp, ReadError> {
    let asked = redis::cmd("TIME").query_async(connection).await;
    let (seconds, micros): (i64, i64) = asked.map_err(failed)?;
    Ok(Timestamp(seconds * 1_000 + micros / 1_000))
}

/// Those sales of which something happened at this time or later.
async fn late_enough(
    connection: &mut Connection,
    lanes: &[Arc<Lane>],
    at: Timestamp,
) -> Result<Vec<Arc<Lane>>, ReadError> {
    let mut late = Vec::new();
    for lanes in lanes.chunks(SALES_STEP) {
        let mut pipe = redis::pipe();
        for lane in lanes {
            pipe.cmd("HGET").arg(&lane.keys.meta).arg("clock_ms");
        }
        let clocks: RedisResult<Vec<Option<i64>>> = pipe.query_async(connection).await;
        let clocks = clocks.map_err(failed)?;
        let with_clocks = lanes.iter().zip(clocks);
        let late_ones = with_clocks.filter(|(_, clock)| clock.is_some_and(|clock| clock >= at.0));
        late.extend(late_ones.map(|(lane, _)| Arc::clone(lane)));
    }
    Ok(late)
}
