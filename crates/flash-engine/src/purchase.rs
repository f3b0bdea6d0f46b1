//! The life of one purchase, in one function.

use std::sync::Arc;
use std::time::Instant;

use flash_ledger::{RecordRef, Reserve, Won};
use flash_types::{Lines, Outcome, Refusal, ReservationId, SaleState};

use crate::fate::{Fate, Verdict};
use crate::queue::{Class, Job, Slot, Work};
use crate::sale::{Sale, shown};
use crate::{Engine, Purchase, Reading};

impl Engine {
    /// One purchase, and its place in the counts of the report. Its life is told by `decide`.
    ///
    /// # Cancel safety
    /// Dropping this future before the hand-over undoes everything; after it the purchase goes on without its caller, and
    /// is not counted among the tries.
    pub async fn purchase(&self, request: &Purchase, now: Reading) -> Outcome {
        let Some(sale) = self.catalogue.find(&request.sale_id) else {
            return Outcome::Refused(Refusal::NotFound);
        };
        if sale.is_retired() {
            return self.purchase_of_retired(&sale, request).await;
        }
        let outcome = self.decide(&sale, request, now).await;
        let item = request.lines.first().map(|(item, _)| item);
        let item = item.and_then(|item| sale.item_index(item));
        sale.attempts().count(item, &outcome);
        outcome
    }

    /// The life of one purchase: admit -> reserve -> commit -> answer; a key that won gets its answer again.
    ///
    /// A refusal is told only after the won-key filter was asked, and asked after the refusal was found: so no
    /// refusal of business ever meets a key that won, not even one that won a moment ago.
    ///
    /// # Cancel safety
    /// Dropping this future before the hand-over undoes everything; after it the purchase goes on without its caller.
    async fn decide(&self, sale: &Arc<Sale>, request: &Purchase, now: Reading) -> Outcome {
        let deadline = now.at + self.config.request_deadline;
        if sale.state() == SaleState::Published && now.wall >= sale.definition().starts_at {
            self.wait_for_opening(sale, deadline).await;
        }
        let lines = sale.lines(&request.lines);
        let refusal = match self.admit(sale, request, lines.as_ref(), now) {
            Err(refusal) => refusal,
            Ok((lines, slot)) => {
                let priced = sale.priced(lines);
                let fate = Arc::new(Fate::default());
                let ledger = sale.ledger();
                match ledger.reserve(&request.buyer, &request.key, &priced, Arc::clone(&fate)) {
                    Reserve::Taken(record) => {
                        let (buyer, key) = (request.buyer, request.key);
                        self.queue.push(Job {
                            sale: Arc::clone(sale),
                            work: Work::Reserve {
                                record,
                                buyer,
                                key,
                                lines: priced,
                            },
                            note: None,
                            fate: Arc::clone(&fate),
                            deadline,
                            slot: Some(slot),
                            turns: Vec::new(),
                        });
                        return self.answer(sale, lines, record, &fate, deadline).await;
                    }
                    Reserve::Won(won) => return self.replay(sale, won, deadline).await,
                    Reserve::Limit(_) => Refusal::BuyerLimitReached,
                    Reserve::Short {
                        item,
                        available_units,
                    } => Refusal::SoldOut {
                        is_final: sale.is_drained(item),
                        available_units: (available_units > 0).then_some(available_units),
                    },
                }
            }
        };
        match sale
            .ledger()
            .won(&request.buyer, &request.key, lines.as_ref())
        {
            Some(won) => self.replay(sale, won, deadline).await,
            None => Outcome::Refused(refusal),
        }
    }

