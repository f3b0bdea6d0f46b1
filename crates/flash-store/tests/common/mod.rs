//! What the tests of the stores share: a seeded shop that makes valid batches, and a collector of what is loaded.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

pub mod model;
pub mod random;
pub mod redis;
pub mod subject;

use std::path::Path;
use std::process::Command;

use flash_store::*;
use flash_types::*;
use smallvec::SmallVec;

/// Runs a future to its end.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// What a store hands over at start.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub sales: Vec<SaleRow>,
    pub reservations: Vec<ReservationRow>,
    pub decisions: Vec<DecisionRow>,
}

impl Loaded for Collected {
    fn sale(&mut self, sale: SaleRow) {
        self.sales.push(sale);
    }
    fn reservation(&mut self, reservation: ReservationRow) {
        assert!(
            self.sales
                .iter()
                .any(|sale| sale.sale_no == reservation.sale_no && !sale.is_retired)
        );
        assert!(
            self.reservations
                .last()
                .is_none_or(|last| last.serial < reservation.serial)
        );
        self.reservations.push(reservation);
    }
    fn decision(&mut self, decision: DecisionRow) {
        self.decisions.push(decision);
    }
}

/// What a store hands over, decisions in an order of their own.
pub fn collect(store: &AnyStore) -> Result<Collected, OpenError> {
    let mut collected = Collected::default();
    store.load(&mut collected)?;
    collected
        .decisions
        .sort_by_key(|row| format!("{:?}", (row.sale_no, &row.decision)));
    Ok(collected)
}

/// Opens and loads.
pub fn reopen(dir: &Path) -> Result<(SqliteStore, Opened, Collected), OpenError> {
    let (store, opened) = SqliteStore::open(dir)?;
    let mut collected = Collected::default();
    store.load(&mut collected)?;
    collected
        .decisions
        .sort_by_key(|row| format!("{:?}", (row.sale_no, &row.decision)));
    Ok((store, opened, collected))
}

/// Copies a data folder as a crash would leave it; by another process, since closing a database file here would drop
/// the locks of the store that has it open.
pub fn crash_copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["stampede.db", "stampede.db-wal", "acked"] {
        let done = Command::new("cp")
            .args([from.join(file), to.join(file)])
            .output()
            .unwrap();
        assert!(
            done.status.success() || file == "stampede.db-wal",
            "{done:?}"
        );
    }
}

/// A sale of some items with so many units each.
pub fn definition(name: &str, stock: &[u32]) -> SaleDefinition {
    SaleDefinition {
        sale_id: SaleId::parse(name).unwrap(),
        title: format!("Sale \"{name}\" 秒杀"),
        series: None,
        starts_at: Timestamp(1_000),
        ends_at: Timestamp(9_000),
        currency: Currency::parse("CNY").unwrap(),
        payment_window_s: 300,
        goal: None,
        price_protection_days: None,
        re_release_at: Vec::new(),
        expected_crowd: None,
        admission: AdmissionRules::default(),
        items: stock
            .iter()
            .enumerate()
            .map(|(index, stock)| ItemDefinition {
                item: ItemId::parse(&format!("sku-{index}")).unwrap(),
                title: "thing".into(),
                list_price_minor: None,
                sale_price_minor: Money(9_900),
                stock_units: *stock,
                units_per_buyer_max: Some(2),
                floor_price_minor: None,
                waves: Vec::new(),
            })
            .collect(),
    }
}

pub fn reserve(number: u64, lines: &[(u16, u32)]) -> Change {
    Change::Reserve {
        buyer: BuyerId::parse(&format!("buyer-{}", number % 7)).unwrap(),
        key: IdempotencyKey::parse(&format!("key-{number}")).unwrap(),
        lines: lines
            .iter()
            .map(|(item, units)| ReserveLine {
                item: ItemIndex(*item),
                units: *units,
                unit_price_minor: Money(9_900),
            })
            .collect(),
        created_at: Timestamp(2_000),
        expires_at: Timestamp(302_000),
    }
}

pub fn deltas(units: &[(u16, u32)]) -> Deltas {
    units
        .iter()
        .map(|(item, units)| Delta {
            item: ItemIndex(*item),
            units: *units,
        })
        .collect()
}

