//! Prices: what looks like a mistake when a sale is published, and another price while it is paused.

use std::sync::Arc;
use std::time::Duration;

use flash_types::{
    ItemId, ItemIndex, Money, Refusal, Reservation, SaleDefinition, SaleId, SaleState, Serial,
    Timestamp, bounds,
};

use crate::queue::{PriceChange, Work};
use crate::sale::Sale;
use crate::{AdminRefusal, Engine, ReservationQuery, Who};

/// Prices of so long ago count for the lowest one.
const LOWEST_PRICE_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);
/// A price at or above this part of the list price is no deep discount.
const DEEP_DISCOUNT_TENTH: i64 = 10;

/// What may be wrong with a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriceCode {
    /// The sale's price is above the list price.
    AboveListPrice,
    /// It is under the floor that the plan itself names.
    BelowFloor,
    /// More than 90 % off.
    DeepDiscount,
    /// It is under the lowest price that the item had within 30 days.
    BelowLowestPrice,
    /// Another sale of the item was announced dearer, and has not started.
    UndercutsAnnounced,
}

impl PriceCode {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AboveListPrice,
        Self::BelowFloor,
        Self::DeepDiscount,
        Self::BelowLowestPrice,
        Self::UndercutsAnnounced,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AboveListPrice => "above_list_price",
            Self::BelowFloor => "below_floor_price",
            Self::DeepDiscount => "deep_discount",
            Self::BelowLowestPrice => "below_lowest_price_30d",
            Self::UndercutsAnnounced => "undercuts_announced_sale",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

/// A price that may be a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceFinding {
    /// What may be wrong.
    pub code: PriceCode,
    /// With which item.
    pub item: ItemId,
    /// In words.
    pub detail: String,
}

/// What became of a price.
#[derive(Debug, Clone)]
pub struct PriceChanged {
    /// The price until now.
    pub old_price_minor: Money,
    /// The price of new reservations.
    pub sale_price_minor: Money,
    /// The first reservations at the old price, ascending by serial.
    pub reservations: Vec<Reservation>,
    /// What looks like a mistake about the new price: told, since the sale is still paused, and stopping nothing.
    pub findings: Vec<PriceFinding>,
}

impl Engine {
    /// Holds the prices of a plan against their list prices, their floors and other sales; those not accepted stop the
    /// publish. Gives what was gone over, for the audit log.
    pub(crate) fn guard(
        &self,
        sale: &Sale,
        accepted: &[PriceCode],
        wall: Timestamp,
    ) -> Result<String, AdminRefusal> {
        let (accepted, open): (Vec<_>, Vec<_>) = self
            .findings(&sale.plan(), wall)
            .into_iter()
            .partition(|finding| accepted.contains(&finding.code));
        if !open.is_empty() {
            return Err(AdminRefusal::PriceGuard(open));
        }
        let gone_over = accepted
            .iter()
            .map(|finding| format!("accepted {}: {}", finding.code.as_str(), finding.detail));
        Ok(gone_over.collect::<Vec<_>>().join("; "))
    }

    /// Everything about a plan's prices that looks like a mistake.
    pub fn findings(&self, plan: &SaleDefinition, wall: Timestamp) -> Vec<PriceFinding> {
        let others: Vec<Arc<Sale>> = self.catalogue.all();
        let others = others.iter().filter(|other| {
            let definition = other.definition();
            definition.sale_id != plan.sale_id
                && definition.currency == plan.currency
                && other.state() != SaleState::Draft
        });
        let others: Vec<&Arc<Sale>> = others.collect();
        let mut findings = Vec::new();
        for item in &plan.items {
            let price = item.sale_price_minor;
            let mut found = |code, detail| {
                findings.push(PriceFinding {
                    code,
                    item: item.item,
                    detail,
                });
            };
            if let Some(list) = item.list_price_minor {
                if price > list {
                    found(
                        PriceCode::AboveListPrice,
                        format!(
                            "{}: sale price {price} is above the list price {list}",
                            item.item
                        ),
                    );
                }
                if price.0.saturating_mul(DEEP_DISCOUNT_TENTH) < list.0 {
                    found(
                        PriceCode::DeepDiscount,
                        format!(
                            "{}: sale price {price} is more than 90 % under the list price {list}",
                            item.item
                        ),
                    );
                }
            }
            if let Some(floor) = item.floor_price_minor.filter(|floor| price < *floor) {
                found(
                    PriceCode::BelowFloor,
                    format!(
                        "{}: sale price {price} is under the floor {floor}",
                        item.item
                    ),
                );
            }
            let of_others = others.iter().filter_map(|other| {
                let index = other.item_index(&item.item)?;
                Some((*other, other.price(index), index))
            });
            let sold = of_others.clone().filter(|(other, _, index)| {
                other.was_for_sale(*index, wall)
                    && other.definition().ends_at.plus(LOWEST_PRICE_WINDOW) > wall
            });
            let lowest = sold.min_by_key(|(_, price, _)| *price);
            if let Some((other, lowest, _)) = lowest.filter(|(_, lowest, _)| price < *lowest) {
                found(
                    PriceCode::BelowLowestPrice,
                    format!(
                        "{}: sale price {price} is under the lowest of 30 days, {lowest} in {}",
                        item.item,
                        other.definition().sale_id
                    ),
                );
            }
            let announced = of_others.filter(|(other, other_price, _)| {
                other.definition().starts_at > wall
                    && other.state() == SaleState::Published
                    && plan.starts_at < other.definition().starts_at
                    && price < *other_price
            });
            for (other, other_price, _) in announced {
                found(
                    PriceCode::UndercutsAnnounced,
                    format!(
                        "{}: {} is announced at {other_price}, and this sale starts before it at {price}",
                        item.item,
                        other.definition().sale_id
                    ),
                );
            }
        }
        findings
    }

