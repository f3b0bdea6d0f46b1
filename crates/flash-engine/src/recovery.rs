//! From the store to a ledger that can sell: sales, keys, limits, filter; then the books are held against each other.

use std::collections::HashMap;
use std::sync::Arc;

use flash_ledger::HashKey;
use flash_store::{DecisionRow, Loaded, ReservationRow, SaleContent, SaleRow};
use flash_types::{ItemIndex, ItemUnits, SaleNo, Timestamp};

use crate::retired::{load_decision, loaded};
use crate::sale::Sale;

/// Sales as they come out of a store.
pub struct Recovered {
    hash_key: HashKey,
    sales: HashMap<SaleNo, Arc<Sale>>,
}

impl Recovered {
    /// Takes what `load` of a store hands over; `hash_key` is the engine's.
    pub fn new(hash_key: HashKey) -> Self {
        Self {
            hash_key,
            sales: HashMap::new(),
        }
    }

    /// Takes all that is stored of one sale.
    pub(crate) fn add(&mut self, content: SaleContent) {
        self.sale(content.sale);
        for row in content.reservations {
            self.reservation(row);
        }
        for row in content.decisions {
            self.decision(row);
        }
    }

    /// All sales, and what does not balance: (sale, finding). Open reservations keep their grace from `steady_now` on.
    pub(crate) fn finish(self, steady_now: Timestamp) -> (Vec<Arc<Sale>>, Vec<(SaleNo, String)>) {
        let mut findings = Vec::new();
        for sale in self.sales.values().filter(|sale| !sale.is_retired()) {
            sale.ledger()
                .extend_expiry(steady_now.plus(sale.restart_grace()));
            findings.extend(
                imbalances(sale)
                    .into_iter()
                    .map(|finding| (sale.sale_no(), finding)),
            );
        }
        (self.sales.into_values().collect(), findings)
    }
}

/// What does not balance in a quiet sale: counters among themselves, and against the reservations.
pub(crate) fn imbalances(sale: &Sale) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, sums) in (0u16..).zip(sale.ledger().sums()) {
        let item = &sale.definition().items[usize::from(index)].item;
        let units = sale.units(ItemIndex(index));
        if units.imbalance() != 0 {
            findings.push(format!(
                "{item}: stock is not unreleased + available + reserved + sold: {units:?}"
            ));
        }
        if (units.reserved, units.sold) != (sums.reserved, sums.sold) {
            findings.push(format!(
                "{item}: the counters say {} reserved and {} sold, the reservations {} and {}",
                units.reserved, units.sold, sums.reserved, sums.sold
            ));
        }
    }
    findings
}

impl Loaded for Recovered {
    fn sale(&mut self, row: SaleRow) {
        let units: Vec<ItemUnits> = row.items.iter().map(|item| item.units).collect();
        let sale = Sale::new(
            row.sale_no,
            row.definition,
            row.state,
            &units,
            row.is_retired,
            self.hash_key,
        );
        self.sales.insert(row.sale_no, Arc::new(sale));
    }

    fn reservation(&mut self, row: ReservationRow) {
        if let Some(sale) = self.sales.get(&row.sale_no) {
            sale.ledger().load(&loaded(&row, sale.payment_window()));
        }
    }

    fn decision(&mut self, row: DecisionRow) {
        if let Some(sale) = self.sales.get(&row.sale_no) {
            load_decision(sale, &row);
        }
    }
}
