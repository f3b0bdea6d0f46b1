//! A sale as buyers and as merchants see it.

use flash_engine::Sale;
use flash_types::{
    Currency, ItemId, ItemIndex, ItemUnits, Money, SaleDefinition, SaleId, SaleState, Timestamp,
};
use serde::Serialize;

/// What is told of the units that are left: the figure, or the lower end of the bucket that it lies in.
pub(crate) fn shown_units(available: u32, buckets: &[u32]) -> u32 {
    if buckets.is_empty() || available == 0 {
        return available;
    }
    // Something is left: that is told, however little.
    let reached = buckets.iter().rev().find(|low| **low <= available);
    reached.copied().unwrap_or(1).max(1)
}

/// One item for buyers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ItemView<'a> {
    /// Its name.
    #[schema(value_type = String)]
    item: ItemId,
    title: &'a str,
    /// Price outside of the sale, minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    list_price_minor: Option<Money>,
    /// Price in the sale, minor units.
    #[schema(value_type = i64)]
    sale_price_minor: Money,
    /// Units for sale now: exact, or the lower end of a bucket.
    available_units: u32,
    /// Most units of it for one buyer over the whole sale.
    #[serde(skip_serializing_if = "Option::is_none")]
    units_per_buyer_max: Option<u32>,
    /// The next announced release of further units.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_wave: Option<WaveView>,
}

/// A release of further units that is announced.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct WaveView {
    /// RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How many; absent where it brings what came back unpaid until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<u32>,
}

/// A sale for buyers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SaleView<'a> {
    #[schema(value_type = String)]
    sale_id: SaleId,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<&'a str>,
    /// RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    /// RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    /// published, open, paused, closed or frozen
    state: &'static str,
    /// The server's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    now: Option<Timestamp>,
    /// ISO 4217, of all prices.
    #[schema(value_type = String)]
    currency: Currency,
    /// How long a reservation is kept unpaid, seconds.
    payment_window_s: u32,
    items: Vec<ItemView<'a>>,
}

impl<'a> SaleView<'a> {
    /// A sale at this moment; `None` for drafts, which nobody sees. Without `now` it is what an ETag stands for.
    pub(crate) fn of(sale: &'a Sale, wall: Timestamp, buckets: &[u32]) -> Option<Self> {
        let state = sale.shown_state(wall);
        if state == SaleState::Draft {
            return None;
        }
        let plan = sale.definition();
        let items = indexed(plan)
            .map(|(index, item)| ItemView {
                item: item.item,
                title: &item.title,
                list_price_minor: item.list_price_minor,
                sale_price_minor: sale.price(index),
                next_wave: sale
                    .next_wave(index, wall)
                    .map(|(at, units)| WaveView { at, units }),
                available_units: shown_units(available(sale, index), buckets),
                units_per_buyer_max: item.units_per_buyer_max,
            })
            .collect();
        Some(Self {
            sale_id: plan.sale_id,
            title: &plan.title,
            series: plan.series.as_deref(),
            starts_at: plan.starts_at,
            ends_at: plan.ends_at,
            state: state.as_str(),
            now: None,
            currency: plan.currency,
            payment_window_s: plan.payment_window_s,
            items,
        })
    }

    pub(crate) fn at(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }
}

/// The items of a plan with their places.
pub(crate) fn indexed(
    plan: &SaleDefinition,
) -> impl Iterator<Item = (ItemIndex, &flash_types::ItemDefinition)> {
    (0u16..).map(ItemIndex).zip(&plan.items)
}

/// Units for sale now; none of a sale that left memory.
pub(crate) fn available(sale: &Sale, index: ItemIndex) -> u32 {
    if sale.is_retired() {
        0
    } else {
        sale.available_units(index)
    }
}

/// Counters of an item for merchants.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct UnitsView {
    #[schema(value_type = String)]
    item: ItemId,
    stock_units: u64,
    unreleased_units: u64,
    available_units: u64,
    reserved_units: u64,
    sold_units: u64,
}

/// A sale for merchants: its plan, its state, its counters.
#[derive(Debug, Serialize)]
pub(crate) struct AdminSaleView {
    #[serde(flatten)]
    plan: SaleDefinition,
    state: &'static str,
    is_retired: bool,
    units: Vec<UnitsView>,
}

impl AdminSaleView {
    pub(crate) fn of(sale: &Sale, wall: Timestamp) -> Self {
        let plan = sale.plan();
        let units = indexed(&plan)
            .filter(|_| !sale.is_retired())
            .map(|(index, item)| {
                let ItemUnits {
                    stock,
                    unreleased,
                    available,
                    reserved,
                    sold,
                } = sale.units(index);
                UnitsView {
                    item: item.item,
                    stock_units: stock,
                    unreleased_units: unreleased,
                    available_units: available,
                    reserved_units: reserved,
                    sold_units: sold,
                }
            })
            .collect();
        Self {
            plan,
            state: sale.shown_state(wall).as_str(),
            is_retired: sale.is_retired(),
            units,
        }
    }
}

/// A list with the cursor of its next page.
#[derive(Debug, Serialize)]
pub(crate) struct PageView<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tell_lower_ends_and_never_nothing_for_something() {
        let buckets = [5, 10, 100];
        for (available, shown) in [
            (0, 0),
            (1, 1),
            (4, 1),
            (5, 5),
            (9, 5),
            (10, 10),
            (99, 10),
            (5_000, 100),
        ] {
            assert_eq!(shown_units(available, &buckets), shown, "{available}");
            assert_eq!(shown_units(available, &[]), available);
        }
    }
}
