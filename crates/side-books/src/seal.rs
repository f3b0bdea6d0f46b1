//! Sealing what must not be read from the database alone: addresses, phone numbers, seeds before their reveal.
//!
//! ChaCha20-Poly1305 (RFC 8439) with a random nonce in front; the context (table, row) is authenticated, so a sealed text
//! cannot be moved to another row.

use crate::sql::{Database, Get as _, Reads as _, SqlError, query};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::command::hex;

/// The key. All nodes of a shop need the same one.
#[derive(Clone)]
pub struct Sealer {
    key: std::sync::Arc<LessSafeKey>,
    hash_key: hmac::Key,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

/// A sealed text that does not open: another key, another context, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a sealed text does not open: it was sealed with another key, for another row, or is damaged"
)]
pub struct BadSeal;

impl Sealer {
    /// With a secret of 32 bytes.
    ///
    /// # Panics
    /// Never: 32 bytes are what the algorithm takes.
    pub fn new(secret: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, secret).expect("32 bytes are a key");
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&secret, b"stampede|keyed hash|1");
        Self {
            key: std::sync::Arc::new(LessSafeKey::new(key)),
            hash_key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
        }
    }

    /// A hash (HMAC-SHA256, hexadecimal) by which equal texts of one context are known again, but which nobody without the
    /// key can make: for what is too short to be hidden by a plain hash, such as codes and telephone numbers.
    pub fn keyed_hash(&self, context: &str, text: &str) -> String {
        hex(hmac::sign(&self.hash_key, &hashed(context, text)).as_ref())
    }

    /// Whether a hash is that of the text; takes as long whatever differs.
    pub fn is_keyed_hash(&self, context: &str, text: &str, hash: &str) -> bool {
        // What is compared is a new hash of both, so that where they differ tells nothing of either.
        let ours = self.keyed_hash(context, text);
        let tag = hmac::sign(&self.hash_key, ours.as_bytes());
        hmac::verify(&self.hash_key, hash.as_bytes(), tag.as_ref()).is_ok()
    }

    /// Seals a text for a context such as `prize|p1|address`; gives base64.
    ///
    /// # Panics
    /// If the machine has no randomness to give.
    pub fn seal(&self, context: &str, text: &str) -> String {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).expect("the machine gives random bytes");
        let mut sealed = text.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut sealed,
            )
            .expect("a text in memory is short enough");
        let mut whole = nonce.to_vec();
        whole.append(&mut sealed);
        STANDARD.encode(whole)
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`BadSeal`].
    pub fn open(&self, context: &str, sealed: &str) -> Result<String, BadSeal> {
        let mut whole = STANDARD.decode(sealed).map_err(|_| BadSeal)?;
        let (nonce, text) = whole.split_at_mut_checked(NONCE_LEN).ok_or(BadSeal)?;
        let nonce: [u8; NONCE_LEN] = (&*nonce).try_into().map_err(|_| BadSeal)?;
        let opened = self.key.open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context.as_bytes()),
            text,
        );
        let opened = opened.map_err(|_| BadSeal)?;
        String::from_utf8(opened.to_vec()).map_err(|_| BadSeal)
    }
}

/// The length in front keeps `a` + `bc` from being `ab` + `c`.
fn hashed(context: &str, text: &str) -> Vec<u8> {
    format!("{}|{context}|{text}", context.len()).into_bytes()
}

/// Whether this key is the one that the database was sealed with; a new database takes it.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// Taken or not.
pub async fn fits(database: &Database, sealer: &Sealer) -> Result<bool, SqlError> {
    let value = sealer.keyed_hash("key check", "1");
    let mut tx = database.begin().await?;
    let insert = query("INSERT INTO seal_check (id, value) VALUES (1, $1) ON CONFLICT DO NOTHING");
    tx.execute(insert.bind(value.clone())).await?;
    let row = tx
        .row(query("SELECT value FROM seal_check WHERE id = 1"))
        .await?;
    let known = row.map(|row| row.text("value")).transpose()?;
    tx.commit().await?;
    Ok(known.as_deref() == Some(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_hashes_depend_on_key_context_and_text() {
        let sealer = Sealer::new(&[7; 32]);
        let hash = sealer.keyed_hash("phone", "+8613800138000");
        assert_eq!(hash, sealer.keyed_hash("phone", "+8613800138000"));
        assert_eq!(hash.len(), 64);
        assert!(sealer.is_keyed_hash("phone", "+8613800138000", &hash));
        for (sealer, context, text) in [
            (&sealer, "phone", "+8613800138001"),
            (&sealer, "phon", "e+8613800138000"),
            (&Sealer::new(&[8; 32]), "phone", "+8613800138000"),
        ] {
            assert_ne!(hash, sealer.keyed_hash(context, text));
            assert!(!sealer.is_keyed_hash(context, text, &hash));
        }
    }

    #[test]
    fn sealed_texts_open_only_with_their_key_and_context() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal("prize|p1", "1 Main Road");
        assert!(!sealed.contains("Main"));
        assert_ne!(sealed, sealer.seal("prize|p1", "1 Main Road"));
        assert_eq!(
            sealer.open("prize|p1", &sealed).as_deref(),
            Ok("1 Main Road")
        );
        assert_eq!(sealer.open("prize|p2", &sealed), Err(BadSeal));
        assert_eq!(
            Sealer::new(&[8; 32]).open("prize|p1", &sealed),
            Err(BadSeal)
        );
        assert_eq!(sealer.open("prize|p1", "AAAA"), Err(BadSeal));
        assert_eq!(sealer.open("prize|p1", "not base64!"), Err(BadSeal));
    }
}
