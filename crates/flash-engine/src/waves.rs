//! Releases of further units: which there are, which have happened, when the next is due, how many units it brings.
//!
//! A release happens once, under its name. Planned waves are those of the plan; at each announced time everything that
//! came back unpaid is released together (the pool); merchants release by hand. Only the committer changes what is here.

use std::collections::HashMap;

use flash_store::WaveRef;
use flash_types::{ItemIndex, SaleDefinition, Timestamp, bounds};

/// What has been released, by item and name: the units of each.
#[derive(Debug, Default, Clone)]
pub(crate) struct Waves {
    done: HashMap<(ItemIndex, WaveRef), u32>,
    /// Those that brought units while this process ran, in order.
    log: Vec<(ItemIndex, u32)>,
    /// When the next planned or pooled release is due.
    next_at: Option<Timestamp>,
    /// It has to be found anew.
    is_stale: bool,
}

/// One that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueWave {
    pub(crate) item: ItemIndex,
    pub(crate) wave: WaveRef,
    pub(crate) at: Timestamp,
}

/// The item under which a time of the pool is marked as done, even where nothing of it came back.
const POOL_MARK: ItemIndex = ItemIndex(0);

/// Planned releases that one look gives: a batch has to stay small, also when a long stop made very many due.
const PLANNED_DUE_MAX: usize = bounds::BATCH_JOBS_MAX;

impl Waves {
    pub(crate) fn new() -> Self {
        Self {
            is_stale: true,
            ..Self::default()
        }
    }

    /// A release happened just now.
    pub(crate) fn add(&mut self, item: ItemIndex, wave: WaveRef, units: u32) {
        if units > 0 {
            self.log.push((item, units));
        }
        self.load(item, wave, units);
    }

    /// Those that happened while this process ran, but for the first `seen`: item, units.
    pub(crate) fn logged_after(&self, seen: usize) -> &[(ItemIndex, u32)] {
        self.log.get(seen..).unwrap_or_default()
    }

    /// A release happened before this process started.
    pub(crate) fn load(&mut self, item: ItemIndex, wave: WaveRef, units: u32) {
        self.done.insert((item, wave), units);
        self.is_stale = true;
    }

    /// Anything was released after the opening.
    pub(crate) fn has_any(&self) -> bool {
        !self.done.is_empty()
    }

    /// Units of a release that happened.
    pub(crate) fn units(&self, item: ItemIndex, wave: WaveRef) -> Option<u32> {
        self.done.get(&(item, wave)).copied()
    }

    /// Units of an item that planned waves still hold back.
    pub(crate) fn held(&self, plan: &SaleDefinition, item: ItemIndex) -> u32 {
        let waves = plan.later_waves(item);
        let open = waves.filter(|(place, _)| {
            let wave = WaveRef::Planned(*place);
            self.units(item, wave).is_none()
        });
        // A plan's waves sum to its stock at most.
        open.map(|(_, wave)| wave.units).sum()
    }

    /// Units that come back unpaid wait for an announced time.
    pub(crate) fn is_pooling(&self, plan: &SaleDefinition) -> bool {
        (0u16..)
            .zip(&plan.re_release_at)
            .any(|(place, _)| self.units(POOL_MARK, WaveRef::Pool(place)).is_none())
    }

    /// What is due; empty for most looks. Of very many planned releases the first: the others are due at the next look,
    /// and the pool after all of them.
    pub(crate) fn due(&mut self, plan: &SaleDefinition, now: Timestamp) -> Vec<DueWave> {
        if self.is_stale {
            self.next_at = self.open(plan).map(|due| due.at).min();
            self.is_stale = false;
        }
        if self.next_at.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let due = self.open(plan).filter(|due| due.at <= now);
        let is_pool = |due: &DueWave| matches!(due.wave, WaveRef::Pool(_));
        let (pools, mut due): (Vec<_>, Vec<_>) = due.partition(is_pool);
        if due.len() > PLANNED_DUE_MAX {
            due.truncate(PLANNED_DUE_MAX);
            return due;
        }
        // The first of several times takes all there is; of the others the mark alone is left to be written.
        let first = pools.iter().map(|due| due.at).min();
        let is_needed = |due: &DueWave| due.item == POOL_MARK || Some(due.at) == first;
        due.extend(pools.into_iter().filter(is_needed));
        due
    }