/// Opens a sale, nothing held back.
pub fn open() -> Change {
    Change::Open {
        held: Deltas::new(),
    }
}

pub fn payment(text: &str) -> PaymentRef {
    PaymentRef::parse(text).unwrap()
}

/// A reservation that the shop remembers.
#[derive(Debug, Clone)]
struct Known {
    serial: u64,
    sale_no: u32,
    state: ReservationState,
    lines: Vec<(u16, u32)>,
    refunded: Vec<u32>,
    is_extended: bool,
    /// Items whose price was protected.
    protected: Vec<u16>,
}

impl Known {
    fn refunded_so_far(&self) -> Deltas {
        let lines = self.lines.iter().zip(&self.refunded);
        let refunded = lines.filter(|(_, refunded)| **refunded > 0);
        refunded
            .map(|((item, _), refunded)| Delta {
                item: ItemIndex(*item),
                units: *refunded,
            })
            .collect()
    }
}

#[derive(Debug, Clone)]
struct KnownSale {
    state: SaleState,
    is_retired: bool,
    unreleased: Vec<u32>,
    available: Vec<u32>,
    definition: SaleDefinition,
    /// Waves by hand and from the plan so far.
    waves: u16,
    has_reservations: bool,
}

/// Makes valid batches from a seed.
#[derive(Debug, Clone)]
pub struct Shop {
    random: u64,
    pub next_batch: u64,
    next_serial: u64,
    references: u64,
    sales: Vec<KnownSale>,
    reservations: Vec<Known>,
}

