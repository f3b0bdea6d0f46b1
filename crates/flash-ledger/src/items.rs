//! The counters of all items of a sale: the word, and the books beside it.
//!
//! `stock = unreleased + available + reserved + sold` whenever nothing is being moved. `stock`, `unreleased`
//! and `sold` are counted by themselves, and only when a change was committed: so the books can fail, and
//! whoever holds them against the word finds out.

use crossbeam::utils::CachePadded;
use flash_types::{ItemIndex, ItemUnits};

use crate::LedgerItem;
use crate::sync::{AtomicU64, Ordering};
use crate::word::{Halves, Word};

struct Item {
    word: Word,
    /// Apart from the word: confirmations must not slow purchases.
    books: CachePadded<Books>,
}

struct Books {
    stock: AtomicU64,
    /// `stock` plus growth that is not committed yet: keeps growth of the same moment below 2^32 together.
    stock_claimed: AtomicU64,
    unreleased: AtomicU64,
    /// How often units went back to what is unreleased: see `is_drained`.
    pools: AtomicU64,
    sold: AtomicU64,
}

/// All items of a sale.
pub(crate) struct Items {
    items: Box<[Item]>,
    /// Apart from what changes.
    units_per_buyer_max: Box<[Option<u32>]>,
}

impl Items {
    pub(crate) fn new(items: &[LedgerItem]) -> Self {
        let half = |units: u64| u32::try_from(units).expect("an item has less than 2^32 units");
        Self {
            items: items
                .iter()
                .map(|LedgerItem { units, .. }| Item {
                    word: Word::new(half(units.available), half(units.reserved)),
                    books: CachePadded::new(Books {
                        stock: AtomicU64::new(units.stock),
                        stock_claimed: AtomicU64::new(units.stock),
                        unreleased: AtomicU64::new(units.unreleased),
                        pools: AtomicU64::new(0),
                        sold: AtomicU64::new(units.sold),
                    }),
                })
                .collect(),
            units_per_buyer_max: items.iter().map(|item| item.units_per_buyer_max).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn word(&self, item: ItemIndex) -> &Word {
        &self.item(item).word
    }

    pub(crate) fn limit(&self, item: ItemIndex) -> Option<u32> {
        self.units_per_buyer_max[usize::from(item.0)]
    }

    pub(crate) fn units(&self, item: ItemIndex) -> ItemUnits {
        let Item { word, books } = self.item(item);
        // Acquire: what a committed change added here is not older than what it did to the word.
        let (stock, unreleased, sold) = (
            books.stock.load(Ordering::Acquire),
            books.unreleased.load(Ordering::Acquire),
            books.sold.load(Ordering::Acquire),
        );
        let Halves {
            available,
            reserved,
        } = word.load();
        ItemUnits {
            stock,
            unreleased,
            available: available.into(),
            reserved: reserved.into(),
            sold,
        }
    }

    pub(crate) fn is_drained(&self, item: ItemIndex) -> bool {
        let Item { word, books } = self.item(item);
        // A unit that is released is in the word before it leaves what is unreleased; one that is pooled is counted as
        // unreleased, then as a pool, before it leaves the word. So a unit that neither look finds was pooled after
        // the first one: and then it may have been released again meanwhile, but the pools are not those of before.
        // Acquire on each: none is looked at before the one above it.
        let pools = books.pools.load(Ordering::Acquire);
        books.unreleased.load(Ordering::Acquire) == 0
            && word.load()
                == Halves {
                    available: 0,
                    reserved: 0,
                }
            && books.pools.load(Ordering::Acquire) == pools
    }

    /// available -> reserved for all `units` (ascending by item) or none.
    pub(crate) fn take_all(
        &self,
        units: impl Iterator<Item = (ItemIndex, u32)> + Clone,
    ) -> Result<(), (ItemIndex, u32)> {
        for (taken, (item, wanted)) in units.clone().enumerate() {
            if let Err(available) = self.word(item).take(wanted) {
                self.give_all(units.take(taken));
                return Err((item, available));
            }
        }
        Ok(())
    }

    /// reserved -> available.
    pub(crate) fn give_all(&self, units: impl Iterator<Item = (ItemIndex, u32)>) {
        for (item, units) in units {
            self.word(item).give(units);
        }
    }

    /// The first item of which fewer units are available than wanted. Moves nothing.
    pub(crate) fn shortage(
        &self,
        mut units: impl Iterator<Item = (ItemIndex, u32)>,
    ) -> Option<(ItemIndex, u32)> {
        units.find_map(|(item, wanted)| {
            let available = self.word(item).load().available;
            (available < wanted).then_some((item, available))
        })
    }

    /// reserved -> sold.
    pub(crate) fn sell(&self, item: ItemIndex, units: u32) {
        let Item { word, books } = self.item(item);
        word.leave(units);
        // Release on all books: pairs with `units`.
        books.sold.fetch_add(units.into(), Ordering::Release);
    }

    /// sold -> available.
    pub(crate) fn restock(&self, item: ItemIndex, units: u32) {
        let Item { word, books } = self.item(item);
        subtract(&books.sold, units.into(), "restocked units were sold");
        word.enter(units);
    }

    /// unreleased -> available.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn release(&self, item: ItemIndex, units: u32) {
        let Item { word, books } = self.item(item);
        // The word first: see `is_drained`.
        word.enter(units);
        let law = "released units were unreleased";
        subtract(&books.unreleased, units.into(), law);
    }

    /// reserved -> unreleased.
    pub(crate) fn pool(&self, item: ItemIndex, units: u32) {
        let Item { word, books } = self.item(item);
        // The word last: see `is_drained`. AcqRel: who sees the pool counted sees its units.
        books.unreleased.fetch_add(units.into(), Ordering::AcqRel);
        books.pools.fetch_add(1, Ordering::AcqRel);
        word.leave(units);
    }

    /// Units that are not yet for sale.
    pub(crate) fn unreleased(&self, item: ItemIndex) -> u32 {
        let units = self.item(item).books.unreleased.load(Ordering::Acquire);
        u32::try_from(units).expect("an item has less than 2^32 units")
    }

    /// Claims growth of the stock; `false` if the stock could pass 2^32 - 1.
    pub(crate) fn claim_stock(&self, item: ItemIndex, units: u64) -> bool {
        let claimed = &self.item(item).books.stock_claimed;
        // AcqRel for the sake of simplicity: this is rare.
        claimed
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |claimed| {
                claimed
                    .checked_add(units)
                    .filter(|sum| *sum <= u64::from(u32::MAX))
            })
            .is_ok()
    }

    pub(crate) fn unclaim_stock(&self, item: ItemIndex, units: u32) {
        let claimed = &self.item(item).books.stock_claimed;
        subtract(claimed, units.into(), "claimed stock was claimed");
    }

    /// New stock, claimed before -> available.
    pub(crate) fn grow(&self, item: ItemIndex, units: u32) {
        let Item { word, books } = self.item(item);
        books.stock.fetch_add(units.into(), Ordering::Release);
        word.enter(units);
    }

    /// reserved -> gone.
    pub(crate) fn shrink(&self, item: ItemIndex, units: u32) {
        let Item { word, books } = self.item(item);
        word.leave(units);
        subtract(&books.stock, units.into(), "removed units were stock");
        self.unclaim_stock(item, units);
    }

    fn item(&self, item: ItemIndex) -> &Item {
        &self.items[usize::from(item.0)]
    }
}

/// # Panics
/// If the counter would pass below zero: the books are broken.
fn subtract(counter: &AtomicU64, units: u64, law: &str) {
    let before = counter.fetch_sub(units, Ordering::AcqRel);
    assert!(before >= units, "books broken: {law}; {units} of {before}");
}
