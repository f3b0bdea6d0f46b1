//! The usual pattern, as well as it can be written: hyper, and one EVALSHA for each purchase.
//!
//! Owns: the keys `{usual:<sale id>}:*`. It checks tokens with the front's own code, takes the same requests and gives
//! the same answers; Redis decides everything else, for losers too. No rates, no tickets, no windows: it does less
//! than the engine does.
//! Invariant: a purchase is one round trip on one connection that all of them share.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bytes::Bytes;
use dev_servers::RedisServer;
use flash_front::{FrontConfig, JwtKey, JwtMaterial, TokenCache, Verifier};
use flash_types::{
    BuyerId, Currency, Durability, IdempotencyKey, ItemId, Money, Quantity, Reservation,
    ReservationId, ReservationLine, ReservationState, SaleId, SaleNo, Serial, Timestamp,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisResult, Script, ServerErrorKind, cmd};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::bench::{self, ITEM, PAYMENT_WINDOW, PRICE_MINOR};

/// The 409 of a loser: the engine's, byte for byte.
pub const SOLD_OUT: &str = concat!(
    r#"{"type":"urn:stampede:problem:sold_out","title":"Sold out","status":409,"outcome":"sold_out","#,
    r#""detail":"All units are taken; unpaid ones may come back.","retry_after_ms":1000,"final":false}"#
);
const BODY_BYTES_MAX: usize = 8 * 1024;
/// As the front's.
const READ_BYTES: usize = 16 * 1024;
const ACCEPT_QUEUE_MAX: u32 = 4_096;
/// An answer of Redis is awaited for so long.
const REDIS_WITHIN: Duration = Duration::from_secs(5);
/// Purchases that may wait for the connection: no connection of a client ever waits for room.
const REDIS_QUEUE_MAX: usize = 4_096;
/// So much is written to Redis at once.
const REDIS_WRITE_BYTES: usize = 64 * 1024;

#[derive(clap::Args)]
pub struct Options {
    /// Where Redis is
    #[arg(long)]
    redis: String,
    /// Data folder of the server whose buyers come
    #[arg(long)]
    data: PathBuf,
}

/// Serves until it is killed; says where on stdout.
pub fn run(options: &Options) -> anyhow::Result<()> {
    bench::raise_file_limit()?;
    crate::shell::runtime()?.block_on(async {
        let shop = Arc::new(Shop::open(options).await?);
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(ACCEPT_QUEUE_MAX)?;
        println!("ready {}", listener.local_addr()?);
        accept(&listener, &shop).await
    })
}

async fn accept(listener: &TcpListener, shop: &Arc<Shop>) -> anyhow::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(shop)))),
            // Of that connection alone.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context("taking a connection"),
        }
    }
}

async fn serve(stream: TcpStream, shop: Arc<Shop>) {
    let service = service_fn(|request| {
        let shop = Arc::clone(&shop);
        async move { Ok::<_, Infallible>(answer(&shop, request).await) }
    });
    // Both fail only if the client went away, which is no matter of ours.
    let _ = stream.set_nodelay(true);
    let _ = hyper::server::conn::http1::Builder::new()
        .pipeline_flush(true)
        .max_buf_size(READ_BYTES)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shop: &Shop, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match purchase(shop, request).await {
        Ok((status, reservation)) => won(status, &reservation),
        Err(why) => refused(why),
    }
}

/// The life of one purchase: read -> who -> Redis -> answer.
async fn purchase(
    shop: &Shop,
    request: Request<Incoming>,
) -> Result<(StatusCode, Reservation), Refused> {
    let (head, body) = request.into_parts();
    let sale_id = sale_of(&head).ok_or(Refused::UnknownSale)?;
    let key = head
        .headers
        .get("idempotency-key")
        .and_then(|key| IdempotencyKey::parse_bytes(key.as_bytes()).ok())
        .ok_or(Refused::Malformed)?;
    let body = Limited::new(body, BODY_BYTES_MAX);
    let body = body
        .collect()
        .await
        .map_err(|_| Refused::Malformed)?
        .to_bytes();
    let asked: Asked<'_> = serde_json::from_slice(&body).map_err(|_| Refused::Malformed)?;
    let quantity = Quantity::of_line(asked.quantity).ok_or(Refused::Malformed)?;
    let now = now();
    let buyer = shop.buyer(&head, now).ok_or(Refused::Unauthenticated)?;
    let sale = shop.sale(sale_id).await?;
    if asked.item != sale.item.as_str() {
        return Err(Refused::Malformed);
    }
    let record = Record {
        created_at: now,
        expires_at: now.plus(sale.window),
        buyer,
        key,
        units: quantity.units(),
        price: sale.price,
    };
    let serial = shop.next_serial();
    match shop.decide(&sale, serial, &record).await? {
        Decision::Reserved => Ok((StatusCode::CREATED, shop.told(&sale, serial, &record))),
        Decision::Known(serial, record) => Ok((StatusCode::OK, shop.told(&sale, serial, &record))),
        Decision::SoldOut => Err(Refused::SoldOut),
        Decision::LimitReached => Err(Refused::LimitReached),
    }
}

