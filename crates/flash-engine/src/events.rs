//! Events as they are told outside: what the store wrote with each change, in the words of the contract.

use flash_store::{EventPlace, EventRange, EventRow, Store as _, WaveRef};
use flash_types::{ItemIndex, Refusal, SaleId, SaleNo, Timestamp};
use serde_json::{Map, Value, json};

use crate::Engine;
use crate::sale::Sale;

/// An event. Serializes to the contract's JSON.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SaleEvent {
    /// URL-safe; names the sale and the place.
    pub id: String,
    /// How often the sale's line of events was broken before it.
    pub generation: u64,
    /// Ascends within sale and generation.
    pub sequence: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// Of which sale.
    pub sale_id: SaleId,
    /// The reservation as it stood after it, or what the sale tells.
    pub data: Value,
    /// The reservation that it is about, by its serial.
    #[serde(skip)]
    pub reservation: Option<flash_types::Serial>,
}

impl SaleEvent {
    /// Its place in its sale's line.
    pub fn place(&self) -> EventPlace {
        EventPlace {
            generation: self.generation,
            sequence: self.sequence,
        }
    }
}

impl Engine {
    /// Events of one sale after a place, ascending, at most `limit`.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn events(
        &self,
        sale_id: &SaleId,
        after: EventPlace,
        limit: usize,
    ) -> Result<Vec<SaleEvent>, Refusal> {
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let range = EventRange::OfSale(sale.sale_no(), after);
        self.told_events(range, limit).await
    }

    /// Events of all sales after one of them, by time, at most `limit`.
    ///
    /// # Errors
    /// `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn all_events(
        &self,
        after: Option<(SaleNo, EventPlace)>,
        limit: usize,
    ) -> Result<Vec<SaleEvent>, Refusal> {
        self.told_events(EventRange::OfAll(after), limit).await
    }

    /// Where the last event of each sale stands.
    ///
    /// # Errors
    /// `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn last_places(&self) -> Result<Vec<(SaleNo, EventPlace)>, Refusal> {
        self.store_read(self.store.last_places().await)
    }

    /// All counts of tries at a sale that reserved nothing, as stored.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn attempts(
        &self,
        sale_id: &SaleId,
    ) -> Result<Vec<flash_store::AttemptsRow>, Refusal> {
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        self.store_read(self.store.attempts(sale.sale_no()).await)
    }

    async fn told_events(
        &self,
        range: EventRange,
        limit: usize,
    ) -> Result<Vec<SaleEvent>, Refusal> {
        let rows = self.store_read(self.store.events(range, limit).await)?;
        let told = rows.into_iter().map(|row| {
            let sale = self.catalogue.numbered(row.sale_no);
            sale.map(|sale| self.told_event(&sale, row))
        });
        // A sale that is being made may be in the store before it is in the catalogue: its events come with the next page.
        Ok(told.map_while(|event| event).collect())
    }

    fn told_event(&self, sale: &Sale, row: EventRow) -> SaleEvent {
        let facts: Value = row
            .data
            .as_deref()
            .and_then(|data| serde_json::from_str(data).ok())
            .unwrap_or_default();
        let data = match &row.reservation {
            Some(reservation) => {
                let shown = sale.rendered_row(reservation, self.durability());
                let mut shown = match serde_json::to_value(&shown) {
                    Ok(Value::Object(shown)) => shown,
                    Ok(_) | Err(_) => Map::new(),
                };
                add_facts(sale, &row, &facts, &mut shown);
                Value::Object(shown)
            }
            None => of_sale(sale, &row, &facts),
        };
        SaleEvent {
            id: row.place.event_id(row.sale_no),
            generation: row.place.generation,
            sequence: row.place.sequence,
            kind: row.kind,
            at: row.at,
            sale_id: sale.definition().sale_id,
            data,
            reservation: row.reservation.map(|reservation| reservation.serial),
        }
    }
}

/// What an event tells beyond the reservation: which money has to go back, which went back.
fn add_facts(sale: &Sale, row: &EventRow, facts: &Value, shown: &mut Map<String, Value>) {
    match row.kind.as_str() {
        "reservation.refund_due" if facts["protects"] == true => {
            let units = facts["bought"].as_i64().unwrap_or(0);
            let (paid, price) = (&facts["paid"], &facts["price"]);
            let difference = paid.as_i64().unwrap_or(0) - price.as_i64().unwrap_or(0);
            shown.insert(
                "refund_due".into(),
                json!({
                    "reason": "price_protection",
                    "payment_ref": shown.get("payment_ref"),
                    "amount_minor": difference.saturating_mul(units),
                    "item": item_name(sale, &facts["item"]),
                    "quantity": units,
                    "unit_price_minor": paid,
                    "later_price_minor": price,
                    "later_sale_id": facts["sale"],
                }),
            );
        }
        "reservation.refund_due" => {
            let is_expired = facts["expired"] == true;
            let reason = if is_expired {
                "reservation_expired"
            } else {
                "state_conflict"
            };
            let due = json!({"reason": reason, "payment_ref": row.reference});
            shown.insert("refund_due".into(), due);
        }
        "reservation.refunded" => {
            let refund = json!({
                "refund_ref": row.reference,
                "restock": facts["restock"],
                "lines": units_of(sale, &facts["units"]),
            });
            shown.insert("refund".into(), refund);
        }
        _ => {}
    }
}

/// What an event of the sale itself tells.
fn of_sale(sale: &Sale, row: &EventRow, facts: &Value) -> Value {
    let item = || item_name(sale, &facts["item"]);
    match row.kind.as_str() {
        "sale.stock_changed" => json!({
            "item": item(),
            "asked_delta_units": facts["asked"],
            "applied_delta_units": facts["applied"],
            "reason": facts["reason"],
        }),
        "sale.price_changed" => json!({
            "item": item(),
            "old_price_minor": facts["from"],
            "sale_price_minor": facts["to"],
            "reason": facts["reason"],
        }),
        "sale.opened" | "sale.unpublished" => json!({"items": units_of(sale, &facts["units"])}),
        "sale.wave" => {
            let wave = row.reference.as_deref().and_then(WaveRef::parse);
            let kind = match wave {
                Some(WaveRef::Planned(_)) => "planned",
                Some(WaveRef::Pool(_)) => "returned",
                Some(WaveRef::Hand(_)) | None => "by_hand",
            };
            json!({"wave": row.reference, "kind": kind, "items": units_of(sale, &facts["units"])})
        }
        "sale.frozen" => json!({"reason": facts["reason"]}),
        _ => json!({}),
    }
}

fn item_name(sale: &Sale, index: &Value) -> Value {
    let index = index.as_u64().and_then(|index| u16::try_from(index).ok());
    let items = &sale.definition().items;
    let item = index.and_then(|index| items.get(usize::from(ItemIndex(index).0)));
    item.map_or(Value::Null, |item| json!(item.item))
}

/// `[[item_index,units],…]` by name.
fn units_of(sale: &Sale, units: &Value) -> Value {
    let pairs = units.as_array().into_iter().flatten();
    let named = pairs.map(|pair| json!({"item": item_name(sale, &pair[0]), "quantity": pair[1]}));
    Value::Array(named.collect())
}
