//! The buyers of one shard: the newest record of each, and the units that count against limits.
//!
//! A buyer has no name here: it is compared through its newest record. A buyer is kept while it has a record.
//! Only items with a limit are counted; the first of them in place, further ones in a side map.

use flash_types::ItemIndex;
use hashbrown::HashTable;

use crate::hash::{PlaceMap, spread};
use crate::record::NONE;
use crate::slab::Slab;

struct Buyer {
    newest: u32,
    hash: u32,
    /// Of `item`; 0: nothing is counted in place.
    units: u32,
    item: ItemIndex,
    /// Records of a buyer that is not crowded.
    records: u8,
    is_crowded: bool,
}

/// Records of one buyer that are searched one by one for a key. Most buyers have one or two; a buyer with
/// more is crowded from then on, and its keys lie in a table.
const RECORDS_SEARCHED_MAX: u8 = 4;

/// The buyers of one shard.
pub(crate) struct Buyers {
    by_hash: HashTable<u32>,
    buyers: Slab<Buyer, 256>,
    free: Vec<u32>,
    further: PlaceMap<(u32, u16), u32>,
}

impl Buyers {
    pub(crate) fn new() -> Self {
        Self {
            by_hash: HashTable::new(),
            buyers: Slab::new(),
            free: Vec::new(),
            further: PlaceMap::default(),
        }
    }

    /// The buyer with this hash of whose newest record `is_theirs` is true.
    pub(crate) fn find(&self, hash: u64, is_theirs: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash as u32;
        self.by_hash
            .find(spread(hash), |place| {
                let buyer = self.buyers.at(*place);
                buyer.hash == hash && is_theirs(buyer.newest)
            })
            .copied()
    }

    pub(crate) fn newest(&self, buyer: u32) -> u32 {
        self.buyers.at(buyer).newest
    }

    pub(crate) fn set_newest(&mut self, buyer: u32, record: u32) {
        self.buyers.at_mut(buyer).newest = record;
    }

    /// The buyer's keys lie in the table of keys.
    pub(crate) fn is_crowded(&self, buyer: u32) -> bool {
        self.buyers.at(buyer).is_crowded
    }

    /// Counts a new record of the buyer; `true` if it crowded the buyer just now.
    pub(crate) fn crowds(&mut self, buyer: u32) -> bool {
        let known = self.buyers.at_mut(buyer);
        if known.is_crowded {
            return false;
        }
        known.records += 1;
        known.is_crowded = known.records > RECORDS_SEARCHED_MAX;
        known.is_crowded
    }

    /// A record of the buyer is gone.
    pub(crate) fn thin(&mut self, buyer: u32) {
        let known = self.buyers.at_mut(buyer);
        if !known.is_crowded {
            known.records -= 1;
        }
    }

    /// A buyer that was not found.
    pub(crate) fn insert(&mut self, hash: u64, newest: u32) -> u32 {
        let new = Buyer {
            newest,
            hash: hash as u32,
            units: 0,
            item: ItemIndex(0),
            records: 0,
            is_crowded: false,
        };
        let place = match self.free.pop() {
            Some(place) => {
                *self.buyers.at_mut(place) = new;
                place
            }
            None => self.buyers.push(new),
        };
        let buyers = &self.buyers;
        self.by_hash
            .insert_unique(spread(hash as u32), place, |place| {
                spread(buyers.at(*place).hash)
            });
        place
    }

    /// Forgets a buyer that has no record any more.
    pub(crate) fn remove(&mut self, buyer: u32) {
        let Buyer { hash, units, .. } = *self.buyers.at(buyer);
        assert!(
            units == 0,
            "books broken: a buyer without records has units"
        );
        match self
            .by_hash
            .find_entry(spread(hash), |place| *place == buyer)
        {
            Ok(entry) => entry.remove(),
            Err(_) => unreachable!("a buyer is in the table as long as it has a record"),
        };
        self.buyers.at_mut(buyer).newest = NONE;
        self.free.push(buyer);
    }

    /// Units of the item that count against the buyer's limit.
    pub(crate) fn counted(&self, buyer: u32, item: ItemIndex) -> u32 {
        let known = self.buyers.at(buyer);
        if known.units > 0 && known.item == item {
            known.units
        } else {
            self.further.get(&(buyer, item.0)).copied().unwrap_or(0)
        }
    }

    pub(crate) fn count(&mut self, buyer: u32, item: ItemIndex, units: u32) {
        let known = self.buyers.at_mut(buyer);
        if known.units > 0 && known.item == item {
            known.units += units;
        } else if let Some(further) = self.further.get_mut(&(buyer, item.0)) {
            *further += units;
        } else if known.units == 0 {
            (known.item, known.units) = (item, units);
        } else {
            self.further.insert((buyer, item.0), units);
        }
    }

    pub(crate) fn uncount(&mut self, buyer: u32, item: ItemIndex, units: u32) {
        let known = self.buyers.at_mut(buyer);
        if known.units > 0 && known.item == item {
            assert!(
                known.units >= units,
                "books broken: uncounted units were counted"
            );
            known.units -= units;
            return;
        }
        let left = self
            .further
            .get(&(buyer, item.0))
            .and_then(|counted| counted.checked_sub(units));
        assert!(left.is_some(), "books broken: uncounted units were counted");
        match left {
            Some(left @ 1..) => self.further.insert((buyer, item.0), left),
            Some(0) | None => self.further.remove(&(buyer, item.0)),
        };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn several_items_of_one_buyer_are_counted_apart() {
        let mut buyers = Buyers::new();
        let buyer = buyers.insert(7, 0);
        for (item, units) in [(3, 1), (5, 2), (3, 4), (8, 1)] {
            buyers.count(buyer, ItemIndex(item), units);
        }
        let counted =
            |buyers: &Buyers| [3, 5, 8, 9].map(|item| buyers.counted(buyer, ItemIndex(item)));
        assert_eq!(counted(&buyers), [5, 2, 1, 0]);
        buyers.uncount(buyer, ItemIndex(3), 5);
        // The place is free now; item 5 stays where it is.
        buyers.count(buyer, ItemIndex(5), 1);
        buyers.count(buyer, ItemIndex(9), 6);
        assert_eq!(counted(&buyers), [0, 3, 1, 6]);
        for (item, units) in [(5, 3), (8, 1), (9, 6)] {
            buyers.uncount(buyer, ItemIndex(item), units);
        }
        assert_eq!(counted(&buyers), [0; 4]);
        buyers.remove(buyer);
        assert_eq!(buyers.find(7, |_| true), None);
        assert_eq!(buyers.insert(9, 1), buyer);
    }
}
