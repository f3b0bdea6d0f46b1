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
    /// 64 hexadecimal digits; seals what campaigns keep of buyers. Absent in files of older versions.
    #[serde(default)]
    pub(crate) campaign_key: String,
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
            campaign_key: random_hex()?,
        };
        let text = format!(
            "# Made at the first start. Whoever holds these can do everything: keep the file to yourself.\n\
             admin_key = \"{}\"\nstorefront_key = \"{}\"\nbuyer_jwt_secret = \"{}\"\n\
             {CAMPAIGN_KEY_LINE}campaign_key = \"{}\"\n",
            keys.admin_key, keys.storefront_key, keys.buyer_jwt_secret, keys.campaign_key
        );
        let path = path_in(data);
        write_private(&path, &text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok((keys, true))
    }
}

/// Stands above the key in the file.
const CAMPAIGN_KEY_LINE: &str = "# Without this one nothing that campaigns sealed (addresses, phone numbers, seeds) can be read: keep a copy.\n";

/// The secret that the campaigns seal with: from the file, into which it is written where missing.
pub(crate) fn campaign_secret(data: &Path) -> Result<[u8; 32], String> {
    let (mut keys, _) = KeysFile::read_or_make(data)?;
    let path = path_in(data);
    if keys.campaign_key.is_empty() {
        keys.campaign_key = random_hex()?;
        let add = || -> std::io::Result<()> {
            let mut text = std::fs::read_to_string(&path)?;
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(CAMPAIGN_KEY_LINE);
            text.push_str(&format!("campaign_key = \"{}\"\n", keys.campaign_key));
            write_private(&path, &text)
        };
        add().map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        tracing::info!(path = %path.display(), "campaign_key made");
    }
    secret_of_hex(&keys.campaign_key).ok_or_else(|| {
        format!(
            "{}: campaign_key is not 64 hexadecimal digits; restore it from a copy, for what it sealed opens with it alone",
            path.display()
        )
    })
}

/// 32 bytes of 64 hexadecimal digits.
pub(crate) fn secret_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .bytes()
        .map(|digit| {
            (digit as char)
                .to_digit(16)
                .and_then(|four| u8::try_from(four).ok())
        })
        .collect();
    let bytes: Vec<u8> = digits?
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |sum, four| sum << 4 | four))
        .collect();
    (text.len() == 64).then_some(())?;
    bytes.try_into().ok()
}

fn random_hex() -> Result<String, String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness to be had: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_campaigns_key_is_made_once_also_in_a_file_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let old = "admin_key = \"0123456789abcdef\"\nstorefront_key = \"123456789abcdef0\"\nbuyer_jwt_secret = \"23456789abcdef01\"";
        write_private(&path, old).unwrap();
        let made = campaign_secret(dir.path()).unwrap();
        assert_eq!(campaign_secret(dir.path()).unwrap(), made);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(old), "{text}");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = KeysFile::read(dir.path()).unwrap().unwrap();
        assert_eq!(secret_of_hex(&read.campaign_key), Some(made));

        std::fs::write(&path, format!("{old}\ncampaign_key = \"xyz\"\n")).unwrap();
        let why = campaign_secret(dir.path()).unwrap_err();
        assert!(why.contains("campaign_key is not 64"), "{why}");
    }

    #[test]
    fn hexadecimal_digits_are_bytes() {
        let mut expected = [0xab; 32];
        expected[31] = 0x0f;
        let text = format!("{}0F", "aB".repeat(31));
        assert_eq!(secret_of_hex(&text), Some(expected));
        for bad in [
            "",
            "ab",
            &"ab".repeat(33),
            &"g0".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(secret_of_hex(bad), None, "{bad}");
        }
    }
}
