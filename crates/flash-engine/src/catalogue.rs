//! All sales, by name and by number. Looked up without a lock; replaced as a whole by the few who change it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use flash_types::{SaleId, SaleNo};
use parking_lot::Mutex;

use crate::sale::Sale;

#[derive(Default)]
struct Listing {
    by_id: HashMap<SaleId, Arc<Sale>>,
    /// Ascending by number.
    all: Vec<Arc<Sale>>,
}

/// All sales.
#[derive(Default)]
pub(crate) struct Catalogue {
    listing: ArcSwap<Listing>,
    changing: Mutex<()>,
}

impl Catalogue {
    pub(crate) fn find(&self, sale_id: &SaleId) -> Option<Arc<Sale>> {
        self.listing.load().by_id.get(sale_id).cloned()
    }

    pub(crate) fn numbered(&self, sale_no: SaleNo) -> Option<Arc<Sale>> {
        let listing = self.listing.load();
        let index = listing
            .all
            .binary_search_by_key(&sale_no, |sale| sale.sale_no())
            .ok()?;
        listing.all.get(index).cloned()
    }

    /// All of them, ascending by number.
    pub(crate) fn all(&self) -> Vec<Arc<Sale>> {
        self.listing.load().all.clone()
    }

    /// Adds sales, each in place of one with the same number.
    pub(crate) fn put(&self, sales: impl IntoIterator<Item = Arc<Sale>>) {
        let _changing = self.changing.lock();
        let listing = self.listing.load();
        let mut by_id = listing.by_id.clone();
        for sale in sales {
            by_id.insert(sale.definition().sale_id, sale);
        }
        let mut all: Vec<_> = by_id.values().cloned().collect();
        all.sort_unstable_by_key(|sale| sale.sale_no());
        let is_unique = all.is_sorted_by(|one, next| one.sale_no() < next.sale_no());
        assert!(is_unique, "a number names one sale");
        self.listing.store(Arc::new(Listing { by_id, all }));
    }
}
