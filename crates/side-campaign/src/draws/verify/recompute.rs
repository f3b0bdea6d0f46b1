//! The formulas of draws, written a second time and differently: HMAC from its definition (RFC 2104), sampling in 128 bits,
//! whole lists at once. Nothing here calls what draws.

use sha2::{Digest as _, Sha256};

/// HMAC-SHA256 for keys of 32 bytes.
pub fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut inner = [0x36_u8; 64];
    let mut outer = [0x5c_u8; 64];
    for index in 0..32 {
        inner[index] ^= key[index];
        outer[index] ^= key[index];
    }
    let within = Sha256::digest([&inner[..], message].concat());
    Sha256::digest([&outer[..], &within[..]].concat()).into()
}

/// The integer in [low, high] of a draw (stream, sequence).
pub fn integer(
    seed: &[u8; 32],
    campaign: &str,
    (stream, sequence): (&str, u64),
    low: i64,
    high: i64,
) -> i64 {
    let words_in_all = 1_u128 << 64;
    let span = u128::try_from(i128::from(high) - i128::from(low) + 1).unwrap_or(1);
    let usable = words_in_all / span * span;
    let mut message = b"stampede-draw-1".to_vec();
    push_text(&mut message, campaign);
    push_text(&mut message, stream);
    message.extend(sequence.to_be_bytes());
    let prefix = message.len();
    for block in 0_u32.. {
        message.truncate(prefix);
        message.extend(block.to_be_bytes());
        let bytes = hmac(seed, &message);
        for start in [0, 8, 16, 24] {
            let mut word = 0_u128;
            for byte in &bytes[start..start + 8] {
                word = word * 256 + u128::from(*byte);
            }
            if word < usable {
                let above = i128::try_from(word % span).unwrap_or(0);
                return i64::try_from(i128::from(low) + above).unwrap_or(high);
            }
        }
    }
    // 2^34 words that were all passed over: less likely than 2^-(2^34).
    low
}

/// The root of a list of (time, ticket).
pub fn root(seed: &[u8; 32], campaign: &str, list: &str, tickets: &[(i64, &str)]) -> String {
    let mut message = b"stampede-root-1".to_vec();
    push_text(&mut message, campaign);
    push_text(&mut message, list);
    let salt = hmac(seed, &message);
    let mut hash: [u8; 32] = Sha256::digest([&b"stampede-list-1"[..], &salt].concat()).into();
    for (at_ms, ticket) in tickets {
        let mut link = hash.to_vec();
        link.extend(at_ms.to_be_bytes());
        push_text(&mut link, ticket);
        hash = Sha256::digest(link).into();
    }
    digits(&hash)
}

/// The order in which [`super::super::shuffle`] leaves `count` tickets: where each stood before.
pub fn order(seed: &[u8; 32], campaign: &str, stream: &str, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for step in 1..count {
        let last = count - step;
        let high = i64::try_from(last).unwrap_or(i64::MAX);
        let point = (stream, step as u64);
        let chosen = integer(seed, campaign, point, 0, high);
        order.swap(last, usize::try_from(chosen).unwrap_or(0));
    }
    order
}

/// SHA-256 in hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

/// 32 bytes from 64 lower-case hexadecimal digits.
pub fn bytes_of(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? * 16 + digit(pair[1])?;
    }
    Some(bytes)
}

fn push_text(message: &mut Vec<u8>, text: &str) {
    message.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend(text.as_bytes());
}

fn digits(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
