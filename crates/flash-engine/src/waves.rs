//! Releases of further units: which there are, which have happened, when the next is due, how many units it brings.
//!
//! A release happens once, under its name. Planned waves are those of the plan; at each announced time everything that
//! came back unpaid is released together (the pool); merchants release by hand. Only the committer changes what is here.

use std::collections::HashMap;

use flash_store::WaveRef;
use flash_types::{ItemIndex, SaleDefinition, SaleNo, SaleState, Timestamp, bounds};

use crate::queue::Work;
use crate::sale::Sale;

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

    /// How many happened while this process ran.
    pub(crate) fn logged_count(&self) -> usize {
        self.log.len()
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

/// A release that the batch being built holds.
pub(crate) struct BuiltWave {
    pub(crate) sale_no: SaleNo,
    pub(crate) item: ItemIndex,
    pub(crate) wave: WaveRef,
    pub(crate) units: u32,
}

/// Releases of a sale that the clock asks for; their units are told when the batch is built.
pub(crate) fn due_waves(sale: &Sale, now: Timestamp) -> impl Iterator<Item = Work> + '_ {
    let is_selling = match sale.gate() {
        SaleState::Open | SaleState::Paused => true,
        SaleState::Draft | SaleState::Published | SaleState::Closed | SaleState::Frozen => false,
    };
    let is_on = is_selling && !sale.is_retired() && sale.state() != SaleState::Frozen;
    let due = if is_on {
        sale.waves().due(sale.definition(), now)
    } else {
        Vec::new()
    };
    let is_wanted = |due: &DueWave| match due.wave {
        WaveRef::Planned(_) | WaveRef::Hand(_) => true,
        WaveRef::Pool(_) => {
            let units = || units_of_wave(sale, due.item, due.wave, 0, &[]);
            due.item == POOL_MARK || units().is_some_and(|units| units > 0)
        }
    };
    let due = due.into_iter().filter(is_wanted);
    due.map(|DueWave { item, wave, at }| Work::Wave {
        item,
        wave,
        due_at: at,
        units: 0,
    })
}

/// Units that come back unpaid wait for an announced time that no release so far, the batch being built among them, has
/// brought.
pub(crate) fn is_pooling(sale: &Sale, built: &[BuiltWave]) -> bool {
    let is_selling = match sale.gate() {
        SaleState::Published | SaleState::Open | SaleState::Paused => true,
        SaleState::Draft | SaleState::Closed | SaleState::Frozen => false,
    };
    let plan = sale.definition();
    let last = plan.re_release_at.len().checked_sub(1);
    let Some(last) = last.and_then(|last| u16::try_from(last).ok()) else {
        return false;
    };
    let is_last =
        |wave: &BuiltWave| wave.sale_no == sale.sale_no() && wave.wave == WaveRef::Pool(last);
    is_selling && !built.iter().any(is_last) && sale.waves().is_pooling(plan)
}

/// How many units a release brings, after those that the batch being built holds already; `None` where it asks for more
/// than there are.
pub(crate) fn units_of_wave(
    sale: &Sale,
    item: ItemIndex,
    wave: WaveRef,
    asked: u32,
    built: &[BuiltWave],
) -> Option<u32> {
    let planned_units = |place: u16| {
        let planned = sale.definition().items.get(usize::from(item.0))?;
        let wave = planned.waves.get(usize::from(place))?;
        Some(wave.units)
    };
    let earlier = built
        .iter()
        .filter(|other| other.sale_no == sale.sale_no() && other.item == item);
    let taken: u32 = earlier.clone().map(|other| other.units).sum();
    let left = sale.ledger().unreleased_units(item).saturating_sub(taken);
    match wave {
        WaveRef::Hand(_) => (asked <= left).then_some(asked),
        WaveRef::Planned(place) => Some(planned_units(place)?.min(left)),
        WaveRef::Pool(_) => {
            // What planned waves of this batch bring is not held back any more.
            let brought: u32 = earlier
                .filter_map(|other| match other.wave {
                    WaveRef::Planned(place) => planned_units(place),
                    WaveRef::Pool(_) | WaveRef::Hand(_) => None,
                })
                .sum();
            let held = sale.waves().held(sale.definition(), item);
            Some(left.saturating_sub(held.saturating_sub(brought)))
        }
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
