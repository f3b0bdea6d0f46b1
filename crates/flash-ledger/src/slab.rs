//! Append-only storage in chunks: grows without copying what is there, and without doubling the memory.

/// Values by place. The first chunk grows by doubling, so that a small sale stays small.
pub(crate) struct Slab<T, const CHUNK: usize> {
    chunks: Vec<Vec<T>>,
}

impl<T, const CHUNK: usize> Slab<T, CHUNK> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK + last.len(),
            None => 0,
        }
    }

    /// Appends; gives the place.
    ///
    /// # Panics
    /// At 2^32 values.
    pub(crate) fn push(&mut self, value: T) -> u32 {
        let place = u32::try_from(self.len()).expect("a slab holds less than 2^32 values");
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(value),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(value);
                self.chunks.push(chunk);
            }
            None => self.chunks.push(vec![value]),
        }
        place
    }

    pub(crate) fn at(&self, place: u32) -> &T {
        &self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }

    pub(crate) fn at_mut(&mut self, place: u32) -> &mut T {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.chunks.last().and_then(|chunk| chunk.last())
    }

    /// All values with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks
            .iter()
            .flatten()
            .zip(0..)
            .map(|(value, place)| (place, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_stay() {
        let mut slab: Slab<u32, 4> = Slab::new();
        assert_eq!((slab.len(), slab.last()), (0, None));
        for n in 0..11 {
            assert_eq!(slab.push(n * 10), n);
        }
        *slab.at_mut(5) += 1;
        assert_eq!(slab.len(), 11);
        assert_eq!(
            (*slab.at(5), *slab.at(10), slab.last()),
            (51, 100, Some(&100))
        );
        assert_eq!(
            slab.iter().map(|(place, _)| place).collect::<Vec<_>>(),
            (0..11).collect::<Vec<_>>()
        );
        assert_eq!(slab.iter_mut().count(), 11);
    }
}
