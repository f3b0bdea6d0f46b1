//! Names of all records of a shard in a few large chunks: no allocation and no header per name.
//!
//! A place is counted in steps of 8 bytes. What is removed is reused by names of about the same length.

/// Names by place.
pub(crate) struct Names {
    chunks: Vec<Vec<u8>>,
    /// Removed places by length in steps; grown on the first removal.
    free: Vec<Vec<u32>>,
}

const STEP_BYTES: usize = 8;
const CHUNK_BYTES: usize = 16 * 1024;
const CHUNK_STEPS: usize = CHUNK_BYTES / STEP_BYTES;
/// Two ids side by side.
const STEPS_MAX: usize = 2 * flash_types::bounds::ID_BYTES_MAX / STEP_BYTES;

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Puts two names side by side (the second may be empty).
    ///
    /// # Panics
    /// At 32 GiB of names.
    pub(crate) fn put(&mut self, first: &[u8], second: &[u8]) -> u32 {
        let len = first.len() + second.len();
        let steps = steps_of(len);
        if let Some(place) = self.free.get_mut(steps).and_then(Vec::pop) {
            let bytes = self.bytes_mut(place, len);
            bytes[..first.len()].copy_from_slice(first);
            bytes[first.len()..].copy_from_slice(second);
            return place;
        }
        if self
            .chunks
            .last()
            .is_none_or(|chunk| chunk.len() + steps * STEP_BYTES > CHUNK_BYTES)
        {
            // The first chunk grows by doubling, so that a small sale stays small.
            let capacity = if self.chunks.is_empty() {
                0
            } else {
                CHUNK_BYTES
            };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let place = number * CHUNK_STEPS + chunk.len() / STEP_BYTES;
        let end = chunk.len() + steps * STEP_BYTES;
        chunk.extend_from_slice(first);
        chunk.extend_from_slice(second);
        chunk.resize(end, 0);
        u32::try_from(place).expect("a shard holds less than 32 GiB of names")
    }

    pub(crate) fn at(&self, place: u32, len: usize) -> &[u8] {
        let start = place as usize % CHUNK_STEPS * STEP_BYTES;
        &self.chunks[place as usize / CHUNK_STEPS][start..start + len]
    }

    pub(crate) fn remove(&mut self, place: u32, len: usize) {
        if self.free.is_empty() {
            self.free.resize_with(STEPS_MAX + 1, Vec::new);
        }
        self.free[steps_of(len)].push(place);
    }

    fn bytes_mut(&mut self, place: u32, len: usize) -> &mut [u8] {
        let start = place as usize % CHUNK_STEPS * STEP_BYTES;
        &mut self.chunks[place as usize / CHUNK_STEPS][start..start + len]
    }
}

fn steps_of(len: usize) -> usize {
    len.div_ceil(STEP_BYTES)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_removed_places_reused() {
        let mut names = Names::new();
        let texts: Vec<String> = (0..5_000)
            .map(|n| format!("{n:0w$}", w = 1 + n % 64))
            .collect();
        let places: Vec<u32> = texts
            .iter()
            .map(|text| names.put(text.as_bytes(), b"key"))
            .collect();
        for (text, place) in texts.iter().zip(&places) {
            let found = names.at(*place, text.len() + 3);
            assert_eq!(found, [text.as_bytes(), b"key"].concat());
        }
        let len = texts[77].len() + 3;
        names.remove(places[77], len);
        assert_eq!(names.put(&vec![b'x'; len], b""), places[77]);
        assert_eq!(names.at(places[77], len), vec![b'x'; len]);
        assert_eq!(names.at(places[78], texts[78].len()), texts[78].as_bytes());
    }
}
