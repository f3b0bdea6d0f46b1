//! The pure part: from a seed to numbers, orders and roots. The exact bytes, so that anybody can write it again:
//!
//! - `be32(x)`, `be64(x)`: unsigned, most significant byte first. `text(t)` = `be32(length in bytes) | bytes`.
//! - Commitment: `SHA-256(seed)`, the seed being 32 bytes.
//! - Words of a draw: block `b` (from 0) is `HMAC-SHA256(key = seed, "stampede-draw-1" | text(campaign) | text(stream) |
//!   be64(sequence) | be32(b))`; its 32 bytes are four words of 64 bits, most significant byte first; blocks follow one
//!   another. Lengths stand in front, so no two (campaign, stream, sequence) give the same message.
//! - Integer in [low, high]: `span = high - low + 1`; words at or above the largest multiple of `span` within 2^64 are passed
//!   over (no modulo bias); the first other one gives `low + word mod span`.
//! - Shuffle of n tickets: for `i` from n-1 down to 1, the draw of sequence n-i gives `j` in [0, i]; tickets `i` and `j` change
//!   places (Fisher-Yates).
//! - Root of a list: `salt = HMAC-SHA256(seed, "stampede-root-1" | text(campaign) | text(list))`; `h = SHA-256("stampede-list-1"
//!   | salt)`; for each ticket in order `h = SHA-256(h | be64(at_ms) | text(ticket))`. The salt keeps a list of few tickets
//!   from being guessed from its root before the seed is revealed.
//! - Participant: `SHA-256(campaign | "|" | buyer)` in hexadecimal; ids have no `|`.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use side_books::command::{hex, unhex};

use super::Seed;

/// What is published before the start: SHA-256 of the seed, hexadecimal.
pub fn commitment(seed: &Seed) -> String {
    hex(&Sha256::digest(seed.0))
}

/// A buyer in a published list: he finds himself, others do not read his id.
pub fn participant(campaign: &str, buyer: &str) -> String {
    hex(&Sha256::digest(format!("{campaign}|{buyer}").as_bytes()))
}

/// One draw: an endless row of words, the same for ever for its seed, campaign, stream and sequence.
#[derive(Debug, Clone)]
pub struct Draw<'a> {
    seed: &'a Seed,
    campaign: &'a str,
    stream: &'a str,
    sequence: u64,
    block: u32,
    words: [u64; 4],
    word_index: usize,
}

impl<'a> Draw<'a> {
    /// The draw of that sequence.
    pub fn new(seed: &'a Seed, campaign: &'a str, stream: &'a str, sequence: u64) -> Self {
        Self {
            seed,
            campaign,
            stream,
            sequence,
            block: 0,
            words: [0; 4],
            word_index: 4,
        }
    }

    /// An integer in [low, high], each as likely as the other.
    ///
    /// # Panics
    /// If `low > high`.
    pub fn integer(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high, "a draw from {low} to {high} has no outcome");
        // Zero stands for 2^64: every word is an outcome.
        let span = high.wrapping_sub(low).cast_unsigned().wrapping_add(1);
        loop {
            let word = self.word();
            if span == 0 {
                return low.wrapping_add(word.cast_signed());
            }
            // 2^64 mod span words at the top belong to a multiple that is not whole.
            let excess = (u64::MAX % span + 1) % span;
            if word <= u64::MAX - excess {
                return low.wrapping_add((word % span).cast_signed());
            }
        }
    }

    fn word(&mut self) -> u64 {
        if self.word_index == self.words.len() {
            let mut mac = keyed(self.seed);
            mac.update(b"stampede-draw-1");
            mac.update(&text(self.campaign));
            mac.update(&text(self.stream));
            mac.update(&self.sequence.to_be_bytes());
            mac.update(&self.block.to_be_bytes());
            let bytes = mac.finalize().into_bytes();
            for (word, bytes) in self.words.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = bytes
                    .iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte));
            }
            self.block += 1;
            self.word_index = 0;
        }
        self.word_index += 1;
        self.words[self.word_index - 1]
    }
}

/// Brings tickets into the order of a stream's draws, which are its own: nothing else may be drawn from it.
pub fn shuffle<T>(seed: &Seed, campaign: &str, stream: &str, tickets: &mut [T]) {
    for (sequence, last) in (1..).zip((1..tickets.len()).rev()) {
        let last_index = i64::try_from(last).unwrap_or(i64::MAX);
        let chosen = Draw::new(seed, campaign, stream, sequence).integer(0, last_index);
        tickets.swap(last, usize::try_from(chosen).unwrap_or(0));
    }
}

/// The root of an ordered list, made a ticket at a time; it may be put away between two tickets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRoot([u8; 32]);

impl ListRoot {
    /// Of an empty list.
    pub fn new(seed: &Seed, campaign: &str, list: &str) -> Self {
        let mut mac = keyed(seed);
        mac.update(b"stampede-root-1");
        mac.update(&text(campaign));
        mac.update(&text(list));
        let mut hash = Sha256::new();
        hash.update(b"stampede-list-1");
        hash.update(mac.finalize().into_bytes());
        Self(hash.finalize().into())
    }

    /// With one more ticket at its end.
    pub fn push(&mut self, at_ms: i64, ticket: &str) {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(at_ms.cast_unsigned().to_be_bytes());
        hash.update(text(ticket));
        self.0 = hash.finalize().into();
    }

    /// The root so far, hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// What was put away.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

fn keyed(seed: &Seed) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(&seed.0).expect("HMAC takes keys of any length")
}

/// With its length in front.
fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
