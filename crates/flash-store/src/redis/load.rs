//! From Redis to rows: the directory of sales, and all that is stored of one sale, held against its own counts.

use std::collections::{HashMap, HashSet};

use flash_types::{SaleDefinition, SaleId, SaleNo, SaleState, Serial};
use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::keys::{SALES, SaleKeys};
use super::wire::{decision_of, items_of, record_of};
use crate::{DecisionRow, ReservationRow, SaleContent, SaleRow};

/// Fields that one step of a scan asks for.
const SCAN_COUNT: u32 = 1_000;

/// Why a sale could not be read.
#[derive(Debug)]
pub enum LoadError {
    Redis(RedisError),
    /// Its keys contradict themselves.
    Broken(String),
}

impl LoadError {
    /// Names the sale that is broken.
    pub fn of(self, sale_id: &SaleId) -> Self {
        match self {
            Self::Broken(what) => Self::Broken(format!("sale {sale_id}: {what}")),
            Self::Redis(error) => Self::Redis(error),
        }
    }
}

impl From<RedisError> for LoadError {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        // Somebody else wrote the key: asking again does not help.
        if text.contains("WRONGTYPE") {
            Self::Broken(text)
        } else {
            Self::Redis(error)
        }
    }
}

impl From<String> for LoadError {
    fn from(what: String) -> Self {
        Self::Broken(what)
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Redis(error) => error.fmt(f),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

/// A sale as the directory lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub sale_id: SaleId,
    pub sale_no: SaleNo,
    /// Its first batch may not be there.
    pub is_making: bool,
}

/// What the directory lists, ascending by number.
pub async fn directory(connection: &mut MultiplexedConnection) -> Result<Vec<Listed>, LoadError> {
    let fields: HashMap<String, String> = redis::cmd("HGETALL")
        .arg(SALES)
        .query_async(connection)
        .await?;
    let mut listed = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let broken = || format!("the directory of sales lists {name:?} as {value:?}");
        let (number, is_making) = match value.strip_suffix("|making") {
            Some(number) => (number, true),
            None => (value.as_str(), false),
        };
        listed.push(Listed {
            sale_id: SaleId::parse(&name).map_err(|_| broken())?,
            sale_no: SaleNo(number.parse().map_err(|_| broken())?),
            is_making,
        });
    }
    listed.sort_unstable_by_key(|sale| sale.sale_no);
    Ok(listed)
}

/// Plan, state and counters of a sale; `None` where it has no `meta`.
pub async fn sale(
    connection: &mut MultiplexedConnection,
    keys: &SaleKeys,
) -> Result<Option<(SaleRow, Sizes)>, LoadError> {
    let meta: HashMap<String, String> = redis::cmd("HGETALL")
        .arg(&keys.meta)
        .query_async(connection)
        .await?;
    if meta.is_empty() {
        return Ok(None);
    }
    let field = |name: &str| {
        meta.get(name)
            .ok_or_else(|| format!("{} has no field {name}", keys.meta))
    };
    let number = |name: &str| {
        let text = field(name)?;
        text.parse::<u64>()
            .map_err(|_| format!("{}: {name} is {text:?}", keys.meta))
    };
    let definition: SaleDefinition = serde_json::from_str(field("def")?)
        .map_err(|error| format!("the plan in {}: {error}", keys.meta))?;
    let state = field("state")?;
    let row = SaleRow {
        sale_no: SaleNo(u32::try_from(number("sale_no")?).map_err(|error| error.to_string())?),
        state: SaleState::parse(state).ok_or_else(|| format!("the state {state:?}"))?,
        is_retired: field("retired")? == "1",
        items: items_of(&definition, |name| meta.get(name).cloned())?,
        definition,
    };
    let sizes = Sizes {
        resv: number("n_resv")?,
        key: number("n_key")?,
        buyer: number("n_buyer")?,
        reference: number("n_ref")?,
        note: number("n_note")?,
        ev: number("ev")?,
        clock_ms: number("clock_ms")?,
        thaw: meta.get("thaw").and_then(|state| SaleState::parse(state)),
    };
    Ok(Some((row, sizes)))
}

/// How much there has to be of a sale, by its `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub resv: u64,
    pub key: u64,
    pub buyer: u64,
    pub reference: u64,
    pub note: u64,
    pub ev: u64,
    pub clock_ms: u64,
    /// The state before a freeze.
    pub thaw: Option<SaleState>,
}

impl Sizes {
    /// The first key that has another size than it should.
    pub async fn difference(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &SaleKeys,
    ) -> Result<Option<String>, RedisError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HLEN").arg(&keys.resv);
        pipe.cmd("HLEN").arg(&keys.key);
        pipe.cmd("HLEN").arg(&keys.buyer);
        pipe.cmd("HLEN").arg(&keys.reference);
        pipe.cmd("XLEN").arg(&keys.note);
        pipe.cmd("XLEN").arg(&keys.ev);
        let there: Vec<u64> = pipe.query_async(connection).await?;
        let wanted = [
            (&keys.resv, self.resv),
            (&keys.key, self.key),
            (&keys.buyer, self.buyer),
            (&keys.reference, self.reference),
            (&keys.note, self.note),
            (&keys.ev, self.ev),
        ];
        let differs = wanted
            .iter()
            .zip(there)
            .find(|((_, wanted), there)| wanted != there);
        Ok(
            differs
                .map(|((key, wanted), there)| format!("{key} holds {there} of {wanted} entries")),
        )
    }
}

