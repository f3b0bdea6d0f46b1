//! A toy of a sale server, right or wrong on purpose: just enough of the contract for a crowd to be tested on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// Says yes to every tenth and forgets it.
    ForgetsEveryTenth,
    /// Hands out more than there is.
    SellsTooMuch,
    /// Takes the same key for a new purchase.
    ForgetsKeys,
    /// Closes the connection after deciding, every seventh time.
    HangsUpEverySeventh,
}

struct Reservation {
    id: String,
    buyer: String,
    key: String,
    item: String,
    state: &'static str,
    expires_at: Instant,
    payment_ref: Option<String>,
}

#[derive(Default)]
struct Sale {
    definition: Value,
    available: BTreeMap<String, i64>,
    reservations: Vec<Reservation>,
    decisions: u64,
}

pub struct Fake {
    fault: Fault,
    sale: Mutex<Sale>,
}

struct Asked {
    method: String,
    target: String,
    head: String,
    body: Value,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    fn buyer(&self) -> String {
        if let Some(buyer) = self.header("X-Buyer-Id") {
            return buyer.to_owned();
        }
        let token = self.header("Authorization").unwrap_or_default();
        let claims = token
            .split('.')
            .nth(1)
            .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Value = serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default();
        claims["sub"].as_str().unwrap_or_default().to_owned()
    }
}

impl Fake {
    /// Listens; one address for buyers and merchants alike.
    pub async fn start(fault: Fault) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Self {
            fault,
            sale: Mutex::default(),
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&fake).serve(stream));
            }
        });
        address
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut seen = Vec::new();
        while let Some(asked) = read(&mut stream, &mut seen).await {
            let Some((status, headers, body)) = self.answer(&asked) else {
                return;
            };
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, asked: &Asked) -> Option<(u16, &'static str, Value)> {
        let mut sale = self.sale.lock();
        sale.expire();
        let path = asked.target.split('?').next().unwrap_or_default();
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let plain = |status, body| Some((status, "", body));
        match (asked.method.as_str(), parts.as_slice()) {
            ("POST", ["v1", "admin", "sales"]) => {
                sale.plan(&asked.body);
                plain(201, json!({}))
            }
            ("POST", ["v1", "admin", "sales", _, "publish"]) => plain(200, json!({})),
            ("GET", ["v1", "admin", "sales", _, "audit"]) => plain(200, sale.audit()),
            ("GET", ["v1", "admin", "sales", _, "reservations"]) => {
                let from = asked
                    .query("cursor")
                    .and_then(|at| at.parse().ok())
                    .unwrap_or(0);
                let page: Vec<_> = sale
                    .reservations
                    .iter()
                    .skip(from)
                    .take(200)
                    .map(|one| sale.shown(one))
                    .collect();
                let is_last = from + page.len() >= sale.reservations.len();
                let next = if is_last {
                    Value::Null
                } else {
                    json!((from + page.len()).to_string())
                };
                plain(200, json!({"items": page, "next_cursor": next}))
            }
            ("POST", ["v1", "sales", _, "purchases"]) => self.purchase(&mut sale, asked),
            ("GET", ["v1", "reservations"]) => {
                let (buyer, key) = (asked.buyer(), asked.query("idempotency_key"));
                let won = sale
                    .reservations
                    .iter()
                    .find(|one| one.buyer == buyer && Some(one.key.as_str()) == key);
                won.map_or(plain(404, json!({"outcome": "not_found"})), |one| {
                    plain(200, sale.shown(one))
                })
            }
            ("GET", ["v1", "reservations", id]) => {
                let one = sale.reservations.iter().find(|one| one.id == *id);
                one.map_or(plain(404, json!({"outcome": "not_found"})), |one| {
                    plain(200, sale.shown(one))
                })
            }
            ("POST", ["v1", "reservations", id, "confirm"]) => {
                let payment = asked.body["payment_ref"].as_str().map(str::to_owned);
                let Some(at) = sale.reservations.iter().position(|one| one.id == *id) else {
                    return plain(404, json!({"outcome": "not_found"}));
                };
                let one = &mut sale.reservations[at];
                if one.state == "reserved" {
                    (one.state, one.payment_ref) = ("confirmed", payment);
                }
                let shown = sale.shown(&sale.reservations[at]);
                if sale.reservations[at].state == "confirmed" {
                    plain(200, shown)
                } else {
                    plain(409, json!({"outcome": "reservation_expired"}))
                }
            }
            _ => plain(404, json!({"outcome": "not_found"})),
        }
    }

    /// `None`: the connection is closed without an answer.
    fn purchase(&self, sale: &mut Sale, asked: &Asked) -> Option<(u16, &'static str, Value)> {
        let (buyer, key) = (asked.buyer(), asked.header("Idempotency-Key")?.to_owned());
        let item = asked.body["item"].as_str()?.to_owned();
        if self.fault != Fault::ForgetsKeys {
            let won = sale
                .reservations
                .iter()
                .find(|one| one.buyer == buyer && one.key == key);
            if let Some(won) = won {
                return Some((200, "Idempotency-Replayed: true\r\n", sale.shown(won)));
            }
        }
        let spare = if self.fault == Fault::SellsTooMuch {
            5
        } else {
            0
        };
        let available = sale.available.get_mut(&item)?;
        if *available + spare <= 0 {
            let is_final = sale
                .reservations
                .iter()
                .all(|one| one.item != item || one.state != "reserved");
            return Some((409, "", json!({"outcome": "sold_out", "final": is_final})));
        }
        let holds_one =
            |one: &Reservation| one.buyer == buyer && matches!(one.state, "reserved" | "confirmed");
        if self.fault != Fault::ForgetsKeys && sale.reservations.iter().any(holds_one) {
            return Some((409, "", json!({"outcome": "buyer_limit_reached"})));
        }
        *available -= 1;
        sale.decisions += 1;
        let window_s = sale.definition["payment_window_s"].as_u64().unwrap_or(1);
        let reservation = Reservation {
            id: format!("r1-{}", sale.decisions),
            buyer,
            key,
            item,
            state: "reserved",
            expires_at: Instant::now() + Duration::from_secs(window_s),
            payment_ref: None,
        };
        let shown = sale.shown(&reservation);
        let is_forgotten =
            self.fault == Fault::ForgetsEveryTenth && sale.decisions.is_multiple_of(10);
        if !is_forgotten {
            sale.reservations.push(reservation);
        }
        let hangs_up = self.fault == Fault::HangsUpEverySeventh && sale.decisions.is_multiple_of(7);
        (!hangs_up).then_some((201, "", shown))
    }
}

