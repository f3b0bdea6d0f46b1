//! Keyed hashes: nobody outside can choose ids that fall into one shard or one bucket.

use flash_types::{BuyerId, IdempotencyKey, PaymentRef, bounds::ID_BYTES_MAX};
use siphasher::sip::SipHasher13;

/// Key of SipHash-1-3; random per process. It has no `Debug`: it is a secret.
#[derive(Clone, Copy)]
pub struct HashKey(pub u64, pub u64);

/// The two hashes of one decision.
#[derive(Clone, Copy)]
pub(crate) struct PairHash {
    pub(crate) buyer: u64,
    /// Of buyer and key together.
    pub(crate) pair: u64,
}

/// Hashes names under one key.
pub(crate) struct Hashes(SipHasher13);

impl Hashes {
    pub(crate) fn new(key: HashKey) -> Self {
        Self(SipHasher13::new_with_keys(key.0, key.1))
    }

    pub(crate) fn buyer(&self, buyer: &[u8]) -> u64 {
        self.0.hash(buyer)
    }

    pub(crate) fn payment(&self, payment_ref: &PaymentRef) -> u64 {
        self.0.hash(payment_ref.as_bytes())
    }

    /// The buyer's hash stands for the buyer: equal only by accident where buyers differ, and names are compared.
    pub(crate) fn pair(&self, buyer: &BuyerId, key: &IdempotencyKey) -> PairHash {
        let buyer = self.buyer(buyer.as_bytes());
        let key = key.as_bytes();
        let mut text = [0; 8 + ID_BYTES_MAX];
        text[..8].copy_from_slice(&buyer.to_le_bytes());
        text[8..8 + key.len()].copy_from_slice(key);
        PairHash {
            buyer,
            pair: self.0.hash(&text[..8 + key.len()]),
        }
    }
}

/// 64 bits for a hash table from the 32 that are kept.
pub(crate) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// For maps keyed by places that the ledger numbered itself.
#[derive(Default)]
pub(crate) struct PlaceHasher(u64);

impl std::hash::Hasher for PlaceHasher {
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u16(&mut self, part: u16) {
        self.write_u32(u32::from(part));
    }

    fn write_u32(&mut self, part: u32) {
        self.0 = self.0.rotate_left(32) ^ u64::from(part);
    }
}

/// A map from places to what few of them have.
pub(crate) type PlaceMap<K, V> =
    std::collections::HashMap<K, V, std::hash::BuildHasherDefault<PlaceHasher>>;