/// All reservations of a sale, ascending by serial.
pub async fn reservations(
    connection: &mut MultiplexedConnection,
    keys: &SaleKeys,
    sale_no: SaleNo,
) -> Result<Vec<ReservationRow>, LoadError> {
    let mut rows = Vec::new();
    // A hash that grows while it is scanned may hand a field over twice.
    let mut seen = HashSet::new();
    let mut cursor = 0_u64;
    loop {
        let (next, fields): (u64, Vec<(String, String)>) =
            scan(connection, &keys.resv, cursor).await?;
        for (serial, text) in &fields {
            let row = record_of(sale_no, serial, text)?;
            if seen.insert(row.serial) {
                rows.push(row);
            }
        }
        cursor = next;
        if cursor == 0 {
            rows.sort_unstable_by_key(|row| row.serial);
            return Ok(rows);
        }
    }
}

/// All decisions of a sale.
pub async fn decisions(
    connection: &mut MultiplexedConnection,
    keys: &SaleKeys,
    sale_no: SaleNo,
) -> Result<Vec<DecisionRow>, LoadError> {
    let mut rows = HashMap::new();
    let mut cursor = 0_u64;
    loop {
        let (next, fields): (u64, Vec<(String, String)>) =
            scan(connection, &keys.reference, cursor).await?;
        for (field, value) in fields {
            if !field.starts_with("of|") {
                let row = decision_of(sale_no, &field, &value)?;
                rows.insert(field, row);
            }
        }
        cursor = next;
        if cursor == 0 {
            return Ok(rows.into_values().collect());
        }
    }
}

/// Number of the last note of a stream; 0 for none.
pub async fn last_note(
    connection: &mut MultiplexedConnection,
    stream: &str,
) -> Result<u64, LoadError> {
    let last: Vec<(String, Vec<String>)> = redis::cmd("XREVRANGE")
        .arg(&[stream, "+", "-", "COUNT", "1"])
        .query_async(connection)
        .await?;
    let number = last
        .first()
        .and_then(|(id, _)| id.split('-').next()?.parse().ok());
    Ok(number.unwrap_or(0))
}

pub async fn scan(
    connection: &mut MultiplexedConnection,
    key: &str,
    cursor: u64,
) -> Result<(u64, Vec<(String, String)>), RedisError> {
    redis::cmd("HSCAN")
        .arg(key)
        .arg(cursor)
        .arg("COUNT")
        .arg(SCAN_COUNT)
        .query_async(connection)
        .await
}

/// All that is stored of one sale, complete and without contradictions that a ledger could not bear. The sale must
/// stand still meanwhile: its writer is fenced, or frozen. Of a retired sale only its row.
pub async fn content(
    connection: &mut MultiplexedConnection,
    keys: &SaleKeys,
) -> Result<Option<(SaleContent, Sizes)>, LoadError> {
    let Some((sale, sizes)) = sale(connection, keys).await? else {
        return Ok(None);
    };
    if let Some(what) = sizes.difference(connection, keys).await? {
        return Err(LoadError::Broken(what));
    }
    let (mut rows, mut decided) = (Vec::new(), Vec::new());
    if !sale.is_retired {
        rows = reservations(connection, keys, sale.sale_no).await?;
        decided = decisions(connection, keys, sale.sale_no).await?;
        check(&sale, &rows, &decided)?;
    }
    let content = SaleContent {
        ev: sizes.ev,
        thaw: sizes.thaw,
        sale,
        reservations: rows,
        decisions: decided,
    };
    Ok(Some((content, sizes)))
}

/// Rows that contradict each other would panic in the ledger: told here.
fn check(
    sale: &SaleRow,
    reservations: &[ReservationRow],
    decisions: &[DecisionRow],
) -> Result<(), String> {
    let mut keys = HashSet::with_capacity(reservations.len());
    let mut serials: HashMap<Serial, &ReservationRow> = HashMap::with_capacity(reservations.len());
    for row in reservations {
        let told = |what: &str| Err(format!("reservation {}: {what}", row.serial.0));
        if !keys.insert((row.buyer, row.key)) {
            return told("its key won twice");
        }
        let has_items = row
            .lines
            .iter()
            .all(|line| usize::from(line.item.0) < sale.items.len());
        let is_ordered = row.lines.is_sorted_by(|one, next| one.item < next.item);
        let is_whole = row.lines.iter().all(|line| {
            line.restocked_units <= line.refunded_units && line.refunded_units <= line.units
        });
        if !has_items || !is_ordered || !is_whole {
            return told("its lines are not those of this sale");
        }
        serials.insert(row.serial, row);
    }
    for row in decisions {
        if let Some(reservation) = row.decision.reservation {
            let Some(of) = serials.get(&reservation) else {
                return Err(format!(
                    "{:?} {} speaks of reservation {}, which is not there",
                    row.decision.kind, row.decision.reference, reservation.0
                ));
            };
            let is_taken = row.decision.kind == crate::DecisionKind::PaymentTaken;
            let payment = of.payment_ref.map(|payment| payment.as_str().to_owned());
            if is_taken && payment.as_deref() != Some(&row.decision.reference) {
                return Err(format!(
                    "reservation {} was paid by {payment:?}, its decision says {}",
                    reservation.0, row.decision.reference
                ));
            }
        }
    }
    Ok(())
}
