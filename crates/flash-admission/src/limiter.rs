//! A rate limiter for any number of keys in fixed memory: GCRA over a set-associative table of words.
//!
//! **Protocol.** A key's hash chooses a bucket (one cache line of slots) by its high bits and a tag by its low
//! ones. A check looks for the tag in the bucket; without one the key is new. A conforming try swaps the slot's
//! word for the later theoretical arrival time; a new key takes the slot with the least to say: a stale one, else
//! the one nearest to being stale. A refused try writes nothing. A lost swap starts over from what is there now, so
//! two tries of one key never spend the same credit.
//!
//! **What sharing can do.** Two keys with the same bucket and tag are one key: for a given key, with `n` live
//! neighbours in its bucket (8 at most), with odds of `n` in 1,048,575. Nothing else makes a key answer for
//! another's tries. A flood of other keys can push a slot out early: that key is forgotten and starts with a full
//! burst; it is never refused for the flood. Two first tries of one key that race with an eviction may both be
//! taken as first: one try too many, once.

use flash_types::{BuyerId, SaleNo};
use std::net::IpAddr;

use crate::hash::{HashKey, hash_address, hash_buyer};
use crate::rate::Rate;
use crate::slot::{Slot, Tag, UNIT_NS};
use crate::sync::{AtomicU64, Ordering};

/// Slots in a bucket: one cache line.
#[cfg(not(loom))]
const WAYS: usize = 8;
/// As few as show every race, or the model checker does not come to an end.
#[cfg(loom)]
const WAYS: usize = 2;

#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// The table. Takes 16 bytes per key of capacity, all at once, and never more.
pub struct Limiter {
    buckets: Box<[Bucket]>,
    hash_key: HashKey,
}

/// Where a key stands in its bucket.
struct Place {
    way: usize,
    seen: Slot,
    /// Steps ahead of now; 0 for a key that is new or all of whose tries are long past.
    ahead_units: u64,
}

impl Limiter {
    /// A table for so many keys at a time, at least one bucket. Twice as many slots as keys, so that hardly any
    /// bucket overflows at capacity.
    pub fn new(capacity_keys: usize, hash_key: HashKey) -> Self {
        let buckets_count = capacity_keys.saturating_mul(2).div_ceil(WAYS).max(1);
        let buckets = (0..buckets_count)
            .map(|_| Bucket(std::array::from_fn(|_| AtomicU64::new(0))))
            .collect();
        Self { buckets, hash_key }
    }

    /// Takes one try of a key, or says after how many milliseconds (rounded up, at least 1) one would conform.
    ///
    /// `now_ns` is nanoseconds since the start of the process. A key keeps one rate for as long as it is in use.
    ///
    /// # Errors
    /// The wait in milliseconds; the try is not counted.
    pub fn check(&self, key_hash: u64, rate: Rate, now_ns: u64) -> Result<(), u32> {
        let now_units = now_ns / UNIT_NS;
        let (interval_units, tolerance_units) = rate.units();
        let tag = Tag::of(key_hash);
        let bucket = self.bucket(key_hash);
        loop {
            let place = bucket.place(tag, now_units);
            // Further ahead than this rate can bring a key: another key's word under the same tag, or an old rate.
            let ahead_units = if place.ahead_units > tolerance_units + interval_units {
                0
            } else {
                place.ahead_units
            };
            if ahead_units > tolerance_units {
                return Err(wait_ms(ahead_units - tolerance_units));
            }
            let next = Slot::new(tag, now_units.wrapping_add(ahead_units + interval_units));
            if bucket.swap(&place, next) {
                return Ok(());
            }
        }
    }

    /// The hash of a buyer of a sale, under this limiter's key.
    pub fn hash_buyer(&self, sale_no: SaleNo, buyer: &BuyerId) -> u64 {
        hash_buyer(self.hash_key, sale_no, buyer)
    }

    /// The hash of an address at a sale, under this limiter's key; IPv6 by its /64.
    pub fn hash_address(&self, sale_no: SaleNo, address: IpAddr) -> u64 {
        hash_address(self.hash_key, sale_no, address)
    }

    /// The memory of the table: what it takes now and for ever.
    pub fn memory_bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    fn bucket(&self, key_hash: u64) -> &Bucket {
        // The high half, scaled to the number of buckets.
        let index = ((key_hash >> 32) * self.buckets.len() as u64) >> 32;
        &self.buckets[index as usize]
    }
}

impl Bucket {
    /// The slot with this tag, else the one that has the least to say.
    fn place(&self, tag: Tag, now_units: u64) -> Place {
        let mut oldest = Place {
            way: 0,
            seen: Slot(0),
            ahead_units: u64::MAX,
        };
        for (way, word) in self.0.iter().enumerate() {
            // Relaxed: a word is all there is to know, nothing is published through it; the swap checks it again.
            let seen = Slot(word.load(Ordering::Relaxed));
            let ahead_units = seen.ahead_units(now_units);
            if seen.is_of(tag) {
                return Place {
                    way,
                    seen,
                    ahead_units,
                };
            }
            if ahead_units < oldest.ahead_units {
                oldest = Place {
                    way,
                    seen,
                    ahead_units,
                };
            }
        }
        oldest.ahead_units = 0;
        oldest
    }

    fn swap(&self, place: &Place, next: Slot) -> bool {
        // Relaxed: the word's own modification order decides who was first; nothing else hangs on it.
        self.0[place.way]
            .compare_exchange(place.seen.0, next.0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

fn wait_ms(units: u64) -> u32 {
    let ms = units.saturating_mul(UNIT_NS).div_ceil(1_000_000);
    u32::try_from(ms).unwrap_or(u32::MAX).max(1)
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter")
            .field("buckets", &self.buckets.len())
            .finish_non_exhaustive()
    }
}
