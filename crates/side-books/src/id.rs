//! Ids of side services: a prefix, the time, randomness. They ascend roughly with time, which keeps indexes dense.

use flash_types::Timestamp;

/// A new id, `prefix` + 32 hexadecimal digits (UUID version 7): URL-safe, unique, not guessable.
///
/// # Panics
/// If the machine has no randomness to give.
pub fn fresh(prefix: &str, now: Timestamp) -> String {
    let mut random = [0; 10];
    getrandom::fill(&mut random).expect("the machine gives random bytes");
    let ms = u64::try_from(now.0).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid();
    format!("{prefix}{}", id.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_ascend_with_time() {
        let (early, late) = (fresh("cp", Timestamp(1_000)), fresh("cp", Timestamp(2_000)));
        assert!(early < late);
        assert_ne!(fresh("cp", Timestamp(1_000)), early);
        assert_eq!(early.len(), 34);
    }
}
