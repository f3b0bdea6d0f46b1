//! The calls of merchants and storefronts, as far as crowds and checks need them.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, Draft, Request, Response, Timeouts};
use crate::log::Line;
use crate::token::Keys;

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Buyers and storefront.
    pub public: SocketAddr,
    /// Merchants.
    pub admin: SocketAddr,
}

/// A reservation as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stored {
    /// Its name.
    pub reservation_id: String,
    /// The sale.
    pub sale_id: String,
    /// The buyer.
    pub buyer_id: String,
    /// `reserved`, `confirmed`, `released`, `expired`, `refunded`, `unknown`.
    pub state: String,
    /// What is set aside.
    pub lines: Vec<StoredLine>,
    /// The payment that confirmed it.
    #[serde(default)]
    pub payment_ref: Option<String>,
}

/// One line of a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StoredLine {
    /// The item.
    pub item: String,
    /// Units.
    pub quantity: u32,
    /// Units whose money went back.
    #[serde(default)]
    pub refunded_units: u32,
}

impl Stored {
    /// Its lines as the client log has them.
    pub fn lines(&self) -> Vec<Line> {
        summed(
            self.lines
                .iter()
                .map(|line| (line.item.clone(), line.quantity)),
        )
    }
}

/// Lines of one item summed, sorted by item.
pub fn summed(lines: impl IntoIterator<Item = Line>) -> Vec<Line> {
    let mut sums = std::collections::BTreeMap::new();
    for (item, units) in lines {
        *sums.entry(item).or_insert(0) += units;
    }
    sums.into_iter().collect()
}

/// The admin's audit of a sale.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Audit {
    /// The books balance.
    pub ok: bool,
    /// Counters per item.
    pub items: Vec<AuditItem>,
    /// What was found.
    #[serde(default)]
    pub findings: Vec<Value>,
}

/// Where the units of one item are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AuditItem {
    /// The item.
    pub item: String,
    /// All units.
    pub stock_units: u64,
    /// Not yet for sale.
    pub unreleased_units: u64,
    /// For sale.
    pub available_units: u64,
    /// Set aside.
    pub reserved_units: u64,
    /// Paid.
    pub sold_units: u64,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default)]
    next_cursor: Option<Value>,
}

/// One caller with all keys.
#[derive(Debug)]
pub struct Api {
    public: Client,
    admin: Client,
    keys: Keys,
}

impl Api {
    /// For a server.
    pub fn new(addresses: Addresses, keys: Keys) -> Self {
        Self {
            public: Client::new(addresses.public, Timeouts::default()),
            admin: Client::new(addresses.admin, Timeouts::default()),
            keys,
        }
    }

    /// Makes a sale and publishes it; if its start has passed it is open when this returns.
    ///
    /// # Errors
    /// With the server's answer, if it is not the expected one.
    pub async fn publish(&mut self, definition: &Value) -> anyhow::Result<()> {
        let sale = definition["sale_id"]
            .as_str()
            .context("a sale needs a sale_id")?;
        self.admin_post("/v1/admin/sales", definition, &[201])
            .await?;
        self.admin_post(
            &format!("/v1/admin/sales/{sale}/publish"),
            &json!({}),
            &[200],
        )
        .await?;
        Ok(())
    }

    /// `pause`, `resume` or `close`.
    ///
    /// # Errors
    /// With the server's answer, if it is not 200.
    pub async fn command(&mut self, sale: &str, command: &str) -> anyhow::Result<()> {
        let target = format!("/v1/admin/sales/{sale}/{command}");
        self.admin_post(&target, &json!({}), &[200]).await?;
        Ok(())
    }