    /// The next release of an item that the plan announces after `now`: when, and how many units where that is known.
    pub(crate) fn next(
        &self,
        plan: &SaleDefinition,
        item: ItemIndex,
        now: Timestamp,
        unreleased_units: u32,
    ) -> Option<(Timestamp, Option<u32>)> {
        // What was released by hand before its time is not released again.
        let planned = plan
            .later_waves(item)
            .map(|(_, wave)| (wave.at, Some(wave.units.min(unreleased_units))))
            .filter(|(_, units)| *units != Some(0));
        let pooled = plan.re_release_at.iter().map(|at| (*at, None));
        let coming = planned.chain(pooled).filter(|(at, _)| *at > now);
        coming.min_by_key(|(at, _)| *at)
    }

    /// Everything that has not happened.
    fn open<'a>(&'a self, plan: &'a SaleDefinition) -> impl Iterator<Item = DueWave> + 'a {
        let items = (0u16..).take(plan.items.len()).map(ItemIndex);
        items.flat_map(move |item| {
            let planned = plan.later_waves(item).map(move |(place, wave)| DueWave {
                item,
                wave: WaveRef::Planned(place),
                at: wave.at,
            });
            let pools = (0u16..).zip(&plan.re_release_at);
            let pooled = pools.map(move |(place, at)| DueWave {
                item,
                wave: WaveRef::Pool(place),
                at: *at,
            });
            let all = planned.chain(pooled);
            all.filter(move |due| self.units(item, due.wave).is_none() && !self.is_passed(due))
        })
    }

    /// A time of the pool that is marked as done: an item without units of its own has no entry for it.
    fn is_passed(&self, due: &DueWave) -> bool {
        matches!(due.wave, WaveRef::Pool(_)) && self.units(POOL_MARK, due.wave).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_many_releases_come_in_several_batches_and_the_pool_comes_last() {
        let waves: Vec<_> = (1..=10)
            .map(|at| serde_json::json!({"at": Timestamp(at), "units": 1}))
            .collect();
        let items: Vec<_> = (0..bounds::ITEMS_MAX)
            .map(|item| {
                let item = format!("i{item}");
                serde_json::json!({"item": item, "title": item, "sale_price_minor": 1, "stock_units": 10, "waves": waves})
            })
            .collect();
        let plan: SaleDefinition = serde_json::from_value(serde_json::json!({
            "sale_id": "s1", "title": "Sale", "starts_at": Timestamp(0), "ends_at": Timestamp(99), "currency": "CNY",
            "items": items, "re_release_at": [Timestamp(20), Timestamp(30)]
        }))
        .unwrap();
        let mut open = Waves::new();
        let (mut planned, mut pooled) = (0, 0);
        loop {
            let due = open.due(&plan, Timestamp(50));
            if due.is_empty() {
                break;
            }
            assert!(due.len() <= 2 * bounds::BATCH_JOBS_MAX, "{}", due.len());
            for DueWave { item, wave, .. } in due {
                match wave {
                    WaveRef::Planned(_) => {
                        assert_eq!(
                            pooled, 0,
                            "the pool would be marked as done before its units are there"
                        );
                        planned += 1;
                    }
                    WaveRef::Pool(_) => pooled += 1,
                    WaveRef::Hand(_) => unreachable!("nobody released by hand"),
                }
                open.add(item, wave, 1);
            }
        }
        assert_eq!(planned, 10 * bounds::ITEMS_MAX);
        assert_eq!(pooled, bounds::ITEMS_MAX + 1);
    }
}
