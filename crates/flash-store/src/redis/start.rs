//! The start on a Redis: this node is registered, takes every sale over under a new epoch, and loads it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flash_types::{SaleNo, SaleState, Timestamp, bounds};
use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::RedisConfig;
use super::beat::BEAT_INTERVAL;
use super::keys::{NODES, NOTE, SALES, START, STORE, SaleKeys};
use super::lane::{Attested, Lane, Place, Scripts};
use super::link::{Link, LinkError, Linker};
use super::load::{self, Listed, LoadError};
use super::shared::{Shared, StoreTime, unexpected};
use super::witness::{NAME_BYTES, Witness};
use crate::{OpenError, SaleContent, SaleRow};

/// A node not seen for so long is dead.
const LIFE: Duration = Duration::from_secs(15);

/// What a start found.
pub struct Found {
    pub shared: Shared,
    pub lanes: HashMap<SaleNo, Arc<Lane>>,
    pub loaded: Vec<SaleContent>,
    pub unlisted: HashMap<SaleNo, String>,
    pub last_at: Timestamp,
}

/// Registers, joins every sale and loads it.
pub async fn start(config: &RedisConfig, linker: Linker) -> Result<Found, OpenError> {
    let shown = linker.shown().to_owned();
    let away = |error: RedisError| OpenError::Away(format!("{shown}: {error}"));
    let unfit = |why: String| OpenError::Redis(format!("{shown}: {why}"));
    let mut link = linker.link().await.map_err(|error| match error {
        LinkError::Away(why) => OpenError::Away(why),
        LinkError::Unfit(why) => OpenError::Redis(why),
    })?;
    let scripts = Scripts::new();
    let time = Arc::new(StoreTime::new());
    let file = Witness::path_in(&config.data);
    let unreadable =
        |error: std::io::Error| OpenError::Redis(format!("cannot use {}: {error}", file.display()));
    let witness = Witness::open(&config.data).map_err(unreadable)?;
    let remembered = witness.store().map_err(unreadable)?;
    if let Some(name) = &remembered {
        let there: Option<String> = redis::cmd("GET")
            .arg(STORE)
            .query_async(&mut link.connection)
            .await
            .map_err(away)?;
        if there.as_ref() != Some(name) {
            return Err(unfit(format!(
                "this is not the store that {} worked with, or it lost everything; restore its append-only file, \
                 or, to begin anew, move {} away",
                config.data.display(),
                file.display()
            )));
        }
    }
    let mut least_start = witness.start().map_err(unreadable)? + 1;
    let (mut found, mut greatest_serial);
    loop {
        let entered = enter(config, &scripts, &mut link.connection, least_start).await;
        let (start, now, name) = match entered.map_err(away)? {
            Entered::In { start, now, name } => (start, now, name),
            Entered::Busy { node, seen_ms_ago } => {
                return Err(unfit(format!(
                    "node {node} serves these sales, seen {:.1} s ago; one node at a time: stop it, or start as it \
                     with --node {node}; one that died is forgotten after {} s",
                    seen_ms_ago as f64 / 1e3,
                    LIFE.as_secs()
                )));
            }
        };
        if start >= bounds::EPOCH_MAX {
            return Err(unfit(format!(
                "it was started {start} times, the most there can be"
            )));
        }
        time.observe(now, Instant::now());
        if remembered.is_none() {
            witness.set_store(&name).map_err(unreadable)?;
        }
        witness.set_start(start).map_err(unreadable)?;
        let shared = Shared::new(
            linker.clone(),
            Scripts::new(),
            config.node.clone(),
            (start, name),
            Arc::clone(&time),
            Witness::open(&config.data).map_err(unreadable)?,
            link.durability,
        );
        (found, greatest_serial) = load_all(shared, &mut link).await?;
        // Serials of a start that Redis does not remember: a number above all of them is taken.
        if greatest_serial / bounds::SERIALS_PER_EPOCH < start {
            return Ok(found);
        }
        least_start = greatest_serial / bounds::SERIALS_PER_EPOCH + 1;
    }
}

/// What `enter` said.
enum Entered {
    In {
        start: u64,
        now: Timestamp,
        name: String,
    },
    Busy {
        node: String,
        seen_ms_ago: u64,
    },
}

async fn enter(
    config: &RedisConfig,
    scripts: &Scripts,
    connection: &mut MultiplexedConnection,
    least_start: u64,
) -> Result<Entered, RedisError> {
    let life_ms = LIFE.as_millis().to_string();
    let words = Shared::run(
        connection,
        &scripts.enter,
        &[NODES, START, STORE],
        &[
            &config.node,
            &life_ms,
            &least_start.to_string(),
            &random_name(),
        ],
    )
    .await?;
    let failed = || unexpected("enter", &words);
    Ok(
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["OK", start, now, name] => Entered::In {
                start: start.parse().map_err(|_| failed())?,
                now: Timestamp(now.parse().map_err(|_| failed())?),
                name: name.to_owned(),
            },
            ["BUSY", node, ago] => Entered::Busy {
                node: node.to_owned(),
                seen_ms_ago: ago.parse().map_err(|_| failed())?,
            },
            _ => return Err(failed()),
        },
    )
}