impl Sale {
    fn plan(&mut self, definition: &Value) {
        self.definition = definition.clone();
        for item in definition["items"].as_array().into_iter().flatten() {
            let name = item["item"].as_str().unwrap_or_default().to_owned();
            self.available
                .insert(name, item["stock_units"].as_i64().unwrap_or(0));
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for one in &mut self.reservations {
            if one.state == "reserved" && one.expires_at <= now {
                one.state = "expired";
                *self.available.entry(one.item.clone()).or_default() += 1;
            }
        }
    }

    fn shown(&self, one: &Reservation) -> Value {
        json!({
            "reservation_id": one.id, "sale_id": self.definition["sale_id"], "buyer_id": one.buyer,
            "state": one.state, "payment_ref": one.payment_ref,
            "lines": [{"item": one.item, "quantity": 1, "unit_price_minor": 1, "refunded_units": 0}],
        })
    }

    fn audit(&self) -> Value {
        let items: Vec<_> = self.definition["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| {
                let units = |state| {
                    let of_item = self
                        .reservations
                        .iter()
                        .filter(|one| item["item"] == one.item);
                    of_item.filter(|one| one.state == state).count()
                };
                let name = item["item"].as_str().unwrap_or_default();
                json!({
                    "item": name, "stock_units": item["stock_units"], "unreleased_units": 0,
                    "available_units": self.available[name].max(0),
                    "reserved_units": units("reserved"), "sold_units": units("confirmed"),
                })
            })
            .collect();
        json!({"ok": true, "items": items, "findings": []})
    }
}

async fn read(stream: &mut TcpStream, seen: &mut Vec<u8>) -> Option<Asked> {
    let head_bytes = loop {
        match seen.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if stream.read_buf(seen).await.ok()? == 0 => return None,
            None => {}
        }
    };
    let head = String::from_utf8(seen.drain(..head_bytes).collect()).ok()?;
    let mut words = head.split(' ');
    let mut asked = Asked {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        head: head.clone(),
        body: Value::Null,
    };
    let length: usize = asked
        .header("Content-Length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    while seen.len() < length {
        if stream.read_buf(seen).await.ok()? == 0 {
            return None;
        }
    }
    let body: Vec<u8> = seen.drain(..length).collect();
    asked.body = serde_json::from_slice(&body).unwrap_or_default();
    Some(asked)
}
