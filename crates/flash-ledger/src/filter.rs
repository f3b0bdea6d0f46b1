//! The won-key filter: which (buyer, key) may have won, told without a lock.
//!
//! Holds 32-bit tags of keyed 64-bit hashes in buckets of one cache line. A bucket fills from its front and
//! never empties. Segments of buckets are chained: a tag whose bucket is full goes to its bucket in the next
//! segment, so an empty place ends every search, and a miss mostly reads one cache line.
//!
//! Invariant: no false miss. A hit may be false (another key with the same tag, a try that was undone): it
//! only sends the caller to the look-up under the shard's lock.
//!
//! Protocol with [`crate::word::Word`]: a winner inserts its key, then takes units (a Release on the word);
//! a loser loads the word (Acquire), sees too few units, then searches here. If the loser's key had won one
//! of the units that are gone, its insert happened before that load, and the search finds it. So a miss
//! after the refusal proves that there is nothing to replay. All orderings in this file are therefore
//! Relaxed: coherence keeps a bucket's filled places filled for whoever is ordered behind by the word.

use std::sync::OnceLock; // Not modelled by loom: it only publishes empty segments.

use crate::sync::{AtomicU32, Ordering};

/// Tags in one bucket: a cache line. Two under loom, so that a model overflows it.
const BUCKET_TAGS: usize = if cfg!(loom) { 2 } else { 16 };
/// Tags for which a bucket is planned: half of it, so that few overflow.
const BUCKET_TAGS_PLANNED: u64 = 8;
/// Buckets of the first segment at most: 8 MiB, planned for a million keys.
const FIRST_BUCKETS_MAX: u64 = 1 << 17;
/// Buckets of any segment at most (32 MiB).
const SEGMENT_BUCKETS_MAX: usize = 1 << 19;
/// Bounds the memory; a filter that is full answers "maybe" for ever: slower, never wrong.
const SEGMENTS_MAX: usize = 16;

#[repr(align(64))]
struct Bucket([AtomicU32; BUCKET_TAGS]);

/// A lock-free set of hashes that grows and never forgets.
pub struct Filter {
    first_buckets: usize,
    segments: [OnceLock<Box<[Bucket]>>; SEGMENTS_MAX],
}

impl Filter {
    /// A filter whose first segment has so many buckets. Allocates nothing yet.
    pub fn new(first_buckets: usize) -> Self {
        Self {
            first_buckets: first_buckets.clamp(1, SEGMENT_BUCKETS_MAX),
            segments: [const { OnceLock::new() }; SEGMENTS_MAX],
        }
    }

    /// Buckets of the first segment for so many expected keys.
    pub fn buckets_for(keys: u64) -> usize {
        (keys / BUCKET_TAGS_PLANNED)
            .clamp(4, FIRST_BUCKETS_MAX)
            .next_power_of_two() as usize
    }

    /// Allocates the first segment, so that no buyer waits for it.
    pub fn prepare(&self) {
        self.segment(0);
        if cfg!(loom) {
            // loom does not see that `OnceLock` orders the making of a segment before its use.
            self.segment(1);
        }
    }

    /// Adds a hash.
    pub fn insert(&self, hash: u64) {
        let tag = tag_of(hash);
        for index in 0..SEGMENTS_MAX {
            if put(bucket_of(self.segment(index), index, hash), tag) {
                return;
            }
        }
        // Full everywhere: `may_contain` finds no empty place either and says "maybe".
    }

    /// `false` proves that the hash was not added before what the caller has seen.
    pub fn may_contain(&self, hash: u64) -> bool {
        let tag = tag_of(hash);
        for (index, segment) in self.segments.iter().enumerate() {
            let Some(buckets) = segment.get() else {
                return false;
            };
            for place in &bucket_of(buckets, index, hash).0 {
                let seen = place.load(Ordering::Relaxed);
                if seen == tag {
                    return true;
                }
                if seen == 0 {
                    return false;
                }
            }
        }
        true
    }

    fn segment(&self, index: usize) -> &[Bucket] {
        self.segments[index].get_or_init(|| {
            let buckets = (self.first_buckets << index).min(SEGMENT_BUCKETS_MAX);
            (0..buckets)
                .map(|_| Bucket(std::array::from_fn(|_| AtomicU32::new(0))))
                .collect()
        })
    }
}

/// Whether the tag is in the bucket afterwards.
fn put(bucket: &Bucket, tag: u32) -> bool {
    for place in &bucket.0 {
        // loom looks back at the last access only: a load here would hide another thread's load.
        let mut seen = if cfg!(loom) {
            0
        } else {
            place.load(Ordering::Relaxed)
        };
        if seen == 0 {
            match place.compare_exchange(0, tag, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
        if seen == tag {
            return true;
        }
    }
    false
}

/// The upper half of the hash; 0 means an empty place, so it is mapped to 1.
fn tag_of(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

/// Another multiplier per segment: keys that share a full bucket part in the next segment.
fn bucket_of(buckets: &[Bucket], segment: usize, hash: u64) -> &Bucket {
    let odd = 0x9E37_79B1_u32.wrapping_add((segment as u32).wrapping_mul(0x85EB_CA76));
    let spread = u64::from((hash as u32).wrapping_mul(odd));
    &buckets[((spread * buckets.len() as u64) >> 32) as usize]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Well spread, all different.
    fn hash(n: u64) -> u64 {
        n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn nothing_added_is_ever_missed_and_little_else_is_found() {
        let filter = Filter::new(4);
        assert!(!filter.may_contain(hash(0)));
        for n in 0..50_000 {
            filter.insert(hash(n));
            filter.insert(hash(n));
        }
        assert!((0..50_000).all(|n| filter.may_contain(hash(n))));
        let false_hits = (50_000..100_000)
            .filter(|n| filter.may_contain(hash(*n)))
            .count();
        assert!(false_hits < 50, "{false_hits} of 50,000");
    }

    #[test]
    fn a_hash_whose_tag_would_be_zero_is_found() {
        let filter = Filter::new(1);
        filter.insert(7);
        assert!(filter.may_contain(7));
    }

    #[test]
    fn a_full_filter_says_maybe() {
        let filter = Filter::new(1);
        // All in the first bucket of every segment, each with a tag of its own.
        let same_bucket = |n: u64| (n + 1) << 32;
        let places = (BUCKET_TAGS * SEGMENTS_MAX) as u64;
        for n in 0..places {
            assert!(!filter.may_contain(same_bucket(n)));
            filter.insert(same_bucket(n));
        }
        filter.insert(same_bucket(places));
        assert!((0..places + 9).all(|n| filter.may_contain(same_bucket(n))));
    }

    #[test]
    fn the_first_segment_follows_the_stock() {
        assert_eq!(Filter::buckets_for(0), 4);
        assert_eq!(Filter::buckets_for(1_000), 128);
        assert_eq!(Filter::buckets_for(1_000_000), 1 << 17);
        assert_eq!(Filter::buckets_for(u64::MAX), 1 << 17);
    }
}
