//! Credentials: the keys of a data folder, and the tokens that a storefront would mint for its buyers.

use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// What `<data>/keys.toml` holds.
#[derive(Clone, Deserialize)]
pub struct Keys {
    /// Holds every role of the admin API.
    pub admin_key: String,
    /// Of the storefront's server.
    pub storefront_key: String,
    /// HS256 key of the buyers' tokens: the UTF-8 bytes of the string as written.
    pub buyer_jwt_secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Reads `keys.toml` in a data folder.
    ///
    /// # Errors
    /// If the file is not there, or lacks one of the three strings.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("keys.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Who can mint tokens for buyers.
    pub fn minter(&self) -> Minter {
        Minter::new(&self.buyer_jwt_secret)
    }
}

/// Mints HS256 tokens.
#[derive(Clone)]
pub struct Minter {
    keyed: Hmac<Sha256>,
    header: String,
}

impl Minter {
    /// For one secret.
    pub fn new(secret: &str) -> Self {
        Self {
            keyed: Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length"),
            header: URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        }
    }

    /// A token for a buyer, good until `expires_at_s` (seconds since the Unix epoch).
    pub fn mint(&self, buyer: &str, expires_at_s: u64) -> String {
        let claims = format!(r#"{{"sub":"{buyer}","exp":{expires_at_s}}}"#);
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let mut mac = self.keyed.clone();
        mac.update(token.as_bytes());
        let signature = mac.finalize().into_bytes();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

/// Seconds since the Unix epoch.
pub fn now_s() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_as_rfc_7515_says() {
        // Computed with Python's hmac and base64 from the same header, claims and secret.
        let token = Minter::new("secret").mint("u1", 4_102_444_800);
        assert_eq!(
            token,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1MSIsImV4cCI6NDEwMjQ0NDgwMH0.\
             8UAoCbnHjNaWv5XovpBDsBNjWGKcwQA5bvtK0ioWIGI"
        );
    }

    #[test]
    fn keys_are_read_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("keys.toml"),
            "admin_key = \"a\"\nstorefront_key = \"s\"\nbuyer_jwt_secret = \"geheim\"\n",
        )
        .unwrap();
        let keys = Keys::read(dir.path()).unwrap();
        assert_eq!(keys.storefront_key, "s");
        assert!(!format!("{keys:?}").contains("geheim"));
        assert!(Keys::read(&dir.path().join("nowhere")).is_err());
    }
}