impl Shop {
    pub fn new(seed: u64, opened: Opened) -> Self {
        Self {
            random: seed | 1,
            next_batch: opened.last_batch + 1,
            next_serial: opened.epoch * bounds::SERIALS_PER_EPOCH + 1,
            references: 0,
            sales: Vec::new(),
            reservations: Vec::new(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// A batch of changes of sale `sale_no`.
    pub fn batch_of(&mut self, sale_no: u32, changes: Vec<Change>) -> Batch {
        let changes = changes
            .into_iter()
            .map(|change| (sale_no, change))
            .collect();
        self.number(changes)
    }

    fn number(&mut self, changes: Vec<(u32, Change)>) -> Batch {
        let number = self.next_batch;
        self.next_batch += 1;
        let entries = changes
            .into_iter()
            .map(|(sale_no, change)| {
                self.next_serial += 1;
                Entry {
                    serial: Serial(self.next_serial),
                    sale_no: SaleNo(sale_no),
                    change,
                }
            })
            .collect();
        Batch {
            number,
            at: Timestamp(1_000_000 + number as i64),
            entries,
        }
    }

    /// A batch of up to `jobs` random changes.
    pub fn batch(&mut self, jobs: usize) -> Batch {
        let jobs = 1 + self.below(jobs);
        let start = self.next_serial;
        let mut changes = Vec::new();
        while changes.len() < jobs {
            // The serial that the change will get.
            let serial = start + 1 + changes.len() as u64;
            if let Some(change) = self.change(serial) {
                changes.push(change);
            }
        }
        self.number(changes)
    }

    fn reference(&mut self, what: &str) -> String {
        self.references += 1;
        format!("{what}-{}", self.references)
    }

    fn change(&mut self, serial: u64) -> Option<(u32, Change)> {
        match self.below(27) {
            0 => self.draft(),
            1 | 2 => self.sale_step(),
            3..=9 => self.reserve(serial),
            10..=16 => self.reservation_step(),
            17 | 18 => self.stock_change(),
            19 | 20 => self.wave(),
            21 => self.unpublish(),
            22 => self.price_change(),
            23 => self.attempts(),
            24 | 25 => self.extend_or_protect(),
            _ => Some((
                0,
                Change::Note(AdminNote {
                    at: Timestamp(5),
                    who: "ops \"one\"".into(),
                    command: "sale.pause".into(),
                    sale_id: SaleId::parse("s-1").ok(),
                    outcome: "ok".into(),
                    detail: self.reference("note"),
                }),
            )),
        }
    }

    fn draft(&mut self) -> Option<(u32, Change)> {
        let stock: Vec<u32> = (0..1 + self.below(3))
            .map(|_| self.below(40) as u32)
            .collect();
        let known = |index: usize| KnownSale {
            state: SaleState::Draft,
            is_retired: false,
            available: vec![0; stock.len()],
            unreleased: stock.clone(),
            definition: definition(&format!("s-{}", index + 1), &stock),
            waves: 0,
            has_reservations: false,
        };
        let drafted = self
            .sales
            .iter()
            .position(|sale| sale.state == SaleState::Draft);
        let index = match drafted {
            Some(index) if self.below(2) == 0 => {
                let waves = self.sales[index].waves;
                self.sales[index] = KnownSale {
                    waves,
                    ..known(index)
                };
                index
            }
            _ if self.sales.len() < 4 => {
                self.sales.push(known(self.sales.len()));
                self.sales.len() - 1
            }
            _ => return None,
        };
        let definition = Box::new(self.sales[index].definition.clone());
        Some((index as u32 + 1, Change::PutDraft { definition }))
    }

    fn sale_step(&mut self) -> Option<(u32, Change)> {
        if self.sales.is_empty() {
            return None;
        }
        let index = self.below(self.sales.len());
        let roll = self.below(6);
        let held_below = 1 + self.below(8) as u32;
        let sale = &mut self.sales[index];
        let change = match (sale.state, roll) {
            (SaleState::Draft, _) => Change::Publish,
            (SaleState::Published, 1..) => {
                let mut held = Deltas::new();
                for (item, unreleased) in sale.unreleased.iter_mut().enumerate() {
                    let stays = (*unreleased).min(held_below - 1);
                    sale.available[item] += std::mem::replace(unreleased, stays) - stays;
                    // More than there are: all stay.
                    if held_below > 1 {
                        held.push(Delta {
                            item: ItemIndex(item as u16),
                            units: held_below - 1,
                        });
                    }
                }
                Change::Open { held }
            }
            (SaleState::Open, 1 | 2) => Change::Pause,
            (SaleState::Open, 3) if sale.available.len() == 3 => Change::Freeze {
                reason: "\"seen\" in a test".into(),
            },
            (SaleState::Paused, 1..) => Change::Resume,
            (SaleState::Published | SaleState::Open | SaleState::Paused, 0) => Change::Close,
            (SaleState::Closed, _) if !sale.is_retired => {
                sale.is_retired = true;
                Change::Retire
            }
            _ => return None,
        };
        if let Some(state) = change.sale_state() {
            sale.state = state;
        }
        Some((index as u32 + 1, change))
    }

    fn reserve(&mut self, serial: u64) -> Option<(u32, Change)> {
        let open: Vec<usize> = (0..self.sales.len())
            .filter(|index| self.sales[*index].state == SaleState::Open)
            .collect();
        if open.is_empty() {
            return None;
        }
        let index = open[self.below(open.len())];
        let items = self.sales[index].available.len();
        let lines_wanted = 1 + self.below(items);
        let mut lines = Vec::new();
        for item in 0..items {
            let left = self.sales[index].available[item];
            if left > 0 && lines.len() < lines_wanted {
                let units = 1 + self.below(left.min(3) as usize) as u32;
                self.sales[index].available[item] -= units;
                lines.push((item as u16, units));
            }
        }
        if lines.is_empty() {
            return None;
        }
        let change = reserve(serial, &lines);
        self.sales[index].has_reservations = true;
        self.reservations.push(Known {
            is_extended: false,
            protected: Vec::new(),
            serial,
            sale_no: index as u32 + 1,
            state: ReservationState::Reserved,
            refunded: vec![0; lines.len()],
            lines,
        });
        Some((index as u32 + 1, change))
    }

    fn reservation_step(&mut self) -> Option<(u32, Change)> {
        if self.reservations.is_empty() {
            return None;
        }
        let place = self.below(self.reservations.len());
        let roll = self.below(4);
        let payment_ref = payment(&self.reference("pay"));
        let refund_ref = RefundRef::parse(&self.reference("refund")).ok();
        let restock = self.below(2) == 0;
        let is_pooled = self.below(3) == 0;
        let known = &mut self.reservations[place];
        let sale = &mut self.sales[known.sale_no as usize - 1];
        let (available, unreleased) = (&mut sale.available, &mut sale.unreleased);
        let reservation = Serial(known.serial);
        let units = deltas(&known.lines);
        let give_back = |to: &mut Vec<u32>| {
            for delta in &units {
                to[usize::from(delta.item.0)] += delta.units;
            }
        };
        let refunded = known.refunded_so_far();
        let change = match (known.state, roll) {
            (ReservationState::Reserved, 0 | 1) => Change::Confirm {
                reservation,
                payment_ref,
                is_late: false,
                units,
            },
            (ReservationState::Reserved, 2) => {
                give_back(if is_pooled { unreleased } else { available });
                Change::Release {
                    reservation,
                    units,
                    is_pooled,
                }
            }
            (ReservationState::Reserved, _) => {
                give_back(if is_pooled { unreleased } else { available });
                Change::Expire {
                    reservation,
                    units,
                    is_pooled,
                }
            }
            (ReservationState::Expired, 0..=2) => {
                let has_units = units
                    .iter()
                    .all(|delta| available[usize::from(delta.item.0)] >= delta.units);
                if has_units {
                    for delta in &units {
                        available[usize::from(delta.item.0)] -= delta.units;
                    }
                    Change::Confirm {
                        reservation,
                        payment_ref,
                        is_late: true,
                        units,
                    }
                } else {
                    Change::RefusePayment {
                        reservation,
                        payment_ref,
                        is_expired: true,
                        state: known.state,
                        refunded,
                    }
                }
            }
            (ReservationState::Released | ReservationState::Refunded, 0) => Change::RefusePayment {
                reservation,
                payment_ref,
                is_expired: false,
                state: known.state,
                refunded,
            },
            (ReservationState::Confirmed, 0) => {
                let left: SmallVec<[Delta; 1]> = deltas(&known.lines)
                    .into_iter()
                    .zip(&known.refunded)
                    .map(|(delta, refunded)| Delta {
                        units: delta.units - refunded,
                        ..delta
                    })
                    .filter(|delta| delta.units > 0)
                    .collect();
                for (line, refunded) in known.lines.iter().zip(&mut known.refunded) {
                    if restock {
                        available[usize::from(line.0)] += line.1 - *refunded;
                    }
                    *refunded = line.1;
                }
                Change::Refund {
                    reservation,
                    refund_ref: refund_ref.filter(|_| known.serial.is_multiple_of(2)),
                    restock,
                    units: left,
                    is_whole: true,
                    refunded: known.refunded_so_far(),
                }
            }
            (ReservationState::Confirmed, 1) => {
                let sum: u32 = known.lines.iter().map(|line| line.1).sum();
                let refunded: u32 = known.refunded.iter().sum();
                let line = known.lines.len() - 1;
                if sum - refunded < 2 || known.refunded[line] == known.lines[line].1 {
                    return None;
                }
                known.refunded[line] += 1;
                let item = known.lines[line].0;
                if restock {
                    available[usize::from(item)] += 1;
                }
                Change::Refund {
                    reservation,
                    refund_ref,
                    restock,
                    units: deltas(&[(item, 1)]),
                    is_whole: false,
                    refunded: known.refunded_so_far(),
                }
            }
            _ => return None,
        };
        if let Some(state) = change.reservation_state() {
            known.state = state;
        }
        Some((known.sale_no, change))
    }

    fn wave(&mut self) -> Option<(u32, Change)> {
        if self.sales.is_empty() {
            return None;
        }
        let index = self.below(self.sales.len());
        let item = self.below(self.sales[index].available.len());
        let roll = self.below(4);
        let key = IdempotencyKey::parse(&self.reference("wave")).unwrap();
        let sale = &mut self.sales[index];
        if !matches!(sale.state, SaleState::Open | SaleState::Paused) {
            return None;
        }
        sale.waves += 1;
        let wave = match roll {
            0 => WaveRef::Planned(sale.waves),
            1 => WaveRef::Pool(sale.waves),
            2 => WaveRef::Hand(Some(key)),
            _ => WaveRef::Hand(None),
        };
        let units = sale.unreleased[item].div_ceil(2);
        sale.unreleased[item] -= units;
        sale.available[item] += units;
        let change = Change::Wave {
            item: ItemIndex(item as u16),
            wave,
            due_at: Timestamp(1),
            units,
        };
        Some((index as u32 + 1, change))
    }

    fn unpublish(&mut self) -> Option<(u32, Change)> {
        use SaleState::{Open, Paused, Published};
        let is_fit = |sale: &KnownSale| {
            !sale.has_reservations && matches!(sale.state, Published | Open | Paused)
        };
        let index = self.sales.iter().position(is_fit)?;
        let sale = &mut self.sales[index];
        sale.state = SaleState::Draft;
        for (available, unreleased) in sale.available.iter_mut().zip(&mut sale.unreleased) {
            *unreleased += std::mem::take(available);
        }
        Some((index as u32 + 1, Change::Unpublish))
    }

    fn price_change(&mut self) -> Option<(u32, Change)> {
        let to = Money(self.below(10_000) as i64);
        let is_paused = |sale: &KnownSale| sale.state == SaleState::Paused;
        let index = self.sales.iter().position(is_paused)?;
        let definition = &mut self.sales[index].definition;
        let from = std::mem::replace(&mut definition.items[0].sale_price_minor, to);
        let change = Change::ChangePrice {
            item: ItemIndex(0),
            from,
            to,
            reason: "a \"slip\"".into(),
            definition: Box::new(definition.clone()),
        };
        Some((index as u32 + 1, change))
    }

    fn attempts(&mut self) -> Option<(u32, Change)> {
        if self.sales.is_empty() {
            return None;
        }
        let index = self.below(self.sales.len());
        let attempts = 1 + self.below(1_000) as u64;
        let count = |item, outcome: &str| AttemptCount {
            item,
            outcome: outcome.into(),
            attempts,
        };
        let change = Change::CountAttempts {
            from: Timestamp(10_000 * attempts as i64),
            counts: vec![
                count(Some(ItemIndex(0)), "sold_out"),
                count(None, "not_found"),
            ],
        };
        Some((index as u32 + 1, change))
    }

    fn extend_or_protect(&mut self) -> Option<(u32, Change)> {
        if self.reservations.is_empty() {
            return None;
        }
        let place = self.below(self.reservations.len());
        let known = &mut self.reservations[place];
        let reservation = Serial(known.serial);
        let (item, units) = known.lines[0];
        let left = units - known.refunded[0];
        let change = match known.state {
            ReservationState::Reserved if !known.is_extended => {
                known.is_extended = true;
                Change::Extend {
                    reservation,
                    expires_at: Timestamp(400_000 + known.serial as i64 % 100),
                }
            }
            ReservationState::Confirmed if left > 0 && known.protected.is_empty() => {
                known.protected.push(item);
                Change::ProtectPrice {
                    reservation,
                    item: ItemIndex(item),
                    units: left,
                    paid_minor: Money(9_900),
                    price_minor: Money(9_000),
                    other: SaleId::parse("s-9").unwrap(),
                    state: known.state,
                    refunded: known.refunded_so_far(),
                }
            }
            ReservationState::Unknown
            | ReservationState::Reserved
            | ReservationState::Confirmed
            | ReservationState::Released
            | ReservationState::Expired
            | ReservationState::Refunded => return None,
        };
        Some((known.sale_no, change))
    }

    fn stock_change(&mut self) -> Option<(u32, Change)> {
        if self.sales.is_empty() {
            return None;
        }
        let index = self.below(self.sales.len());
        let item = self.below(self.sales[index].available.len());
        let asked = self.below(20) as i64 - 10;
        let available = &mut self.sales[index].available[item];
        let applied = asked.max(-i64::from(*available));
        *available = available.checked_add_signed(applied as i32).unwrap();
        let change = Change::ChangeStock {
            item: ItemIndex(item as u16),
            key: IdempotencyKey::parse(&self.reference("stock")).unwrap(),
            asked_delta_units: asked,
            applied_delta_units: applied,
            reason: "back \"in\" stock\n".into(),
        };
        Some((index as u32 + 1, change))
    }
}