fn random_name() -> String {
    let mut bytes = [0_u8; NAME_BYTES / 2];
    // Without randomness a name of zeros: it then only fails to tell two stores apart.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Joins and loads every sale; gives the greatest serial too.
async fn load_all(shared: Shared, link: &mut Link) -> Result<(Found, u64), OpenError> {
    let shown = shared.linker.shown().to_owned();
    let away = |error: RedisError| OpenError::Away(format!("{shown}: {error}"));
    let failed = |error: LoadError| match error {
        LoadError::Redis(error) => away(error),
        LoadError::Broken(what) => OpenError::Redis(format!("{shown}: {what}")),
    };
    let listed = load::directory(&mut link.connection)
        .await
        .map_err(failed)?;
    let mut found = Found {
        shared,
        lanes: HashMap::new(),
        loaded: Vec::new(),
        unlisted: HashMap::new(),
        last_at: Timestamp(0),
    };
    let noted = load::last_note(&mut link.connection, NOTE).await;
    let mut greatest_serial = noted.map_err(failed)?;
    let (mut absent, mut missing) = (Vec::new(), Vec::new());
    let mut beaten_at = Instant::now();
    for sale in &listed {
        // Many sales take their time: nobody must take this node for dead meanwhile.
        if beaten_at.elapsed() > BEAT_INTERVAL {
            let beat = found.shared.beat(&mut link.connection, false).await;
            beat.map_err(away)?;
            beaten_at = Instant::now();
        }
        let loaded = load_sale(sale, &found.shared, link).await;
        let sale_keys = SaleKeys::of(&sale.sale_id);
        match loaded.map_err(|error| failed(error.of(&sale.sale_id)))? {
            Some((place, content, clock_ms, missing)) => {
                if let Some(missing) = missing {
                    found.unlisted.insert(sale.sale_no, missing);
                }
                found.last_at = found.last_at.max(Timestamp(clock_ms));
                if let Some(row) = content.reservations.last() {
                    greatest_serial = greatest_serial.max(row.serial.0);
                }
                match load::last_note(&mut link.connection, &sale_keys.note).await {
                    Ok(number) => greatest_serial = greatest_serial.max(number),
                    Err(LoadError::Redis(error)) => return Err(away(error)),
                    // The sale is frozen for it already.
                    Err(LoadError::Broken(_)) => {}
                }
                let lane = Lane::new(sale.sale_no, sale.sale_id, place);
                found.lanes.insert(sale.sale_no, Arc::new(lane));
                found.loaded.push(content);
            }
            None => absent.push(sale),
        }
    }
    for sale in absent {
        // A draft that was not taken leaves its name in the directory, and its number to the next one.
        let is_another = found.lanes.contains_key(&sale.sale_no);
        if sale.is_making && (is_another || !found.shared.is_acknowledged(sale.sale_no)) {
            redis::cmd("HDEL")
                .arg(SALES)
                .arg(sale.sale_id.as_str())
                .query_async::<()>(&mut link.connection)
                .await
                .map_err(away)?;
        } else {
            missing.push(format!("{} (number {})", sale.sale_id, sale.sale_no.0));
        }
    }
    let remembered = found.shared.witness.sales().unwrap_or_default();
    for (sale_no, _) in remembered {
        if !listed.iter().any(|sale| sale.sale_no == sale_no) {
            missing.push(format!("number {}", sale_no.0));
        }
    }
    if !missing.is_empty() {
        return Err(OpenError::Redis(format!(
            "{shown}: sales are gone that were acknowledged: {}; restore its append-only file, or, to begin anew, \
             use an empty Redis and move {} away",
            missing.join(", "),
            found.shared.witness.path().display()
        )));
    }
    Ok((found, greatest_serial))
}

/// Takes one sale over: next epoch, nothing missing, content. `None` where it has no keys.
async fn load_sale(
    sale: &Listed,
    shared: &Shared,
    link: &mut Link,
) -> Result<Option<(Place, SaleContent, i64, Option<String>)>, LoadError> {
    let keys = SaleKeys::of(&sale.sale_id);
    let connection = &mut link.connection;
    if load::sale(connection, &keys).await?.is_none() {
        return Ok(None);
    }
    let joined = shared.join(connection, &keys).await?;
    let acked = shared.witness.event(sale.sale_no).unwrap_or(0);
    let mut missing = None;
    if joined.home != link.run_id || joined.ev < acked {
        let numbers = (joined.epoch, 0, acked);
        let said = shared
            .attest(connection, &keys, &link.run_id, numbers)
            .await?;
        if said != Attested::Passed {
            missing = Some(format!(
                "events {} to {acked} were acknowledged before this start and are gone; what they were is not known here",
                joined.ev + 1
            ));
            tracing::error!(sale = %sale.sale_id, acked, there = joined.ev, "Redis lost events that were acknowledged: the sale is frozen");
        }
    }
    let (content, clock_ms, ev) = match load::content(connection, &keys).await {
        Ok(Some((content, sizes))) => (content, sizes.clock_ms.cast_signed(), sizes.ev),
        Ok(None) => return Ok(None),
        Err(LoadError::Redis(error)) => return Err(error.into()),
        // It is shown as frozen, with nothing in it: whatever it was, nothing is to be sold from it.
        Err(LoadError::Broken(what)) => {
            tracing::error!(sale = %sale.sale_id, what, "the sale is damaged: frozen");
            let Some((row, sizes)) = load::sale(connection, &keys).await? else {
                return Ok(None);
            };
            let content = SaleContent {
                ev: sizes.ev,
                thaw: sizes.thaw,
                sale: SaleRow {
                    state: SaleState::Frozen,
                    ..row
                },
                reservations: Vec::new(),
                decisions: Vec::new(),
            };
            (content, sizes.clock_ms.cast_signed(), sizes.ev)
        }
    };
    if sale.is_making {
        redis::cmd("HSET")
            .arg(SALES)
            .arg(sale.sale_id.as_str())
            .arg(sale.sale_no.0)
            .query_async::<()>(connection)
            .await?;
    }
    let place = Place::at(&link.run_id, joined.epoch, ev);
    Ok(Some((place, content, clock_ms, missing)))
}
