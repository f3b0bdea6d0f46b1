//! Checking a proof file from nothing but itself, by code of its own: HMAC, sampling and roots are written a second time in
//! [`recompute`], so that one mistake does not vouch for itself.

pub mod recompute;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::file::{FORMAT, ProofFile};
use recompute::{bytes_of, sha256_hex};

/// What a file proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Draws that were recomputed.
    pub draws: usize,
    /// Winners that follow from them.
    pub winners: usize,
}

/// Something that does not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where: `draws final/3`, `root participants`.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl Mismatch {
    /// At a place.
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// The rule by which a kind concludes from draws.
pub trait VerifyKind {
    /// Of which kind.
    fn kind(&self) -> &'static str;

    /// Everything in the file that does not follow from rules, tickets and values; their hashes, roots and values were
    /// checked before.
    fn verify(&self, file: &ProofFile) -> Vec<Mismatch>;
}

/// Recomputes everything: commitment, hashes of the rules, roots, values and bounds of draws, their sequences, and by the
/// rule of its kind the winners.
///
/// # Errors
/// Everything that does not follow, in the order of the file.
pub fn verify(file: &Value, kinds: &[&dyn VerifyKind]) -> Result<Verified, Vec<Mismatch>> {
    let file = match serde_json::from_value::<ProofFile>(file.clone()) {
        Ok(file) if file.format == FORMAT => file,
        Ok(file) => {
            let what = format!("is {:?}; this program reads {FORMAT}", file.format);
            return Err(vec![Mismatch::new("format", what)]);
        }
        Err(error) => return Err(vec![Mismatch::new("format", error.to_string())]),
    };
    let Some(seed) = file.seed.as_deref().and_then(bytes_of) else {
        let what = "is not revealed, or not 64 hexadecimal digits";
        return Err(vec![Mismatch::new("seed", what)]);
    };
    let mut found = Vec::new();
    if sha256_hex(&seed) != file.commitment {
        found.push(Mismatch::new(
            "seed",
            "is not the one that was committed to before the start",
        ));
    }
    if file.next_cursor.is_some() {
        found.push(Mismatch::new("next_cursor", "pages are missing"));
    }
    check_versions(&file, &mut found);
    check_roots(&file, &seed, &mut found);
    check_draws(&file, &seed, &mut found);
    check_ranks(&file, &mut found);
    match kinds.iter().find(|kind| kind.kind() == file.kind) {
        Some(kind) => found.extend(kind.verify(&file)),
        None => found.push(Mismatch::new(
            "kind",
            format!("{:?} is none that this program knows", file.kind),
        )),
    }
    if found.is_empty() {
        Ok(Verified {
            draws: file.draws.len(),
            winners: file.winners.len(),
        })
    } else {
        Err(found)
    }
}

fn check_versions(file: &ProofFile, found: &mut Vec<Mismatch>) {
    if file.versions.is_empty() {
        found.push(Mismatch::new("versions", "there is none"));
    }
    for (expected, version) in (1..).zip(&file.versions) {
        let place = format!("version {}", version.version);
        if version.version != expected {
            found.push(Mismatch::new(
                &place,
                format!("{expected} is missing before it"),
            ));
        }
        let canonical = crate::canonical::text(&version.definition);
        if sha256_hex(canonical.as_bytes()) != version.hash {
            found.push(Mismatch::new(&place, "its rules do not give its hash"));
        }
        if version.definition["campaign_id"] != file.campaign.as_str() {
            found.push(Mismatch::new(&place, "is of another campaign"));
        }
        if version.definition["kind"] != file.kind.as_str() {
            found.push(Mismatch::new(&place, "is of another kind"));
        }
    }
}

fn check_roots(file: &ProofFile, seed: &[u8; 32], found: &mut Vec<Mismatch>) {
    let mut lists: BTreeMap<&str, Vec<(i64, &str)>> = BTreeMap::new();
    for ticket in &file.tickets {
        let list = lists.entry(&ticket.list).or_default();
        if usize::try_from(ticket.position) != Ok(list.len()) {
            let place = format!("ticket {}/{}", ticket.list, ticket.position);
            found.push(Mismatch::new(place, "is not in its place"));
        }
        list.push((ticket.at_ms, &ticket.ticket));
    }
    for root in &file.roots {
        let tickets = lists.remove(root.list.as_str()).unwrap_or_default();
        if recompute::root(seed, &file.campaign, &root.list, &tickets) != root.root {
            let place = format!("root {}", root.list);
            found.push(Mismatch::new(place, "does not follow from the tickets"));
        }
    }
    let is_among = |root: &String| file.roots.iter().any(|published| published.root == *root);
    if file.root.as_ref().is_some_and(|root| !is_among(root)) {
        let what = "what was committed to at publish is the root of no list";
        found.push(Mismatch::new("root", what));
    }
    for list in lists.keys() {
        let place = format!("root {list}");
        found.push(Mismatch::new(place, "was never published"));
    }
}

fn check_draws(file: &ProofFile, seed: &[u8; 32], found: &mut Vec<Mismatch>) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for draw in &file.draws {
        let place = format!("draw {}/{}", draw.stream, draw.sequence);
        let last = last.entry(&draw.stream).or_insert(0);
        if draw.sequence != last.saturating_add(1) {
            let what = format!("comes after {last}: draws are missing or changed places");
            found.push(Mismatch::new(&place, what));
        }
        *last = draw.sequence;
        if draw.low > draw.high || !(draw.low..=draw.high).contains(&draw.value) {
            found.push(Mismatch::new(&place, "its value is outside of its bounds"));
            continue;
        }
        let point = (draw.stream.as_str(), draw.sequence.cast_unsigned());
        let value = recompute::integer(seed, &file.campaign, point, draw.low, draw.high);
        if value != draw.value {
            let what = format!("its value is {} and should be {value}", draw.value);
            found.push(Mismatch::new(&place, what));
        }
    }
}

/// What holds for winners of all kinds: ranks without gaps, and proofs that are there.
fn check_ranks(file: &ProofFile, found: &mut Vec<Mismatch>) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for winner in &file.winners {
        let place = format!("winner {}/{}", winner.list, winner.rank);
        let last = last.entry(&winner.list).or_insert(0);
        if winner.rank != last.saturating_add(1) {
            found.push(Mismatch::new(&place, format!("comes after rank {last}")));
        }
        *last = winner.rank;
        if let Some(stream) = &winner.stream {
            let is_there = file
                .draws
                .iter()
                .any(|draw| draw.stream == *stream && Some(draw.sequence) == winner.sequence);
            if !is_there {
                found.push(Mismatch::new(&place, "the draw that proves it is missing"));
            }
        }
    }
}
