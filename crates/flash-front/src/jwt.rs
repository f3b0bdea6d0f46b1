//! Buyers' tokens: JSON Web Tokens (RFC 7519), the algorithm pinned by the key, never by the token.
//!
//! HS256 with one of the usual headers is recognised by its bytes and checked here; every other spelling and
//! algorithm takes the library's way. Both end in the same check of the claims.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flash_types::BuyerId;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::Sha256;

use crate::config::{JwtKey, JwtMaterial};

/// How far clocks may lie apart, seconds.
const SKEW_S: i64 = 30;
/// `{"alg":"HS256","typ":"JWT"}`, `{"typ":"JWT","alg":"HS256"}`, `{"alg":"HS256"}`.
const USUAL_HEADERS: [&[u8]; 3] = [
    b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    b"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
    b"eyJhbGciOiJIUzI1NiJ9",
];
/// A payload up to this length is decoded on the stack.
const PAYLOAD_BYTES: usize = 768;

/// A token's key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the key for buyers' tokens {} is not usable: {reason}", kid.as_deref().unwrap_or("(no kid)"))]
pub struct BadJwtKey {
    kid: Option<String>,
    reason: String,
}

/// Who a token speaks for, and until when (seconds since the Unix epoch, skew included).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// `sub`.
    pub buyer: BuyerId,
    /// `exp` plus what clocks may lie apart.
    pub until_s: i64,
}

struct Key {
    kid: Option<String>,
    check: Check,
}

enum Check {
    Hs256(Box<Hmac<Sha256>>),
    Library(Algorithm, Box<DecodingKey>),
}

