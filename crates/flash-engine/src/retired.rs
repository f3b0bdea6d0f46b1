//! Sales that left memory: what is still asked of them goes through the store.
//!
//! A command works on a *slice*: a ledger with the sale's stored counters and just the reservation it is about, put
//! through the same decision and the same committer as any other. One such command at a time, so each slice
//! starts from the counters that the last one left.

use std::sync::Arc;
use std::time::Duration;

use flash_ledger::{Command, LoadedReservation, PaymentDecision};
use flash_store::{DecisionKind, DecisionRow, ReadError, ReservationRow, Store, WaveRef};
use flash_types::{
    ItemIndex, ItemUnits, Lines, Outcome, PaymentRef, RefundRef, Refusal, SaleState, Serial,
};

use crate::sale::Sale;
use crate::{Engine, Purchase};

impl Engine {
    /// The entry that stays in the catalogue: plan and last counters, no reservations.
    pub(crate) fn retired(&self, sale: &Sale) -> Sale {
        let definition = sale.plan();
        let units: Vec<ItemUnits> = (0u16..)
            .take(definition.items.len())
            .map(|i| sale.units(ItemIndex(i)))
            .collect();
        let state = SaleState::Closed;
        let mut light = Sale::new(
            sale.sale_no(),
            definition,
            state,
            &units,
            true,
            self.config.hash_key,
        );
        light.succeed(sale);
        light
    }

    /// The draft that a sale is again of which nothing was ever reserved.
    pub(crate) fn drafted_again(&self, sale: &Sale) -> Sale {
        let plan = sale.plan();
        let items = (0u16..).take(plan.items.len()).map(ItemIndex);
        let units: Vec<ItemUnits> = items
            .map(|item| {
                let stock = sale.units(item).stock;
                ItemUnits {
                    stock,
                    unreleased: stock,
                    ..ItemUnits::default()
                }
            })
            .collect();
        let key = self.config.hash_key;
        let mut draft = Sale::new(sale.sale_no(), plan, SaleState::Draft, &units, false, key);
        draft.succeed(sale);
        draft
    }

