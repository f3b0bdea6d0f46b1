//! The signature that proves to a receiver whose delivery it is, and of which moment.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Value of `Stampede-Signature`: `t=<unix s>,v1=<hex HMAC-SHA256 of "t.body">`, one `v1` for each secret.
pub fn signature<'a>(secrets: impl Iterator<Item = &'a str>, unix_s: i64, body: &str) -> String {
    let mut value = format!("t={unix_s}");
    let signed = format!("{unix_s}.{body}");
    for secret in secrets {
        value.push_str(",v1=");
        for byte in code(secret, &signed) {
            // Writing to a String cannot fail.
            let _ = write!(value, "{byte:02x}");
        }
    }
    value
}

fn code(secret: &str, signed: &str) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    let mut mac = mac.expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hmac_that_others_compute() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let one = signature(["0123456789abcdef"].into_iter(), 1_700_000_000, "{}");
        assert_eq!(one, EXPECTED);
        let two = signature(
            ["0123456789abcdef", "fedcba9876543210"].into_iter(),
            1_700_000_000,
            "{}",
        );
        assert!(two.starts_with(&one) && two.matches(",v1=").count() == 2);
    }

    const EXPECTED: &str =
        "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
}