    /// The audit of a sale.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn audit(&mut self, sale: &str) -> anyhow::Result<Audit> {
        let target = format!("/v1/admin/sales/{sale}/audit");
        let response = self
            .admin
            .send_again(&self.admin_draft(&target).bare())
            .await?;
        parse(&target, &response)
    }

    /// A reservation by its name; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn reservation(&mut self, id: &str) -> anyhow::Result<Option<Stored>> {
        let target = format!("/v1/reservations/{id}");
        let request = Request::get(&target)
            .bearer(&self.keys.storefront_key)
            .bare();
        self.read(&target, &request).await
    }

    /// The reservation that a key won; `None` if it won none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn reservation_by_key(
        &mut self,
        sale: &str,
        buyer: &str,
        key: &str,
    ) -> anyhow::Result<Option<Stored>> {
        let target = format!("/v1/reservations?sale={sale}&idempotency_key={key}");
        let request = Request::get(&target)
            .bearer(&self.keys.storefront_key)
            .header("X-Buyer-Id", buyer)
            .bare();
        self.read(&target, &request).await
    }

    /// All reservations of a sale, in their order.
    ///
    /// # Errors
    /// If a page cannot be read.
    pub async fn reservations(&mut self, sale: &str) -> anyhow::Result<Vec<Stored>> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let target = format!("/v1/admin/sales/{sale}/reservations?limit=200{cursor}");
            let response = self
                .admin
                .send_again(&self.admin_draft(&target).bare())
                .await?;
            let page: Page<Stored> = parse(&target, &response)?;
            let is_empty = page.items.is_empty();
            found.extend(page.items);
            cursor = match page.next_cursor {
                Some(Value::String(next)) => format!("&cursor={next}"),
                Some(Value::Number(next)) => format!("&cursor={next}"),
                Some(Value::Null) | None => return Ok(found),
                Some(other) => bail!("{target}: next_cursor is {other}"),
            };
            if is_empty {
                bail!("{target}: an empty page that names a next one");
            }
        }
    }

    async fn read(&mut self, target: &str, request: &Request) -> anyhow::Result<Option<Stored>> {
        let response = self.public.send_again(request).await?;
        match response.status {
            404 => Ok(None),
            _ => parse(target, &response).map(Some),
        }
    }

    fn admin_draft(&self, target: &str) -> Draft {
        Request::get(target).bearer(&self.keys.admin_key)
    }

    async fn admin_post(
        &mut self,
        target: &str,
        body: &Value,
        expected: &[u16],
    ) -> anyhow::Result<Response> {
        let request = Request::post(target)
            .bearer(&self.keys.admin_key)
            .json(&body.to_string());
        let response = self.admin.send(&request).await?;
        if !expected.contains(&response.status) {
            bail!("{target}: {}", told(&response));
        }
        Ok(response)
    }
}

fn parse<T: serde::de::DeserializeOwned>(target: &str, response: &Response) -> anyhow::Result<T> {
    if response.status != 200 {
        bail!("{target}: {}", told(response));
    }
    serde_json::from_slice(&response.body)
        .with_context(|| format!("{target}: {}", String::from_utf8_lossy(&response.body)))
}

fn told(response: &Response) -> String {
    format!(
        "{} {}",
        response.status,
        String::from_utf8_lossy(&response.body)
    )
}

/// A purchase by a buyer with a token of their own; `lines` as item and units.
pub fn purchase(sale: &str, token: &str, key: &str, lines: &[Line]) -> Request {
    let body = match lines {
        [(item, units)] => format!(r#"{{"item":"{item}","quantity":{units}}}"#),
        lines => {
            let lines: Vec<_> = lines
                .iter()
                .map(|(item, units)| format!(r#"{{"item":"{item}","quantity":{units}}}"#))
                .collect();
            format!(r#"{{"lines":[{}]}}"#, lines.join(","))
        }
    };
    Request::post(&format!("/v1/sales/{sale}/purchases"))
        .bearer(token)
        .key(key)
        .json(&body)
}

/// A payment, told by the storefront.
pub fn confirm(id: &str, storefront_key: &str, payment_ref: &str) -> Request {
    Request::post(&format!("/v1/reservations/{id}/confirm"))
        .bearer(storefront_key)
        .json(&format!(r#"{{"payment_ref":"{payment_ref}"}}"#))
}

/// A buyer gives up; the credential is the buyer's token or the storefront's key.
pub fn cancel(id: &str, credential: &str) -> Request {
    Request::post(&format!("/v1/reservations/{id}/cancel"))
        .bearer(credential)
        .json("{}")
}