    /// A key that won gets its reservation again; anybody else learns that the sale is over.
    pub(crate) async fn purchase_of_retired(&self, sale: &Sale, request: &Purchase) -> Outcome {
        let found = self
            .store
            .reservation_by_key(sale.sale_no(), request.buyer, request.key)
            .await;
        let row = match self.store_read(found) {
            Ok(row) => row,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let asked = sale.lines(&request.lines);
        match row {
            Some(row) if asked.is_some_and(|asked| is_same(&row, asked.as_slice())) => {
                Outcome::Stands(Arc::new(sale.rendered_row(&row, self.durability())))
            }
            Some(_) => Outcome::Refused(Refusal::IdempotencyKeyReused),
            None if request
                .lines
                .iter()
                .any(|(item, _)| sale.item_index(item).is_none()) =>
            {
                Outcome::Refused(Refusal::NotFound)
            }
            None => Outcome::Refused(Refusal::SaleEnded),
        }
    }

    /// The answer to a key that won as the store knows and the ledger does not.
    pub(crate) async fn stored(
        &self,
        sale: &Sale,
        serial: Serial,
        asked: Option<&Lines>,
    ) -> Outcome {
        let found = self.store.reservation(sale.sale_no(), serial).await;
        match self.store_read(found) {
            Ok(Some(row)) if asked.is_some_and(|asked| is_same(&row, asked.as_slice())) => {
                Outcome::Stands(Arc::new(sale.rendered_row(&row, self.durability())))
            }
            Ok(Some(_)) => Outcome::Refused(Refusal::IdempotencyKeyReused),
            Ok(None) => Outcome::Refused(Refusal::InFlight),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// A ledger with this one reservation of a sale that left memory; `None` if there is no such reservation.
    pub(crate) async fn slice(
        &self,
        sale: &Sale,
        serial: Serial,
        command: &Command,
    ) -> Result<Option<Arc<Sale>>, Refusal> {
        let sale_no = sale.sale_no();
        let Some(row) = self.store_read(self.store.reservation(sale_no, serial).await)? else {
            return Ok(None);
        };
        let items = self.store_read(self.store.items(sale_no).await)?;
        let mut decisions = self.store_read(self.store.decisions_of(sale_no, serial).await)?;
        let mut rows = vec![row];
        if let Command::Confirm { payment_ref, .. } = command {
            let known =
                self.store_read(self.store.payment_decision(sale_no, *payment_ref).await)?;
            // The payment of another reservation is refused for that reason: so that one comes along.
            let other = known.as_ref().and_then(|known| known.decision.reservation);
            if let Some(other) = other.filter(|other| *other != serial) {
                rows.extend(self.store_read(self.store.reservation(sale_no, other).await)?);
                decisions.extend(known);
            }
        }
        rows.sort_unstable_by_key(|row| row.serial);
        let units: Vec<ItemUnits> = items.iter().map(|item| item.units).collect();
        let mut slice = Sale::new(
            sale_no,
            sale.plan(),
            SaleState::Closed,
            &units,
            false,
            self.config.hash_key,
        );
        slice.share_events_mark(sale);
        for row in &rows {
            slice.ledger().load(&loaded(row, slice.payment_window()));
        }
        for decision in &decisions {
            load_decision(&slice, decision);
        }
        Ok(Some(Arc::new(slice)))
    }

    pub(crate) fn store_read<T>(&self, read: Result<T, ReadError>) -> Result<T, Refusal> {
        read.map_err(|error| {
            tracing::warn!(%error, "a read failed");
            Refusal::StoreUnavailable
        })
    }
}

fn is_same(row: &ReservationRow, asked: &[flash_types::Line]) -> bool {
    let stored = row.lines.iter().map(|line| (line.item, line.units));
    stored.eq(asked.iter().map(|line| (line.item, line.quantity.units())))
}

/// A stored reservation in the ledger's words.
pub(crate) fn loaded(row: &ReservationRow, window: Duration) -> LoadedReservation {
    LoadedReservation {
        serial: row.serial,
        buyer: row.buyer,
        key: row.key,
        state: row.state,
        lines: row
            .lines
            .iter()
            .map(|line| flash_ledger::LoadedLine {
                item: line.item,
                units: line.units,
                unit_price_minor: line.unit_price_minor,
                refunded_units: line.refunded_units,
                restocked_units: line.restocked_units,
            })
            .collect(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        is_extended: row.expires_at > row.created_at.plus(window),
        payment_ref: row.payment_ref,
    }
}

/// The stored facts of a refund or a change of stock.
#[derive(serde::Deserialize)]
struct RefundDetail {
    restock: bool,
    lines: Vec<(u16, u32)>,
}

#[derive(serde::Deserialize)]
struct WaveDetail {
    item: u16,
    units: u32,
}

#[derive(serde::Deserialize)]
struct StockDetail {
    item: u16,
    asked: i64,
    applied: i64,
}

/// Gives the sale a stored decision back; one that cannot be read is logged and left out (the audit names it).
pub(crate) fn load_decision(sale: &Sale, row: &DecisionRow) {
    if try_load_decision(sale, row).is_none() {
        tracing::error!(sale = %sale.definition().sale_id, ?row, "a stored decision cannot be read");
    }
}

fn try_load_decision(sale: &Sale, row: &DecisionRow) -> Option<()> {
    let decision = &row.decision;
    let payment = |taken: PaymentDecision| {
        let payment_ref = PaymentRef::parse(&decision.reference).ok()?;
        sale.ledger()
            .load_payment(&payment_ref, decision.reservation?, taken);
        Some(())
    };
    match decision.kind {
        DecisionKind::PaymentTaken => payment(PaymentDecision::Taken),
        DecisionKind::PaymentRefusedExpired => payment(PaymentDecision::RefusedExpired),
        DecisionKind::PaymentRefusedConflict => payment(PaymentDecision::RefusedConflict),
        DecisionKind::Refund => {
            let detail: RefundDetail = serde_json::from_str(row.detail.as_deref()?).ok()?;
            let lines: Vec<_> = detail
                .lines
                .iter()
                .map(|(item, units)| (ItemIndex(*item), *units))
                .collect();
            let refund_ref = RefundRef::parse(&decision.reference).ok()?;
            let reservation = decision.reservation?;
            sale.ledger()
                .load_refund(reservation, &refund_ref, detail.restock, &lines);
            Some(())
        }
        DecisionKind::Wave => {
            let detail: WaveDetail = serde_json::from_str(row.detail.as_deref()?).ok()?;
            let wave = WaveRef::parse(&decision.reference)?;
            sale.waves()
                .load(ItemIndex(detail.item), wave, detail.units);
            Some(())
        }
        DecisionKind::PriceProtection => {
            let item = decision.reference.parse().ok()?;
            sale.ledger()
                .load_protection(decision.reservation?, ItemIndex(item));
            Some(())
        }
        DecisionKind::StockChange => {
            let detail: StockDetail = serde_json::from_str(row.detail.as_deref()?).ok()?;
            let key = flash_types::IdempotencyKey::parse(&decision.reference).ok()?;
            let answer = crate::sale::StockAnswer {
                item: ItemIndex(detail.item),
                asked_delta_units: detail.asked,
                applied_delta_units: detail.applied,
            };
            sale.remember_stock_answer(key, answer);
            Some(())
        }
    }
}
