//! What the front is told at start: addresses, bounds and keys. Parsed and checked by the binary.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use flash_admission::Rate;
use flash_types::bounds;
use sha2::{Digest, Sha256};

/// Addresses and bounds.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// Where buyers and the storefront come in; port 0 takes a free one.
    pub public: SocketAddr,
    /// Where the admin API, metrics and health are.
    pub admin: SocketAddr,
    /// Threads of the public port, each with a listener and a runtime of its own; 0 counts as 1.
    pub threads: usize,
    /// Most public connections; more are told 503 and closed.
    pub connections_max: usize,
    /// Most connections of the admin port.
    pub admin_connections_max: usize,
    /// How long a connection may wait for a head, also between two requests, before it is closed.
    pub header_read_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a peer may leave what we sent unread.
    pub write_timeout: Duration,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins that browsers may call from; `*` for all.
    pub cors_origins: Vec<String>,
    /// Lower ends of what is told of available units, ascending; empty for exact figures.
    pub stock_buckets: Vec<u32>,
    /// Most event streams at a time.
    pub sse_streams_max: usize,
    /// Silence after which a stream is pinged.
    pub sse_ping: Duration,
    /// How long a stop waits for requests in flight.
    pub drain_deadline: Duration,
    /// Most verified tokens that are remembered; a token takes some 400 bytes.
    pub token_cache_max: usize,
    /// What one address may ask of side services; storefront keys have their own rate.
    pub side_address_rate: Rate,
    /// Addresses whose rates are remembered for it.
    pub side_addresses_max: usize,
    /// Demo login and demo page exist.
    pub is_demo: bool,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            public: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            threads: 1,
            connections_max: bounds::CONNECTIONS_MAX,
            admin_connections_max: 1_000,
            header_read_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            stock_buckets: Vec::new(),
            sse_streams_max: 5_000,
            sse_ping: Duration::from_secs(15),
            drain_deadline: Duration::from_secs(10),
            token_cache_max: 131_072,
            side_address_rate: Rate::per_second(50, 200),
            side_addresses_max: 65_536,
            is_demo: false,
        }
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNet {
    address: IpAddr,
    bits: u8,
}

/// A text that names no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an address or a network such as 10.0.0.0/8")]
pub struct BadNet;

impl FromStr for IpNet {
    type Err = BadNet;

    fn from_str(text: &str) -> Result<Self, BadNet> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| BadNet)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNet)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(BadNet);
        }
        Ok(Self { address, bits })
    }
}

impl IpNet {
    /// Whether an address lies in it; a mapped IPv4 address counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                net.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                net.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The SHA-256 of a key: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Of the key as it is sent.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// A key of the storefront's servers.
#[derive(Debug, Clone)]
pub struct NamedKey {
    /// For people.
    pub name: String,
    /// What is kept of it.
    pub sha256: KeyHash,
    /// Its own rate, in place of the address limit.
    pub rate: Rate,
}

impl NamedKey {
    /// A key with the usual rate: 100,000 a second, twice as many at once.
    pub fn new(name: impl Into<String>, secret: &str) -> Self {
        Self {
            name: name.into(),
            sha256: KeyHash::of(secret.as_bytes()),
            rate: Rate::per_second(100_000, 200_000),
        }
    }
}

/// What an admin key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Runs sales; reads.
    Merchant,
    /// Judges claims.
    Reviewer,
    /// Runs the machine; reads.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Merchant, Self::Reviewer, Self::Operator];

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "viewer" => Some(Self::Viewer),
            "merchant" => Some(Self::Merchant),
            "reviewer" => Some(Self::Reviewer),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }

    /// Whether who holds `self` may do what needs `needed`.
    pub(crate) fn covers(self, needed: Self) -> bool {
        self == needed
            || (needed == Self::Viewer && matches!(self, Self::Merchant | Self::Operator))
    }
}

/// A key of the admin API.
#[derive(Debug, Clone)]
pub struct AdminKey {
    /// The *who* of the audit log.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// What is kept of it.
    pub sha256: KeyHash,
}

impl AdminKey {
    /// A key with every role.
    pub fn with_every_role(name: impl Into<String>, secret: &str) -> Self {
        Self {
            name: name.into(),
            roles: Role::ALL.to_vec(),
            sha256: KeyHash::of(secret.as_bytes()),
        }
    }
}

/// What a buyer's token is checked with; the algorithm is pinned here, whatever the token says.
#[derive(Clone)]
pub enum JwtMaterial {
    /// HMAC-SHA-256 with these bytes.
    Hs256(Vec<u8>),
    /// RSA PKCS#1 v1.5 with SHA-256: a public key as PEM.
    Rs256Pem(String),
    /// Ed25519: a public key as PEM.
    EdDsaPem(String),
}

impl std::fmt::Debug for JwtMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hs256(_) => "Hs256(..)",
            Self::Rs256Pem(_) => "Rs256Pem(..)",
            Self::EdDsaPem(_) => "EdDsaPem(..)",
        })
    }
}

/// A key for buyers' tokens.
#[derive(Debug, Clone)]
pub struct JwtKey {
    /// The tokens that name this id are checked with it; without one, those that name none or an unknown one.
    pub kid: Option<String>,
    /// The algorithm and its key.
    pub material: JwtMaterial,
}

/// All keys.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Of the storefront's servers.
    pub storefront: Vec<NamedKey>,
    /// Of the admin API.
    pub admin: Vec<AdminKey>,
    /// For buyers' tokens.
    pub jwt: Vec<JwtKey>,
    /// What `aud` must hold, where given.
    pub audience: Option<String>,
    /// What `iss` must be, where given.
    pub issuer: Option<String>,
    /// Seed of the keyed hash over tokens: from the machine's randomness.
    pub hash_seed: (u64, u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (net, address, is_in) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("::/0", "2001:db8:1::1", true),
        ] {
            let net: IpNet = net.parse().unwrap();
            assert_eq!(
                net.contains(address.parse().unwrap()),
                is_in,
                "{net:?} {address}"
            );
        }
        for bad in ["", "10", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "a/8"] {
            assert_eq!(bad.parse::<IpNet>(), Err(BadNet), "{bad}");
        }
    }

    #[test]
    fn roles_cover_what_the_table_says() {
        use Role::*;
        for (held, needed, is_enough) in [
            (Viewer, Viewer, true),
            (Merchant, Viewer, true),
            (Operator, Viewer, true),
            (Reviewer, Viewer, false),
            (Viewer, Merchant, false),
            (Operator, Merchant, false),
            (Reviewer, Merchant, false),
            (Merchant, Merchant, true),
            (Merchant, Operator, false),
        ] {
            assert_eq!(held.covers(needed), is_enough, "{held:?} {needed:?}");
        }
    }
}
