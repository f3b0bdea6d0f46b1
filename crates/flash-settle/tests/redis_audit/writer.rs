//! Who writes to a store as fast as it can, good changes and bad ones.

use flash_store::*;
use flash_types::*;

use super::common::random::Random;
use super::common::redis::*;
use super::common::*;
use super::sound::{commit, note};

/// A reservation as whoever writes remembers it.
#[derive(Clone)]
pub struct Known {
    pub serial: u64,
    state: ReservationState,
    lines: Vec<(u16, u32)>,
    /// Of each line.
    refunded: Vec<u32>,
}

impl Known {
    fn refunded_so_far(&self) -> Deltas {
        let lines = self.lines.iter().zip(&self.refunded);
        let refunded = lines.filter(|(_, units)| **units > 0);
        let refunded: Vec<_> = refunded.map(|((item, _), units)| (*item, *units)).collect();
        deltas(&refunded)
    }

    fn of(lines: &[(u16, u32)]) -> Self {
        Self {
            serial: 0,
            state: ReservationState::Reserved,
            lines: lines.to_vec(),
            refunded: vec![0; lines.len()],
        }
    }
}

/// A change, and what it makes of which reservation if it is taken.
type Planned = (Change, Option<(Option<usize>, Known)>);

/// One sale, and the one who writes to it.
pub struct Writer {
    node: Node,
    random: Random,
    sale_no: u32,
    buyers: u64,
    pub reservations: Vec<Known>,
    references: u64,
    /// Reservations that the present batch changes.
    touched: std::collections::HashSet<usize>,
}

impl Writer {
    pub fn new(node: Node, sale_no: u32, buyers: u64, seed: u64) -> Self {
        let mut definition = Box::new(plan(sale_no, &[40_000, 400, 40]));
        definition.payment_window_s = 1;
        definition.items[1].units_per_buyer_max = Some(3);
        let drafted = Change::PutDraft { definition };
        commit(&node, sale_no, vec![drafted, Change::Publish, open()]);
        Self {
            node,
            random: Random(seed),
            sale_no,
            buyers,
            reservations: Vec::new(),
            references: 0,
            touched: std::collections::HashSet::new(),
        }
    }

    /// A batch of up to so many changes; gives how many were taken.
    pub fn batch(&mut self, changes: u64) -> usize {
        self.touched.clear();
        let changes = 1 + self.random.below(changes);
        let planned = (0..changes).map(|place| self.change(place == 0));
        let planned = planned.collect();
        self.commit(planned)
    }

    /// So many reservations.
    pub fn fill(&mut self, changes: u64) {
        let planned = (0..changes).map(|_| {
            self.references += 1;
            self.buy(self.references, &[(0, 2)])
        });
        let planned = planned.collect();
        assert_eq!(self.commit(planned) as u64, changes);
    }

    fn commit(&mut self, planned: Vec<Planned>) -> usize {
        let (changes, known): (Vec<Change>, Vec<_>) = planned.into_iter().unzip();
        let batch = self.node.batch(self.sale_no, changes);
        let committed = self.node.commit_batch(&batch).unwrap();
        for (place, (entry, after)) in batch.entries.iter().zip(known).enumerate() {
            let is_refused = committed
                .refused
                .iter()
                .any(|(refused, _)| *refused == place);
            match after.filter(|_| !is_refused) {
                Some((None, known)) => self.reservations.push(Known {
                    serial: entry.serial.0,
                    ..known
                }),
                Some((Some(index), known)) => self.reservations[index] = known,
                None => {}
            }
        }
        batch.entries.len() - committed.refused.len()
    }

    fn reference(&mut self, what: &str) -> String {
        self.references += 1;
        format!("{what}-{}", self.references)
    }

