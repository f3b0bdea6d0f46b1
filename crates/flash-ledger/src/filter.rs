//! The won-key filter: which (buyer, key) may have won, told without a lock.
//!
//! Holds 16-bit tags of keyed 64-bit hashes, four to a word, in buckets of one cache line: small, so that it
//! stays in the caches while losers come by the million. A bucket fills from its front and never empties.
//! Segments of buckets are chained: a tag whose bucket is full goes to its bucket in the next segment, so an
//! empty place ends every search, and a miss mostly reads one cache line.
//!
//! Invariant: no false miss. A hit may be false (another key with the same tag, about one in 3,000; a try that
//! was undone): it only sends the caller to the look-up under the shard's lock.
//!
//! Protocol with [`crate::word::Word`]: a winner inserts its key, then takes units (a Release on the word);
//! a loser loads the word (Acquire), sees too few units, then searches here. If the loser's key had won one
//! of the units that are gone, its insert happened before that load, and the search finds it. So a miss
//! after the refusal proves that there is nothing to replay. All orderings in this file are therefore
//! Relaxed: coherence keeps a bucket's filled places filled for whoever is ordered behind by the word.

use std::sync::OnceLock; // Not modelled by loom: it only publishes empty segments.

use crate::sync::{AtomicU64, Ordering};

/// Words in one bucket: a cache line. One under loom, so that a model overflows it.
const BUCKET_WORDS: usize = if cfg!(loom) { 1 } else { 8 };
/// Tags in one word.
const WORD_TAGS: usize = 4;
/// Tags for which a bucket is planned, so that few overflow.
const BUCKET_TAGS_PLANNED: u64 = 20;
/// Keys for which the first segment is planned at most: 3.2 MB.
const FIRST_KEYS_MAX: u64 = 1_000_000;
/// Buckets of any segment at most (32 MiB).
const SEGMENT_BUCKETS_MAX: usize = 1 << 19;
/// Bounds the memory; a filter that is full answers "maybe" for ever: slower, never wrong.
const SEGMENTS_MAX: usize = 16;

/// 1 in each of a word's tags.
const ONES: u64 = 0x0001_0001_0001_0001;
/// The highest bit of each of a word's tags.
const TOPS: u64 = ONES << 15;

#[repr(align(64))]
struct Bucket([AtomicU64; BUCKET_WORDS]);

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
        (keys.min(FIRST_KEYS_MAX) / BUCKET_TAGS_PLANNED + 1) as usize
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
            for word in &bucket_of(buckets, index, hash).0 {
                let seen = word.load(Ordering::Relaxed);
                if has_tag(seen, tag) {
                    return true;
                }
                if has_tag(seen, 0) {
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
                .map(|_| Bucket(std::array::from_fn(|_| AtomicU64::new(0))))
                .collect()
        })
    }
}

/// Whether the tag is in the bucket afterwards.
fn put(bucket: &Bucket, tag: u16) -> bool {
    bucket.0.iter().any(|word| put_in_word(word, tag))
}

fn put_in_word(word: &AtomicU64, tag: u16) -> bool {
    // loom looks back at the last access only: a load here would hide another thread's load.
    let mut seen = if cfg!(loom) {
        0
    } else {
        word.load(Ordering::Relaxed)
    };
    loop {
        if has_tag(seen, tag) {
            return true;
        }
        let Some(free) = (0..WORD_TAGS).find(|place| (seen >> (16 * place)) as u16 == 0) else {
            return false;
        };
        let next = seen | u64::from(tag) << (16 * free);
        match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(other) => seen = other,
        }
    }
}

/// Whether one of the four tags of a word is `tag`: whether the difference has a tag that is 0. Exact, after
/// "Determine if a word has a zero byte" in Sean Anderson's "Bit Twiddling Hacks".
fn has_tag(word: u64, tag: u16) -> bool {
    let difference = word ^ ONES.wrapping_mul(u64::from(tag));
    difference.wrapping_sub(ONES) & !difference & TOPS != 0
}

/// The highest bits of the hash; 0 means an empty place, so it is mapped to 1.
fn tag_of(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
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
        // The first is planned for the keys, the second overflows again and again.
        for (first_buckets, false_hits_max) in [(Filter::buckets_for(50_000), 100), (1, 1_000)] {
            let filter = Filter::new(first_buckets);
            assert!(!filter.may_contain(hash(0)));
            for n in 0..50_000 {
                filter.insert(hash(n));
                filter.insert(hash(n));
            }
            assert!((0..50_000).all(|n| filter.may_contain(hash(n))));
            let others = 50_000..100_000;
            let false_hits = others.filter(|n| filter.may_contain(hash(*n))).count();
            assert!(false_hits < false_hits_max, "{false_hits} of 50,000");
        }
    }

    #[test]
    fn a_tag_is_found_in_each_place_of_a_word() {
        for (word, tags) in [
            (0x0001_ffff_8000_0000, [0x0001, 0xffff, 0x8000, 0x0000]),
            (0x7fff_0100_00ff_fffe, [0x7fff, 0x0100, 0x00ff, 0xfffe]),
        ] {
            for tag in 0..=u16::MAX {
                assert_eq!(
                    has_tag(word, tag),
                    tags.contains(&tag),
                    "{tag:#x} in {word:#x}"
                );
            }
        }
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
        let same_bucket = |n: u64| (n + 1) << 48;
        let places = (BUCKET_WORDS * WORD_TAGS * SEGMENTS_MAX) as u64;
        for n in 0..places {
            assert!(!filter.may_contain(same_bucket(n)));
            filter.insert(same_bucket(n));
        }
        filter.insert(same_bucket(places));
        assert!((0..places + 9).all(|n| filter.may_contain(same_bucket(n))));
    }

    #[test]
    fn the_first_segment_follows_the_stock() {
        assert_eq!(Filter::buckets_for(0), 1);
        assert_eq!(Filter::buckets_for(1_000), 51);
        assert_eq!(Filter::buckets_for(u64::MAX), 50_001);
    }
}
