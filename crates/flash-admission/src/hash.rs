//! Names and addresses as keyed 64-bit hashes: nobody outside can choose who shares a slot.

use std::hash::Hasher;
use std::net::IpAddr;

use flash_types::{BuyerId, SaleNo};
use siphasher::sip::SipHasher13;

/// Key of a SipHash-1-3, drawn once per process by the binary.
#[derive(Clone, Copy)]
pub struct HashKey(pub u64, pub u64);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// Hashes a buyer of a sale.
pub fn hash_buyer(key: HashKey, sale_no: SaleNo, buyer: &BuyerId) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write_u32(sale_no.0);
    hasher.write(buyer.as_bytes());
    hasher.finish()
}

/// Hashes an address at a sale: IPv4 whole, IPv6 by its /64 (one household); a mapped IPv4 address as what it is.
pub fn hash_address(key: HashKey, sale_no: SaleNo, address: IpAddr) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key.0, key.1);
    hasher.write_u32(sale_no.0);
    // A byte that no id begins with keeps addresses and buyers apart.
    match address.to_canonical() {
        IpAddr::V4(address) => {
            hasher.write_u8(4);
            hasher.write(&address.octets());
        }
        IpAddr::V6(address) => {
            hasher.write_u8(6);
            hasher.write(&address.octets()[..8]);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey(1, 2);

    fn address(text: &str) -> u64 {
        hash_address(KEY, SaleNo(1), text.parse().unwrap())
    }

    #[test]
    fn one_household_is_one_address() {
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.2"), address("192.0.2.1"));
    }

    #[test]
    fn key_and_sale_count() {
        let buyer = BuyerId::parse("u1").unwrap();
        let hash = hash_buyer(KEY, SaleNo(1), &buyer);
        assert_ne!(hash, hash_buyer(HashKey(1, 3), SaleNo(1), &buyer));
        assert_ne!(hash, hash_buyer(KEY, SaleNo(2), &buyer));
        assert_eq!(hash, hash_buyer(KEY, SaleNo(1), &buyer));
    }
}