/// What is asked for: the one spelling that the load sends.
#[derive(Deserialize)]
struct Asked<'a> {
    item: &'a str,
    quantity: u64,
}

/// What Redis said.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Reserved,
    Known(Serial, Record),
    SoldOut,
    LimitReached,
}

/// Why there is no reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Malformed,
    Unauthenticated,
    UnknownSale,
    SoldOut,
    LimitReached,
    /// Redis did not answer, or not with what it was asked for.
    Unavailable,
}

/// What all connections share.
struct Shop {
    verifier: Verifier,
    cache: TokenCache,
    script: Script,
    redis: MultiplexedConnection,
    durability: Durability,
    sales: RwLock<HashMap<SaleId, Arc<Sale>>>,
    serials: AtomicU64,
}

/// What does not change while a sale runs, read once.
struct Sale {
    id: SaleId,
    number: SaleNo,
    item: ItemId,
    price: Money,
    currency: Currency,
    window: Duration,
    limit: String,
    keys: Keys,
}

impl Shop {
    async fn open(options: &Options) -> anyhow::Result<Self> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(REDIS_WITHIN))
            .set_pipeline_buffer_size(REDIS_QUEUE_MAX)
            .set_write_backpressure_boundary(REDIS_WRITE_BYTES);
        let mut redis = Client::open(options.redis.as_str())?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let script = Script::new(include_str!("usual.lua"));
        script.load_async(&mut redis).await?;
        let fsync: (String, String) = cmd("CONFIG")
            .arg("GET")
            .arg("appendfsync")
            .query_async(&mut redis)
            .await?;
        let secret = crowd::token::Keys::read(&options.data)?.buyer_jwt_secret;
        let key = JwtKey {
            kid: None,
            material: JwtMaterial::Hs256(secret.into_bytes()),
        };
        Ok(Self {
            verifier: Verifier::new(&[key], None, None)?,
            cache: TokenCache::new(FrontConfig::default().token_cache_max, (1, 2)),
            script,
            redis,
            durability: match fsync.1.as_str() {
                "always" => Durability::RedisAofAlways,
                "everysec" => Durability::RedisAofEverysec,
                _ => Durability::RedisMemory,
            },
            sales: RwLock::default(),
            // Of a process of its own: what an earlier one gave is below.
            serials: AtomicU64::new(now().0.unsigned_abs() << 8),
        })
    }

    fn next_serial(&self) -> Serial {
        // Relaxed: a number by itself.
        Serial(self.serials.fetch_add(1, Ordering::Relaxed))
    }

    fn buyer(&self, head: &Parts, now: Timestamp) -> Option<BuyerId> {
        let shown = head.headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, token) = shown.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let now_s = now.0 / 1_000;
        let hash = self.cache.hash(token);
        if let Some(buyer) = self.cache.find(hash, token, now_s) {
            return Some(buyer);
        }
        let verified = self.verifier.verify(token, now_s)?;
        self.cache.keep(hash, token, &verified);
        Some(verified.buyer)
    }

    async fn sale(&self, id: SaleId) -> Result<Arc<Sale>, Refused> {
        if let Some(sale) = self.sales.read().get(&id) {
            return Ok(Arc::clone(sale));
        }
        let sale = Arc::new(Sale::read(self.redis.clone(), id).await?);
        self.sales.write().insert(id, Arc::clone(&sale));
        Ok(sale)
    }

    /// The one round trip.
    async fn decide(
        &self,
        sale: &Sale,
        serial: Serial,
        record: &Record,
    ) -> Result<Decision, Refused> {
        let mut redis = self.redis.clone();
        let call = self.call(sale, serial, record);
        let mut reply: RedisResult<Vec<u8>> = call.query_async(&mut redis).await;
        let is_unloaded = |error: &redis::RedisError| {
            error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
        };
        if reply.as_ref().is_err_and(is_unloaded)
            && self.script.load_async(&mut redis).await.is_ok()
        {
            reply = call.query_async(&mut redis).await;
        }
        Decision::parse(&reply.map_err(|_| Refused::Unavailable)?).ok_or(Refused::Unavailable)
    }

    fn call(&self, sale: &Sale, serial: Serial, record: &Record) -> Cmd {
        let keys = &sale.keys;
        let mut call = Cmd::with_capacity(14, 768);
        call.arg("EVALSHA")
            .arg(self.script.get_hash())
            .arg(5)
            .arg(&[
                &keys.stock,
                &keys.key,
                &keys.buyer,
                &keys.reservations,
                &keys.events,
            ])
            .arg(serial.0)
            .arg(format!("{}|{}", record.buyer, record.key))
            .arg(format!("{}|0", record.buyer))
            .arg(record.units)
            .arg(&sale.limit)
            .arg(record.text());
        call
    }

    fn told(&self, sale: &Sale, serial: Serial, record: &Record) -> Reservation {
        let line = ReservationLine {
            item: sale.item,
            quantity: record.units,
            unit_price_minor: record.price,
            refunded_units: 0,
        };
        Reservation {
            reservation_id: ReservationId {
                sale_no: sale.number,
                serial,
            },
            sale_id: sale.id,
            buyer_id: record.buyer,
            state: ReservationState::Reserved,
            lines: [line].into_iter().collect(),
            amount_minor: record.price.times(record.units),
            currency: sale.currency,
            created_at: record.created_at,
            expires_at: record.expires_at,
            payment_ref: None,
            durability: self.durability,
        }
    }
}