    /// Everything that is asked before the ledger decides, in the order in which it is told.
    fn admit<'a>(
        &self,
        sale: &Sale,
        request: &Purchase,
        lines: Option<&'a Lines>,
        now: Reading,
    ) -> Result<(&'a Lines, Slot), Refusal> {
        let state = sale.state();
        if state == SaleState::Draft {
            return Err(Refusal::NotFound);
        }
        let lines = lines.ok_or(Refusal::NotFound)?;
        let definition = sale.definition();
        match state {
            SaleState::Frozen => return Err(Refusal::SaleFrozen),
            SaleState::Draft | SaleState::Published | SaleState::Open | SaleState::Paused
                if now.wall >= definition.ends_at =>
            {
                return Err(Refusal::SaleEnded);
            }
            // Its start has passed and it could not be opened in time: the store did not take it.
            SaleState::Draft | SaleState::Published if now.wall >= definition.starts_at => {
                return Err(Refusal::StoreUnavailable);
            }
            SaleState::Draft | SaleState::Published => {
                return Err(Refusal::SaleNotStarted {
                    starts_at: definition.starts_at,
                });
            }
            SaleState::Paused => return Err(Refusal::SalePaused),
            SaleState::Closed => return Err(Refusal::SaleEnded),
            SaleState::Open => {}
        }
        for line in lines.as_slice() {
            let available_units = sale.available_units(line.item);
            if available_units < line.quantity.units() {
                return Err(Refusal::SoldOut {
                    is_final: available_units == 0 && sale.is_drained(line.item),
                    available_units: (available_units > 0).then_some(available_units),
                });
            }
        }
        self.admit_buyer(sale, &request.buyer, now)
            .map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })?;
        if self.is_stopping() {
            return Err(Refusal::Stopping);
        }
        let slot = self
            .queue
            .slot(Class::Purchase)
            .ok_or_else(|| self.overloaded())?;
        Ok((lines, slot))
    }

    /// Waits for the winner's own commit.
    async fn answer(
        &self,
        sale: &Sale,
        asked: &Lines,
        record: RecordRef,
        fate: &Fate,
        deadline: Instant,
    ) -> Outcome {
        match fate.by(deadline).await {
            None if fate.give_up() => Outcome::Refused(self.overloaded()),
            None => self.unknown(sale, fate),
            Some(Verdict::Unknown) => self.unknown(sale, fate),
            Some(Verdict::Elsewhere(serial)) => self.stored(sale, serial, Some(asked)).await,
            Some(Verdict::Refused(refusal)) => Outcome::Refused(refusal),
            Some(Verdict::Done) => match sale.reservation(record, self.durability()) {
                Some(reservation) => Outcome::Reserved(Arc::new(reservation)),
                None => self.unknown(sale, fate),
            },
        }
    }

    /// The answer to a key that won: its reservation as it stands now.
    async fn replay(&self, sale: &Sale, won: Won<Arc<Fate>>, deadline: Instant) -> Outcome {
        if !won.is_same {
            return Outcome::Refused(Refusal::IdempotencyKeyReused);
        }
        if let Some(fate) = won.in_flight {
            match fate.by(deadline).await {
                Some(Verdict::Done) => {}
                Some(Verdict::Refused(refusal)) => return Outcome::Refused(refusal),
                Some(Verdict::Unknown) => return self.unknown(sale, &fate),
                // What this key won is another node's to tell; `is_same` was judged against the try that lost.
                Some(Verdict::Elsewhere(_)) => return Outcome::Refused(Refusal::InFlight),
                None => return self.unknown(sale, &fate),
            }
        }
        self.standing(sale, won.record, deadline).await
    }

    /// The reservation as it stands, once nothing is in flight for it; `unknown` in it at the deadline.
    pub(crate) async fn standing(
        &self,
        sale: &Sale,
        record: RecordRef,
        deadline: Instant,
    ) -> Outcome {
        loop {
            let Some(view) = sale.ledger().view(record) else {
                return Outcome::Refused(Refusal::NotFound);
            };
            let in_flight = view.in_flight.clone();
            let Some(reservation) = sale.rendered(&view, self.durability()) else {
                return Outcome::Refused(Refusal::InFlight);
            };
            let Some(fate) = in_flight else {
                return Outcome::Stands(Arc::new(reservation));
            };
            match fate.by(deadline).await {
                Some(Verdict::Done | Verdict::Refused(_) | Verdict::Elsewhere(_)) => {}
                // The store died over it: it stays in flight until the process ends.
                Some(Verdict::Unknown) | None => {
                    return Outcome::Stands(Arc::new(shown(reservation, true)));
                }
            }
        }
    }

    /// 504 with the id where it was sent; "in flight" where it still waits for its turn.
    pub(crate) fn unknown(&self, sale: &Sale, fate: &Fate) -> Outcome {
        match fate.sent() {
            Some(serial) => Outcome::Unknown(ReservationId {
                sale_no: sale.sale_no(),
                serial,
            }),
            None => Outcome::Refused(Refusal::InFlight),
        }
    }

    async fn wait_for_opening(&self, sale: &Sale, deadline: Instant) {
        let mut opened = std::pin::pin!(sale.opened.notified());
        // Registered before the look, so an opening between look and wait is not missed.
        opened.as_mut().enable();
        if sale.state() == SaleState::Published {
            self.queue.poke(sale.sale_no());
            let _ = tokio::time::timeout_at(deadline.into(), opened).await;
        }
    }
}
