//! Keys: from the configuration, else from `<data>/keys.toml`, else made there, readable by its owner alone.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// What `keys.toml` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysFile {
    /// Holds every role.
    pub(crate) admin_key: String,
    /// Of the storefront's server.
    pub(crate) storefront_key: String,
    /// The HS256 key is the UTF-8 bytes of this string as written.
    pub(crate) buyer_jwt_secret: String,
}

/// The file's place in a data folder.
pub(crate) fn path_in(data: &Path) -> PathBuf {
    data.join("keys.toml")
}

impl KeysFile {
    /// Reads the file, if there is one.
    pub(crate) fn read(data: &Path) -> Result<Option<Self>, String> {
        let path = path_in(data);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let keys: Self = toml::from_str(&text).map_err(|error| {
            format!(
                "{} is not what it should be ({}); add what is missing, or remove the file to get all keys new",
                path.display(),
                error.message()
            )
        })?;
        for (name, key) in [
            ("admin_key", &keys.admin_key),
            ("storefront_key", &keys.storefront_key),
            ("buyer_jwt_secret", &keys.buyer_jwt_secret),
        ] {
            if key.len() < 16 {
                return Err(format!(
                    "{}: {name} is shorter than 16 characters",
                    path.display()
                ));
            }
        }
        let mode = std::fs::metadata(&path).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others can read the keys: chmod 600 it");
        }
        Ok(Some(keys))
    }

    /// Reads the file, or makes it with random keys; `true` if it was made.
    pub(crate) fn read_or_make(data: &Path) -> Result<(Self, bool), String> {
        if let Some(keys) = Self::read(data)? {
            return Ok((keys, false));
        }
        let keys = Self {
            admin_key: random_key()?,
            storefront_key: random_key()?,
            buyer_jwt_secret: random_key()?,
        };
        let text = format!(
            "# Made at the first start. Whoever holds these can do everything: keep the file to yourself.\n\
             admin_key = \"{}\"\nstorefront_key = \"{}\"\nbuyer_jwt_secret = \"{}\"\n",
            keys.admin_key, keys.storefront_key, keys.buyer_jwt_secret
        );
        let path = path_in(data);
        write_private(&path, &text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok((keys, true))
    }
}

/// Writes beside and renames, so that a crash leaves no half file.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("toml.new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// 256 random bits as text.
fn random_key() -> Result<String, String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness to be had: {error}"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Two random words for the hashes of one start.
pub(crate) fn random_hash_key() -> Result<flash_engine::HashKey, String> {
    let word = || getrandom::u64().map_err(|error| format!("no randomness to be had: {error}"));
    Ok(flash_engine::HashKey(word()?, word()?))
}