impl Sale {
    async fn read(mut redis: MultiplexedConnection, id: SaleId) -> Result<Self, Refused> {
        let keys = Keys::of(&id);
        let fields: Vec<Option<String>> = cmd("HMGET")
            .arg(&keys.sale)
            .arg(FIELDS.as_slice())
            .query_async(&mut redis)
            .await
            .map_err(|_| Refused::Unavailable)?;
        Self::of(id, keys, &fields).ok_or(Refused::UnknownSale)
    }

    fn of(id: SaleId, keys: Keys, fields: &[Option<String>]) -> Option<Self> {
        let [number, item, price, currency, window, limit] = fields else {
            return None;
        };
        Some(Self {
            id,
            number: SaleNo(number.as_ref()?.parse().ok()?),
            item: ItemId::parse(item.as_ref()?).ok()?,
            price: Money(price.as_ref()?.parse().ok()?),
            currency: Currency::parse(currency.as_ref()?)?,
            window: Duration::from_millis(window.as_ref()?.parse().ok()?),
            limit: limit.clone()?,
            keys,
        })
    }
}

/// Fields of the sale's hash, in the order in which they are read.
const FIELDS: [&str; 6] = [
    "number",
    "item",
    "price_minor",
    "currency",
    "window_ms",
    "limit",
];

/// The keys of one sale.
struct Keys {
    sale: String,
    stock: String,
    key: String,
    buyer: String,
    reservations: String,
    events: String,
}

impl Keys {
    fn of(sale: &SaleId) -> Self {
        let key = |name: &str| format!("{{usual:{sale}}}:{name}");
        Self {
            sale: key("sale"),
            stock: key("stock"),
            key: key("key"),
            buyer: key("buyer"),
            reservations: key("resv"),
            events: key("ev"),
        }
    }
}

/// Puts a sale of one item on sale.
pub fn publish(
    redis: &RedisServer,
    name: &str,
    number: u32,
    stock_units: u32,
    units_per_buyer_max: u32,
) -> anyhow::Result<()> {
    let keys = Keys::of(&SaleId::parse(name)?);
    let values = [
        number.to_string(),
        ITEM.to_owned(),
        PRICE_MINOR.to_string(),
        "CNY".to_owned(),
        PAYMENT_WINDOW.as_millis().to_string(),
        units_per_buyer_max.to_string(),
    ];
    let mut words = vec!["HSET", &keys.sale];
    for (field, value) in FIELDS.iter().zip(&values) {
        words.extend([field, value.as_str()]);
    }
    redis.command(&words)?;
    redis.command(&["SET", &keys.stock, &stock_units.to_string()])?;
    Ok(())
}