/// Checks buyers' tokens.
pub struct Verifier {
    keys: Vec<Key>,
    audience: Option<String>,
    issuer: Option<String>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    /// Extensions that must be understood: none are.
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
    exp: f64,
    nbf: Option<f64>,
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
    #[serde(borrow)]
    aud: Option<Audience<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Many(#[serde(borrow)] Vec<Cow<'a, str>>),
}

impl Verifier {
    /// Reads the keys.
    ///
    /// # Errors
    /// The first key that is not one.
    pub fn new(
        keys: &[JwtKey],
        audience: Option<String>,
        issuer: Option<String>,
    ) -> Result<Self, BadJwtKey> {
        let keys = keys
            .iter()
            .map(|key| {
                Check::of(&key.material)
                    .map(|check| Key {
                        kid: key.kid.clone(),
                        check,
                    })
                    .map_err(|reason| BadJwtKey {
                        kid: key.kid.clone(),
                        reason,
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            keys,
            audience,
            issuer,
        })
    }

    /// Checks a token whole; `now_s` is seconds since the Unix epoch. `None` says nothing of why.
    pub fn verify(&self, token: &[u8], now_s: i64) -> Option<Verified> {
        let signed_len = memchr::memrchr(b'.', token)?;
        let (signed, signature) = (&token[..signed_len], &token[signed_len + 1..]);
        let header_len = memchr::memchr(b'.', signed)?;
        let (header, payload) = (&signed[..header_len], &signed[header_len + 1..]);
        let is_signed = if USUAL_HEADERS.contains(&header) {
            self.is_signed(None, Algorithm::HS256, signed, signature)
        } else {
            let header = URL_SAFE_NO_PAD.decode(header).ok()?;
            let header: Header<'_> = serde_json::from_slice(&header).ok()?;
            if header.crit.is_some() {
                return None;
            }
            let algorithm = match &*header.alg {
                "HS256" => Algorithm::HS256,
                "RS256" => Algorithm::RS256,
                "EdDSA" => Algorithm::EdDSA,
                _ => return None,
            };
            self.is_signed(header.kid.as_deref(), algorithm, signed, signature)
        };
        if !is_signed {
            return None;
        }
        let mut on_stack = [0; PAYLOAD_BYTES];
        if base64::decoded_len_estimate(payload.len()) <= PAYLOAD_BYTES {
            let length = URL_SAFE_NO_PAD.decode_slice(payload, &mut on_stack).ok()?;
            self.claims(&on_stack[..length], now_s)
        } else {
            self.claims(&URL_SAFE_NO_PAD.decode(payload).ok()?, now_s)
        }
    }

    /// Whether one of the keys that may have signed it has: those with the token's key id, else those without one.
    /// A token that names no key id is tried with every key of its algorithm.
    fn is_signed(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> bool {
        let is_known = kid.is_some() && self.keys.iter().any(|key| key.kid.as_deref() == kid);
        self.keys
            .iter()
            .filter(|key| match (kid, is_known) {
                (None, _) => true,
                (Some(_), true) => key.kid.as_deref() == kid,
                (Some(_), false) => key.kid.is_none(),
            })
            .any(|key| key.check.holds(algorithm, signed, signature))
    }

    fn claims(&self, payload: &[u8], now_s: i64) -> Option<Verified> {
        let claims: Claims<'_> = serde_json::from_slice(payload).ok()?;
        let until_s = (claims.exp.floor() as i64).saturating_add(SKEW_S);
        if until_s <= now_s {
            return None;
        }
        if claims
            .nbf
            .is_some_and(|nbf| nbf.ceil() as i64 > now_s.saturating_add(SKEW_S))
        {
            return None;
        }
        if let Some(issuer) = &self.issuer
            && claims.iss.as_deref() != Some(issuer)
        {
            return None;
        }
        if let Some(audience) = &self.audience
            && !claims.aud.is_some_and(|aud| aud.holds(audience))
        {
            return None;
        }
        Some(Verified {
            buyer: BuyerId::parse(&claims.sub).ok()?,
            until_s,
        })
    }
}

impl Check {
    fn of(material: &JwtMaterial) -> Result<Self, String> {
        let of_library = |algorithm, key: Result<DecodingKey, jsonwebtoken::errors::Error>| {
            key.map(|key| Self::Library(algorithm, Box::new(key)))
                .map_err(|error| error.to_string())
        };
        match material {
            JwtMaterial::Hs256(secret) if secret.is_empty() => Err("the secret is empty".into()),
            JwtMaterial::Hs256(secret) => Hmac::new_from_slice(secret)
                .map(|mac| Self::Hs256(Box::new(mac)))
                .map_err(|error| error.to_string()),
            JwtMaterial::Rs256Pem(pem) => {
                of_library(Algorithm::RS256, DecodingKey::from_rsa_pem(pem.as_bytes()))
            }
            JwtMaterial::EdDsaPem(pem) => {
                of_library(Algorithm::EdDSA, DecodingKey::from_ed_pem(pem.as_bytes()))
            }
        }
    }

    fn holds(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(keyed) => {
                let mut tag = [0; 33];
                if algorithm != Algorithm::HS256 {
                    return false;
                }
                let Ok(32) = URL_SAFE_NO_PAD.decode_slice(signature, &mut tag) else {
                    return false;
                };
                let mut mac = Hmac::clone(keyed);
                mac.update(signed);
                // Constant time.
                mac.verify_slice(&tag[..32]).is_ok()
            }
            Self::Library(pinned, key) => {
                *pinned == algorithm
                    && str::from_utf8(signature).is_ok_and(|signature| {
                        jsonwebtoken::crypto::verify(signature, signed, key, algorithm)
                            .unwrap_or(false)
                    })
            }
        }
    }
}

impl Audience<'_> {
    fn holds(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// Makes an HS256 token: for the demo's login.
pub fn sign_hs256(secret: &[u8], buyer: &BuyerId, exp_s: i64) -> String {
    let payload = format!("{{\"sub\":\"{buyer}\",\"exp\":{exp_s}}}");
    let mut token = String::from_utf8_lossy(USUAL_HEADERS[0]).into_owned();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let mut mac: Hmac<Sha256> =
        Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(token.as_bytes());
    let tag = mac.finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut token);
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const SECRET: &[u8] = b"a secret of the shop";
    // Made for this test: `openssl genpkey -algorithm ed25519`.
    const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDP5D69Y069OvVNDD9Wb69+/x+qbu8d4X+tw6kDjlIfB\n-----END PRIVATE KEY-----\n";
    const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAVN8o1z6NRBR2h0r6SEFaQ4kuT82y39u/NvRJ6uZ8zYI=\n-----END PUBLIC KEY-----\n";

    fn token(header: &str, payload: &str, secret: &[u8]) -> String {
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(payload));
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret).unwrap();
        mac.update(token.as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        token + "." + &tag
    }

    fn usual(payload: &str) -> String {
        token(r#"{"alg":"HS256","typ":"JWT"}"#, payload, SECRET)
    }

    fn hs(kid: Option<&str>, secret: &[u8]) -> JwtKey {
        JwtKey {
            kid: kid.map(str::to_owned),
            material: JwtMaterial::Hs256(secret.to_vec()),
        }
    }

    fn verifier(keys: &[JwtKey]) -> Verifier {
        Verifier::new(keys, None, None).unwrap()
    }

    fn good() -> String {
        format!(r#"{{"sub":"u1","exp":{}}}"#, NOW + 60)
    }

    #[test]
    fn a_good_token_names_its_buyer() {
        let verifier = verifier(&[hs(None, SECRET)]);
        for header in [
            r#"{"alg":"HS256","typ":"JWT"}"#,
            r#"{"typ":"JWT","alg":"HS256"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{ "alg" : "HS256", "typ":"JWT", "kid":"whatever" }"#,
        ] {
            let verified = verifier.verify(token(header, &good(), SECRET).as_bytes(), NOW);
            assert_eq!(
                verified,
                Some(Verified {
                    buyer: BuyerId::parse("u1").unwrap(),
                    until_s: NOW + 60 + SKEW_S
                }),
                "{header}"
            );
        }
        let made = sign_hs256(SECRET, &BuyerId::parse("alice").unwrap(), NOW + 1);
        assert_eq!(
            verifier
                .verify(made.as_bytes(), NOW)
                .unwrap()
                .buyer
                .as_str(),
            "alice"
        );
        let long = format!(
            r#"{{"sub":"u1","exp":{}.5,"x":"{}"}}"#,
            NOW + 60,
            "y".repeat(2_000)
        );
        assert!(verifier.verify(usual(&long).as_bytes(), NOW).is_some());
    }

    #[test]
    fn bad_claims_are_refused() {
        let verifier = verifier(&[hs(None, SECRET)]);
        for payload in [
            format!(r#"{{"sub":"u1","exp":{}}}"#, NOW - SKEW_S),
            r#"{"sub":"u1"}"#.into(),
            r#"{"sub":"u1","exp":null}"#.into(),
            r#"{"sub":"u1","exp":"1900000000"}"#.into(),
            format!(r#"{{"exp":{}}}"#, NOW + 60),
            format!(r#"{{"sub":"","exp":{}}}"#, NOW + 60),
            format!(r#"{{"sub":"a b","exp":{}}}"#, NOW + 60),
            format!(r#"{{"sub":"{}","exp":{}}}"#, "x".repeat(65), NOW + 60),
            format!(r#"{{"sub":7,"exp":{}}}"#, NOW + 60),
            format!(r#"{{"sub":"u1","sub":"u2","exp":{}}}"#, NOW + 60),
            format!(
                r#"{{"sub":"u1","exp":{},"nbf":{}}}"#,
                NOW + 600,
                NOW + SKEW_S + 1
            ),
            "[]".into(),
            "".into(),
        ] {
            assert_eq!(
                verifier.verify(usual(&payload).as_bytes(), NOW),
                None,
                "{payload}"
            );
        }
        let early = format!(
            r#"{{"sub":"u1","exp":{},"nbf":{}}}"#,
            NOW + 600,
            NOW + SKEW_S
        );
        assert!(verifier.verify(usual(&early).as_bytes(), NOW).is_some());
    }

    #[test]
    fn bad_signatures_and_algorithms_are_refused() {
        let verifier = verifier(&[hs(None, SECRET)]);
        let good_token = usual(&good());
        for index in 0..good_token.len() {
            let mut flipped = good_token.clone().into_bytes();
            flipped[index] ^= 1;
            // The last character of a 32-byte tag has two bits that say nothing; they must be zero.
            assert_eq!(verifier.verify(&flipped, NOW), None, "{index}");
        }
        let none = |alg: &str| {
            let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
            format!("{header}.{}.", URL_SAFE_NO_PAD.encode(good()))
        };
        for bad in [
            none("none"),
            none("None"),
            none("HS256"),
            token(r#"{"alg":"HS512"}"#, &good(), SECRET),
            token(r#"{"alg":"RS256"}"#, &good(), SECRET),
            token(r#"{"alg":"EdDSA"}"#, &good(), SECRET),
            token(r#"{"alg":"HS256","crit":["exp"]}"#, &good(), SECRET),
            token(r#"{"typ":"JWT"}"#, &good(), SECRET),
            token(r#"{"alg":"HS256"}"#, &good(), b"another secret"),
            String::new(),
            "..".into(),
            "a.b".into(),
            format!("{good_token}."),
            format!("{good_token}=="),
            format!("x.{good_token}"),
        ] {
            assert_eq!(verifier.verify(bad.as_bytes(), NOW), None, "{bad}");
        }
    }

    #[test]
    fn key_ids_choose_the_key() {
        let verifier = verifier(&[hs(Some("new"), b"new"), hs(Some("old"), b"old")]);
        let with = |kid: &str, secret: &[u8]| {
            let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
            verifier
                .verify(token(&header, &good(), secret).as_bytes(), NOW)
                .is_some()
        };
        assert!(with("new", b"new") && with("old", b"old"));
        assert!(!with("new", b"old") && !with("gone", b"new"));
        assert!(
            verifier
                .verify(token(r#"{"alg":"HS256"}"#, &good(), b"old").as_bytes(), NOW)
                .is_some()
        );
    }

    #[test]
    fn audience_and_issuer_are_held_where_configured() {
        let verifier =
            Verifier::new(&[hs(None, SECRET)], Some("shop".into()), Some("idp".into())).unwrap();
        let with = |rest: &str| {
            let payload = format!(r#"{{"sub":"u1","exp":{}{rest}}}"#, NOW + 60);
            verifier.verify(usual(&payload).as_bytes(), NOW).is_some()
        };
        assert!(with(r#","aud":"shop","iss":"idp""#));
        assert!(with(r#","aud":["a","shop"],"iss":"idp""#));
        for bad in [
            "",
            r#","aud":"shop""#,
            r#","iss":"idp""#,
            r#","aud":"other","iss":"idp""#,
            r#","aud":[],"iss":"idp""#,
            r#","aud":"shop","iss":"else""#,
        ] {
            assert!(!with(bad), "{bad}");
        }
    }

    #[test]
    fn a_public_key_pins_its_algorithm() {
        let key = JwtKey {
            kid: None,
            material: JwtMaterial::EdDsaPem(ED_PUBLIC.into()),
        };
        let verifier = verifier(&[key]);
        let signed =
            URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#) + "." + &URL_SAFE_NO_PAD.encode(good());
        let private = jsonwebtoken::EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &private, Algorithm::EdDSA).unwrap();
        assert!(
            verifier
                .verify(format!("{signed}.{signature}").as_bytes(), NOW)
                .is_some()
        );
        // The public key as an HMAC secret: the classic swap.
        for secret in [ED_PUBLIC.as_bytes(), ED_PUBLIC.trim_end().as_bytes()] {
            let swapped = token(r#"{"alg":"HS256","typ":"JWT"}"#, &good(), secret);
            assert_eq!(verifier.verify(swapped.as_bytes(), NOW), None);
        }
        assert!(Verifier::new(&[hs(None, b"")], None, None).is_err());
        let bad = JwtKey {
            kid: None,
            material: JwtMaterial::Rs256Pem("no".into()),
        };
        assert!(Verifier::new(&[bad], None, None).is_err());
    }
}