    /// Two in one batch may contradict each other.
    fn change(&mut self, is_first: bool) -> Planned {
        let roll = self.random.below(100);
        if self.reservations.is_empty() || roll < 35 {
            return self.reserve();
        }
        if roll < 45 {
            let change = match self.random.below(if is_first { 40 } else { 10 }) {
                1..=3 => self.wave(),
                0 => Change::Note(note("busy")),
                10 => Change::Pause,
                11.. => Change::Resume,
                _ => self.stock_change(),
            };
            return (change, None);
        }
        let recent = self.random.below(self.reservations.len().min(300) as u64) as usize;
        let index = self.reservations.len() - 1 - recent;
        // One change of a reservation in a batch, as the engine makes them: what it tells is what is stored then.
        if !self.touched.insert(index) {
            return self.reserve();
        }
        let mut known = self.reservations[index].clone();
        let reservation = Serial(known.serial);
        let units = deltas(&known.lines);
        let payment_ref = payment(&self.reference("pay"));
        let change = match (known.state, self.random.below(5)) {
            (ReservationState::Reserved, 0) => {
                known.state = ReservationState::Released;
                Change::Release {
                    reservation,
                    units,
                    is_pooled: self.random.percent(30),
                }
            }
            (ReservationState::Reserved, 1) => {
                known.state = ReservationState::Expired;
                Change::Expire {
                    reservation,
                    units,
                    is_pooled: self.random.percent(30),
                }
            }
            (ReservationState::Reserved, 2) => Change::Extend {
                reservation,
                expires_at: NEVER,
            },
            (ReservationState::Confirmed, 4) if known.refunded[0] < known.lines[0].1 => {
                Change::ProtectPrice {
                    reservation,
                    item: ItemIndex(known.lines[0].0),
                    units: 1,
                    paid_minor: Money(9_900),
                    price_minor: Money(8_000),
                    other: SaleId::parse("s-other").unwrap(),
                    state: known.state,
                    refunded: known.refunded_so_far(),
                }
            }
            (ReservationState::Confirmed, _) => {
                let is_whole = self.random.percent(50);
                let refund_ref = RefundRef::parse(&self.reference("refund")).ok();
                let part = deltas(&[(known.lines[0].0, 1)]);
                if is_whole {
                    known.state = ReservationState::Refunded;
                    known.refunded = known.lines.iter().map(|(_, units)| *units).collect();
                } else {
                    known.refunded[0] += 1;
                }
                Change::Refund {
                    reservation,
                    refund_ref: refund_ref.filter(|_| !is_whole || self.random.percent(50)),
                    restock: self.random.percent(50),
                    refunded: known.refunded_so_far(),
                    units: if is_whole { units } else { part },
                    is_whole,
                }
            }
            (state @ (ReservationState::Released | ReservationState::Refunded), _) if is_first => {
                Change::RefusePayment {
                    reservation,
                    payment_ref,
                    is_expired: false,
                    state,
                    refunded: known.refunded_so_far(),
                }
            }
            (state, _) => {
                known.state = ReservationState::Confirmed;
                Change::Confirm {
                    reservation,
                    payment_ref,
                    is_late: state == ReservationState::Expired,
                    units,
                }
            }
        };
        (change, Some((Some(index), known)))
    }

    fn reserve(&mut self) -> Planned {
        let first = self.random.below(3) as u16;
        let mut lines = vec![(first, 1 + self.random.below(2) as u32)];
        if first < 2 && self.random.percent(30) {
            lines.push((first + 1, 1));
        }
        self.references += 1;
        // Some keys come twice.
        let before = self.random.below(20).saturating_sub(17);
        let number = self.references.saturating_sub(before);
        self.buy(number, &lines)
    }

    /// The number gives the key and the buyer.
    fn buy(&self, number: u64, lines: &[(u16, u32)]) -> Planned {
        let mut change = reserve(number, lines);
        if let Change::Reserve { buyer, .. } = &mut change {
            *buyer = BuyerId::parse(&format!("b-{}", number % self.buyers)).unwrap();
        }
        (change, Some((None, Known::of(lines))))
    }

    /// Of what came back to be released later; more than there is is refused.
    fn wave(&mut self) -> Change {
        let key = IdempotencyKey::parse(&self.reference("wave")).unwrap();
        Change::Wave {
            item: ItemIndex(self.random.below(3) as u16),
            wave: WaveRef::Hand(Some(key).filter(|_| self.random.percent(70))),
            due_at: Timestamp(0),
            units: self.random.below(3) as u32,
        }
    }

    fn stock_change(&mut self) -> Change {
        let asked = self.random.below(60) as i64 - 15;
        Change::ChangeStock {
            item: ItemIndex(self.random.below(3) as u16),
            key: IdempotencyKey::parse(&self.reference("stock")).unwrap(),
            asked_delta_units: asked,
            applied_delta_units: asked,
            reason: "busy".into(),
        }
    }
}
