//! The audit of a store in Redis: which sales there are, and then one after the other.

mod keys;
mod meta;
mod sale;
mod text;
mod told;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use flash_store::RedisUrl;
use flash_types::bounds;
use redis::{Connection, ErrorKind, RedisError, RedisResult};

use crate::audit::AuditError;
use crate::report::{Code, Report};
use keys::{NOTE, OF_SALES, SALES, START, STORE, sale_of};

/// Within which a connection must stand.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// Within which an answer must be there.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Names of keys that one step asks for.
const SCAN_COUNT: usize = 1_000;

/// A sale as the directory lists it.
#[derive(Debug)]
pub struct Listed {
    pub sale_id: String,
    pub sale_no: u32,
    /// Its first batch may not be there yet.
    pub is_making: bool,
}

impl Listed {
    /// Reads `number` or `number|making`.
    fn of(sale_id: String, value: &str) -> Option<Self> {
        let number = value.strip_suffix("|making");
        Some(Self {
            sale_id,
            sale_no: text::number(number.unwrap_or(value))?,
            is_making: number.is_some(),
        })
    }
}

/// Proves the books of the store in a Redis from that Redis alone. Blocks, and writes nothing; an engine goes on selling
/// meanwhile, and what it commits is looked at as far as the audit still comes by it. `ca_file`: certificates (PEM) of
/// the authority that signed the server's; the system's where absent.
///
/// # Errors
/// [`AuditError`] where there is nothing to audit, or Redis does not answer. Damage is not an error: it is in the report.
pub fn audit_redis(url: &str, ca_file: Option<&Path>) -> Result<Report, AuditError> {
    let url = RedisUrl::parse(url).map_err(AuditError::Redis)?;
    let shown = url.shown();
    let away = |error: RedisError| AuditError::Redis(format!("cannot read {shown}: {error}"));
    let client = url.client(ca_file).map_err(AuditError::Redis)?;
    let mut connection = connect(&client).map_err(away)?;
    let mut report = Report::default();
    match run(&mut connection, &mut report) {
        Ok(true) => {}
        Ok(false) => return Err(AuditError::Empty { shown }),
        Err(error) if is_damage(&error) => report.add(Code::Damaged, error.to_string()),
        Err(error) => return Err(away(error)),
    }
    report.ok = report.findings.is_empty();
    Ok(report)
}

fn connect(client: &redis::Client) -> RedisResult<Connection> {
    let connection = client.get_connection_with_timeout(CONNECTED_WITHIN)?;
    connection.set_read_timeout(Some(ANSWERED_WITHIN))?;
    connection.set_write_timeout(Some(ANSWERED_WITHIN))?;
    Ok(connection)
}

/// What is stored cannot be read, as opposed to: Redis cannot be asked.
fn is_damage(error: &RedisError) -> bool {
    let kind = error.kind();
    kind == ErrorKind::Parse
        || kind == ErrorKind::UnexpectedReturnType
        || error.code() == Some("WRONGTYPE")
}

/// Audits all; `false` where there is no store.
fn run(connection: &mut Connection, report: &mut Report) -> RedisResult<bool> {
    // Before the directory: a sale has keys only once it is listed.
    let with_keys = sales_with_keys(connection)?;
    let mut pipe = redis::pipe();
    pipe.cmd("GET").arg(STORE).cmd("HGETALL").arg(SALES);
    let (name, fields): (Option<String>, HashMap<String, String>) = pipe.query(connection)?;
    if name.is_none() && fields.is_empty() && with_keys.is_empty() {
        return Ok(false);
    }
    if name.is_none() {
        report.add(Code::Damaged, format!("{STORE} is not there"));
    }
    for sale_id in &with_keys {
        if !fields.contains_key(sale_id) {
            let detail = format!("it has keys, {SALES} does not list it");
            report.add_of(Code::SaleMissing, Some(sale_id), None, detail);
        }
    }
    let mut serial_max = 0;
    for listed in directory(fields, report) {
        let (from, sale_id) = (report.findings.len(), listed.sale_id.clone());
        match sale::audit(connection, listed, report) {
            Ok(serial) => serial_max = serial_max.max(serial),
            Err(error) if is_damage(&error) => {
                report.add(Code::Damaged, format!("it cannot be read: {error}"));
            }
            Err(error) => return Err(error),
        }
        report.name_sale(from, &sale_id);
    }
    check_start(connection, serial_max, report)?;
    let notes: u64 = redis::cmd("XLEN").arg(NOTE).query(connection)?;
    report.counts.notes += notes;
    Ok(true)
}

/// Sales of which there are keys, whether they are listed or not.
fn sales_with_keys(connection: &mut Connection) -> RedisResult<BTreeSet<String>> {
    let (mut sales, mut cursor) = (BTreeSet::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(OF_SALES);
        let (next, names): (u64, Vec<Vec<u8>>) =
            scan.arg("COUNT").arg(SCAN_COUNT).query(connection)?;
        for name in names {
            if let Some(sale_id) = std::str::from_utf8(&name).ok().and_then(sale_of) {
                sales.insert(sale_id.to_owned());
            }
        }
        cursor = next;
        if cursor == 0 {
            return Ok(sales);
        }
    }
}

/// Sales by their numbers.
fn directory(fields: HashMap<String, String>, report: &mut Report) -> Vec<Listed> {
    let mut listed = Vec::with_capacity(fields.len());
    for (sale_id, value) in fields {
        match Listed::of(sale_id.clone(), &value) {
            Some(sale) => listed.push(sale),
            None => {
                let detail = format!("{SALES} lists it as {value:?}");
                report.add_of(Code::Damaged, Some(&sale_id), None, detail);
            }
        }
    }
    listed.sort_unstable_by(|one, next| {
        (one.sale_no, &one.sale_id).cmp(&(next.sale_no, &next.sale_id))
    });
    // A number of which nothing came is given again.
    let made = listed.iter().filter(|sale| !sale.is_making);
    for (one, next) in made.clone().zip(made.skip(1)) {
        if one.sale_no == next.sale_no {
            let (other, number) = (&one.sale_id, one.sale_no);
            let detail = format!("{SALES} gives it the number of {other}, {number}");
            report.add_of(Code::SaleAltered, Some(&next.sale_id), None, detail);
        }
    }
    listed
}

/// Every serial is of a start that was counted.
fn check_start(
    connection: &mut Connection,
    serial_max: u64,
    report: &mut Report,
) -> RedisResult<()> {
    // After all events: the start of each was counted before it.
    let start: Option<String> = redis::cmd("GET").arg(START).query(connection)?;
    let needed = serial_max / bounds::SERIALS_PER_EPOCH;
    let start = start.unwrap_or_default();
    if text::number::<u64>(&start).is_none_or(|start| start < needed) {
        let detail = format!("{START} is {start:?}, the last serial is of start {needed}");
        report.add(Code::StartMissing, detail);
    }
    Ok(())
}
