//! Tokens that were verified, remembered whole: the same token again costs a hash and a comparison.
//!
//! Fixed number of places, set-associative, one short lock per shard. A place is chosen by a keyed hash and believed
//! only if the whole token is the same. What has expired is not found.

use std::hash::Hasher;

use flash_types::BuyerId;
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::jwt::Verified;

const SHARDS: usize = 64;
const WAYS: usize = 4;
/// 144 bits of a signature in base64.
const TAIL_BYTES: usize = 24;
/// Longer tokens are verified every time.
const TOKEN_BYTES_MAX: usize = 1_024;

struct Entry {
    hash: u64,
    until_s: i64,
    buyer: BuyerId,
    token: Box<[u8]>,
}

type Set = [Option<Entry>; WAYS];

/// The places, in shards.
pub struct TokenCache {
    shards: Vec<Mutex<Box<[Set]>>>,
    seed: (u64, u64),
}

impl TokenCache {
    /// Places for about so many tokens.
    pub fn new(capacity: usize, seed: (u64, u64)) -> Self {
        let sets = capacity.div_ceil(SHARDS * WAYS).max(1);
        let shard = || Mutex::new((0..sets).map(|_| [const { None }; WAYS]).collect());
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            seed,
        }
    }

    /// The hash under which a token is kept: of its last bytes, which belong to its signature. Of what is kept, all
    /// has a true signature, so nobody can choose them to crowd one place.
    pub fn hash(&self, token: &[u8]) -> u64 {
        let tail = token.len().saturating_sub(TAIL_BYTES);
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        hasher.write(&token[tail..]);
        hasher.finish()
    }

    /// The buyer of this very token, if it was verified and has not expired.
    pub fn find(&self, hash: u64, token: &[u8], now_s: i64) -> Option<BuyerId> {
        let shard = self.shards[Self::shard(hash)].lock();
        let set = &shard[Self::set(hash, shard.len())];
        set.iter()
            .flatten()
            .find(|entry| entry.hash == hash && *entry.token == *token && entry.until_s > now_s)
            .map(|entry| entry.buyer)
    }

    /// Remembers a verified token, in place of the one that expires first.
    pub fn keep(&self, hash: u64, token: &[u8], verified: &Verified) {
        if token.len() > TOKEN_BYTES_MAX {
            return;
        }
        let entry = Entry {
            hash,
            until_s: verified.until_s,
            buyer: verified.buyer,
            token: token.into(),
        };
        let mut shard = self.shards[Self::shard(hash)].lock();
        let index = Self::set(hash, shard.len());
        let place = shard[index].iter_mut().min_by_key(|place| match place {
            Some(known) if known.hash == hash => i64::MIN,
            Some(known) => known.until_s,
            None => i64::MIN + 1,
        });
        let previous = place.and_then(|place| place.replace(entry));
        drop(shard);
        // The old token's memory is given back outside of the lock.
        drop(previous);
    }

    fn shard(hash: u64) -> usize {
        (hash % SHARDS as u64) as usize
    }

    fn set(hash: u64, sets: usize) -> usize {
        (((hash >> 32) * sets as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(buyer: &str, until_s: i64) -> Verified {
        Verified {
            buyer: BuyerId::parse(buyer).unwrap(),
            until_s,
        }
    }

    #[test]
    fn only_the_very_token_is_found_and_only_while_it_lives() {
        let cache = TokenCache::new(1_000, (1, 2));
        let hash = cache.hash(b"token");
        assert_eq!(cache.find(hash, b"token", 0), None);
        cache.keep(hash, b"token", &verified("u1", 100));
        assert_eq!(cache.find(hash, b"token", 99).unwrap().as_str(), "u1");
        assert_eq!(cache.find(hash, b"token", 100), None);
        // A collision of hashes finds nothing.
        assert_eq!(cache.find(hash, b"other", 99), None);
        let long = vec![b'x'; TOKEN_BYTES_MAX + 1];
        cache.keep(cache.hash(&long), &long, &verified("u1", 100));
        assert_eq!(cache.find(cache.hash(&long), &long, 0), None);
    }

    #[test]
    fn the_number_of_tokens_is_bounded() {
        let cache = TokenCache::new(1_000, (1, 2));
        for index in 0..100_000u32 {
            let token = index.to_le_bytes();
            cache.keep(cache.hash(&token), &token, &verified("u1", 100));
        }
        let kept: usize = cache
            .shards
            .iter()
            .map(|shard| shard.lock().iter().flatten().flatten().count())
            .sum();
        assert!(kept <= 1_024, "{kept}");
    }
}