/// Holds what a sale left in Redis against what was told: every yes is there as key, buyer, reservation and event.
pub fn check(redis: &RedisServer, name: &str, stock_units: u32, won: u64) -> anyhow::Result<()> {
    let keys = Keys::of(&SaleId::parse(name)?);
    for (command, key) in [
        ("HLEN", &keys.key),
        ("HLEN", &keys.buyer),
        ("HLEN", &keys.reservations),
        ("XLEN", &keys.events),
    ] {
        let found = redis.command(&[command, key])?;
        ensure!(found == won.to_string(), "{key} holds {found}, not {won}");
    }
    let left = redis.command(&["GET", &keys.stock])?;
    let expected = u64::from(stock_units) - won;
    ensure!(
        left == expected.to_string(),
        "{left} units are left, not {expected}"
    );
    Ok(())
}

/// A reservation as it is kept: `r|created_ms|expires_ms|buyer|key|payment|lines`, a line `item,units,price`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    created_at: Timestamp,
    expires_at: Timestamp,
    buyer: BuyerId,
    key: IdempotencyKey,
    units: u32,
    price: Money,
}

impl Record {
    fn text(&self) -> String {
        format!(
            "r|{}|{}|{}|{}||0,{},{}",
            self.created_at.0, self.expires_at.0, self.buyer, self.key, self.units, self.price.0
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let mut next = || parts.next();
        let ("r", created, expires, buyer, key, "", lines) = (
            next()?,
            next()?,
            next()?,
            next()?,
            next()?,
            next()?,
            next()?,
        ) else {
            return None;
        };
        let (units, price) = lines.strip_prefix("0,")?.split_once(',')?;
        Some(Self {
            created_at: Timestamp(created.parse().ok()?),
            expires_at: Timestamp(expires.parse().ok()?),
            buyer: BuyerId::parse(buyer).ok()?,
            key: IdempotencyKey::parse(key).ok()?,
            units: units.parse().ok()?,
            price: Money(price.parse().ok()?),
        })
    }
}

impl Decision {
    fn parse(reply: &[u8]) -> Option<Self> {
        match reply {
            b"R" => Some(Self::Reserved),
            b"S" => Some(Self::SoldOut),
            b"L" => Some(Self::LimitReached),
            [b'K', known @ ..] => {
                let (serial, record) = str::from_utf8(known).ok()?.split_once('|')?;
                Some(Self::Known(
                    Serial(serial.parse().ok()?),
                    Record::parse(record)?,
                ))
            }
            _ => None,
        }
    }
}

/// The sale in `/v1/sales/<sale>/purchases`.
fn sale_of(head: &Parts) -> Option<SaleId> {
    let path = head.uri.path().strip_prefix("/v1/sales/")?;
    let sale = path.strip_suffix("/purchases")?;
    (head.method == Method::POST)
        .then(|| SaleId::parse(sale).ok())
        .flatten()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn won(status: StatusCode, reservation: &Reservation) -> Response<Full<Bytes>> {
    let mut body = Vec::with_capacity(512);
    let written = serde_json::to_writer(&mut body, reservation);
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = match written {
        Ok(()) => status,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let location = format!("/v1/reservations/{}", reservation.reservation_id);
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    if status == StatusCode::OK {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

fn refused(why: Refused) -> Response<Full<Bytes>> {
    let (status, body) = match why {
        Refused::Malformed => (400, r#"{"status":400,"outcome":"malformed"}"#),
        Refused::Unauthenticated => (401, r#"{"status":401,"outcome":"unauthenticated"}"#),
        Refused::UnknownSale => (404, r#"{"status":404,"outcome":"not_found"}"#),
        Refused::SoldOut => (409, SOLD_OUT),
        Refused::LimitReached => (409, r#"{"status":409,"outcome":"buyer_limit_reached"}"#),
        Refused::Unavailable => (503, r#"{"status":503,"outcome":"store_unavailable"}"#),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

#[cfg(test)]
mod tests;
