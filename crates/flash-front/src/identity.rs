//! Who is calling: the credential's kind by its looks, then its truth.

use std::net::IpAddr;
use std::time::Instant;

use flash_admission::{HashKey, Limiter};
use flash_types::{BuyerId, Timestamp};
use http::{HeaderMap, HeaderName};
use subtle::ConstantTimeEq;

use crate::config::{AdminKey, IpNet, KeyHash, Keys, NamedKey};
use crate::jwt::{BadJwtKey, Verifier};
use crate::request::{Field, Head};
use crate::token_cache::TokenCache;

/// Acts for this buyer (storefront keys).
pub(crate) const X_BUYER_ID: HeaderName = HeaderName::from_static("x-buyer-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Most forwarding steps that are looked at.
const FORWARDED_MAX: usize = 16;

/// What a request shows, not yet believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential<'a> {
    /// None, or one that cannot be any.
    None,
    /// Looks like a JSON Web Token.
    Token(&'a [u8]),
    /// Anything else after `Bearer`.
    Key(&'a [u8]),
}

impl<'a> Credential<'a> {
    /// By its looks only: a token is parts with dots between them, the first of which opens a JSON object.
    pub(crate) fn of(head: &Head<'a>) -> Self {
        let Field::Once(value) = head.authorization else {
            return Self::None;
        };
        let Some((scheme, secret)) = value.split_at_checked(7) else {
            return Self::None;
        };
        if !scheme.eq_ignore_ascii_case(b"bearer ") || secret.is_empty() {
            return Self::None;
        }
        if secret.starts_with(b"eyJ") && memchr::memchr(b'.', secret).is_some() {
            Self::Token(secret)
        } else {
            Self::Key(secret)
        }
    }
}

/// Everything that credentials are held against.
pub(crate) struct Identity {
    storefront: Vec<NamedKey>,
    admin: Vec<AdminKey>,
    verifier: Verifier,
    cache: TokenCache,
    storefront_rates: Limiter,
    started_at: Instant,
}

impl Identity {
    pub(crate) fn new(
        keys: Keys,
        token_cache_max: usize,
        started_at: Instant,
    ) -> Result<Self, BadJwtKey> {
        let hash_key = HashKey(keys.hash_seed.0, keys.hash_seed.1);
        Ok(Self {
            verifier: Verifier::new(&keys.jwt, keys.audience, keys.issuer)?,
            cache: TokenCache::new(token_cache_max, keys.hash_seed),
            storefront_rates: Limiter::new(keys.storefront.len().max(16), hash_key),
            storefront: keys.storefront,
            admin: keys.admin,
            started_at,
        })
    }

    /// The buyer that a token speaks for.
    pub(crate) fn buyer(&self, token: &[u8], wall: Timestamp) -> Option<BuyerId> {
        let now_s = wall.0 / 1_000;
        let hash = self.cache.hash(token);
        if let Some(buyer) = self.cache.find(hash, token, now_s) {
            return Some(buyer);
        }
        let verified = self.verifier.verify(token, now_s)?;
        self.cache.keep(hash, token, &verified);
        Some(verified.buyer)
    }

    /// Which storefront key it is.
    pub(crate) fn storefront(&self, secret: &[u8]) -> Option<StorefrontIndex> {
        let shown = KeyHash::of(secret);
        find(&shown, self.storefront.iter().map(|key| &key.sha256)).map(StorefrontIndex)
    }

    /// Takes one try of a storefront key's own rate.
    pub(crate) fn storefront_rate(&self, key: StorefrontIndex, now: Instant) -> Result<(), u32> {
        let now_ns = now.saturating_duration_since(self.started_at).as_nanos();
        let now_ns = u64::try_from(now_ns).unwrap_or(u64::MAX);
        // Spread over the table by a fixed odd factor: there are few keys and they are ours.
        let hash = (key.0 as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.storefront_rates
            .check(hash, self.storefront[key.0].rate, now_ns)
    }

    /// Which admin key it is.
    pub(crate) fn admin(&self, secret: &[u8]) -> Option<&AdminKey> {
        let shown = KeyHash::of(secret);
        find(&shown, self.admin.iter().map(|key| &key.sha256)).map(|index| &self.admin[index])
    }
}

/// Which of the storefront's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorefrontIndex(usize);

/// Looks at every key, whichever it is.
fn find<'a>(shown: &KeyHash, keys: impl Iterator<Item = &'a KeyHash>) -> Option<usize> {
    keys.enumerate().fold(None, |found, (index, key)| {
        if bool::from(key.0.ct_eq(&shown.0)) {
            Some(index)
        } else {
            found
        }
    })
}

/// The address that a request comes from: the peer, or, behind trusted proxies, the last one that none of them vouches for.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let mut nearest = peer;
    let steps = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.rsplit(','))
        .take(FORWARDED_MAX);
    for step in steps {
        // What cannot be read was not written by a proxy of ours: the nearest known one answers for it.
        let Ok(address) = step.trim().parse::<IpAddr>() else {
            return nearest;
        };
        nearest = address;
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn kinds_are_told_by_their_looks() {
        for (value, expected) in [
            ("Bearer eyJx.y.z", Credential::Token(b"eyJx.y.z")),
            ("bearer eyJx.y.", Credential::Token(b"eyJx.y.")),
            ("Bearer eyJx", Credential::Key(b"eyJx")),
            ("Bearer abc", Credential::Key(b"abc")),
            ("Bearer ", Credential::None),
            ("Bearer", Credential::None),
            ("Basic abc", Credential::None),
            ("", Credential::None),
        ] {
            let map = HeaderMap::from_iter([(
                header::AUTHORIZATION,
                http::HeaderValue::from_static(value),
            )]);
            assert_eq!(Credential::of(&Head::of(&map)), expected, "{value}");
        }
        let two = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]);
        assert_eq!(Credential::of(&Head::of(&two)), Credential::None);
        assert_eq!(Credential::of(&Head::default()), Credential::None);
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_peers_only() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let from = |peer: &str, forwarded: &'static str| {
            client_address(
                peer.parse().unwrap(),
                &headers(&[("x-forwarded-for", forwarded)]),
                &trusted,
            )
            .to_string()
        };
        for (peer, forwarded, expected) in [
            ("192.0.2.1", "1.1.1.1", "192.0.2.1"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "1.1.1.1, junk", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::1", "2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(from(peer, forwarded), expected, "{peer} {forwarded}");
        }
        let lines = headers(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.1.1.1"),
        ]);
        let address = client_address("10.0.0.1".parse().unwrap(), &lines, &trusted);
        assert_eq!(address.to_string(), "1.1.1.1");
    }

    #[test]
    fn keys_are_found_by_their_hash() {
        let keys = Keys {
            storefront: vec![NamedKey::new("a", "one"), NamedKey::new("b", "two")],
            admin: vec![AdminKey::with_every_role("root", "three")],
            ..Keys::default()
        };
        let identity = Identity::new(keys, 16, Instant::now()).unwrap();
        assert_eq!(identity.storefront(b"two"), Some(StorefrontIndex(1)));
        assert_eq!(identity.storefront(b"three"), None);
        assert_eq!(identity.storefront(b""), None);
        assert_eq!(identity.admin(b"three").unwrap().name, "root");
        assert!(identity.admin(b"one").is_none());
    }
}