    /// Gives an item of a paused sale another price, for new reservations. Those made before keep theirs: the first of
    /// them, in any state, are told. The same price again changes nothing.
    ///
    /// # Errors
    /// `not_found`, `malformed`; a conflict where the sale is not paused; or the store's.
    ///
    /// # Cancel safety
    /// After the hand-over the command goes on without its caller.
    pub async fn change_price(
        &self,
        sale_id: &SaleId,
        item: &ItemId,
        price: Money,
        reason: &str,
        who: Who,
    ) -> Result<PriceChanged, AdminRefusal> {
        if !(0..=bounds::PRICE_MINOR_MAX).contains(&price.0) {
            let why = format!("sale_price_minor must be 0-{}", bounds::PRICE_MINOR_MAX);
            return Err(AdminRefusal::Malformed(why));
        }
        let deadline = self.deadline();
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let turns = vec![self.turn(&sale.turn, deadline).await?];
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let index = sale.item_index(item).ok_or(Refusal::NotFound)?;
        let from = sale.price(index);
        match sale.state() {
            SaleState::Frozen => return Err(Refusal::SaleFrozen.into()),
            SaleState::Paused => {}
            state @ (SaleState::Draft
            | SaleState::Published
            | SaleState::Open
            | SaleState::Closed) => {
                let hint = match state {
                    SaleState::Open => "pause it first",
                    SaleState::Draft => "replace the draft",
                    SaleState::Published => "unpublish it, then replace the draft",
                    SaleState::Paused | SaleState::Closed | SaleState::Frozen => "it sells no more",
                };
                let why = format!("the sale is {}: {hint}", state.as_str());
                return Err(AdminRefusal::Conflict(why));
            }
        }
        if price != from {
            let detail = format!("{item}: {from} to {price}: {reason}");
            let note = self.note_of(&who, "sale.change_price", Some(sale_id), "ok", &detail);
            let mut definition = sale.plan();
            definition.items[usize::from(index.0)].sale_price_minor = price;
            let work = Work::ChangePrice(Box::new(PriceChange {
                item: index,
                from,
                to: price,
                reason: reason.to_owned(),
                definition,
            }));
            self.submit(&sale, work, Some(note), turns, deadline)
                .await?;
        }
        let query = ReservationQuery {
            other_price: Some((index, price)),
            ..ReservationQuery::default()
        };
        let limit = bounds::PAGE_ITEMS_MAX;
        let listed = self.reservations(sale_id, &query, Serial(0), limit).await;
        Ok(PriceChanged {
            old_price_minor: from,
            sale_price_minor: price,
            reservations: listed?,
            findings: self.findings_of(&sale, item),
        })
    }

    fn findings_of(&self, sale: &Sale, item: &ItemId) -> Vec<PriceFinding> {
        let mut findings = self.findings(&sale.plan(), self.clock.read().wall);
        findings.retain(|finding| finding.item == *item);
        findings
    }

    /// Place of an item in a sale.
    pub fn item_index(&self, sale_id: &SaleId, item: &ItemId) -> Option<ItemIndex> {
        self.catalogue.find(sale_id)?.item_index(item)
    }
}
