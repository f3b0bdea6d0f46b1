//! After a store lost what it had acknowledged: what is lost, and how an operator goes on all the same.
//!
//! Only while the process lives that gave the answers: its ledger still has them. The sale is frozen meanwhile, so neither side moves.

use std::collections::HashMap;
use std::sync::Arc;

use flash_store::{AcceptError, AcceptedLoss, ReservationRow, SaleContent};
use flash_types::{Refusal, Reservation, ReservationState, SaleId, SaleState, Serial};

use crate::recovery::{Recovered, imbalances};
use crate::sale::Sale;
use crate::{AdminRefusal, Engine, Who};

/// Reservations that a note of the audit log names.
const NAMED_MAX: usize = 40;
/// Records that one step of a comparison looks at.
const STEP: usize = 4_096;

/// One reservation that was acknowledged, and is not stored as it was.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Lost {
    /// As it was told.
    pub reservation: Reservation,
    /// What the store has of it; absent where it has nothing.
    pub stored_state: Option<ReservationState>,
}

/// What became of a frozen sale whose loss was accepted.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Loss {
    /// The sale.
    pub sale_id: SaleId,
    /// Where it stands from now on.
    pub state: SaleState,
    /// Reservations that are gone, or back in an earlier state.
    pub lost_reservations: usize,
    /// What else was acknowledged and is not stored so, one sentence each. The sale is paused if there is any.
    pub differences: Vec<String>,
}

/// What a frozen sale's store lost.
#[derive(Debug, Clone)]
pub struct Losses {
    /// Reservations, ascending by serial.
    pub lost: Vec<Lost>,
    /// What else was acknowledged and is not stored so, one sentence each.
    pub differences: Vec<String>,
}

impl Engine {
    /// What was acknowledged for a frozen sale and is not stored, ascending by serial.
    ///
    /// # Errors
    /// `not_found`; a conflict where the sale is not frozen, or the store cannot tell.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn loss(&self, sale_id: &SaleId) -> Result<Losses, AdminRefusal> {
        let sale = self.frozen(sale_id)?;
        let content = self.content(&sale).await?;
        Ok(Losses {
            lost: self.lost(&sale, content.as_ref()),
            differences: self.differences(&sale, content.as_ref()),
        })
    }

    /// Takes a frozen sale as the store has it, and goes on from there. The buyers of what is lost hold answers that nothing
    /// stands behind any more: whoever calls this has listed them before ([`Engine::loss`]).
    ///
    /// # Errors
    /// `not_found`; a conflict where the sale is not frozen, or what is stored is not whole; `store_unavailable`.
    ///
    /// # Cancel safety
    /// Where it was dropped after the store took it, asking again finishes it.
    pub async fn accept_loss(&self, sale_id: &SaleId, who: Who) -> Result<Loss, AdminRefusal> {
        let deadline = self.deadline();
        let sale = self.frozen(sale_id)?;
        let _turn = self.turn(&sale.turn, deadline).await?;
        let sale = self.frozen(sale_id)?;
        let Some(content) = self.content(&sale).await? else {
            let why =
                "nothing of this sale is stored any more: restore the store, or leave it frozen";
            return Err(AdminRefusal::Conflict(why.into()));
        };
        let lost = self.lost(&sale, Some(&content));
        let differences = self.differences(&sale, Some(&content));
        let named: Vec<String> = lost
            .iter()
            .take(NAMED_MAX)
            .map(|one| one.reservation.reservation_id.to_string())
            .collect();
        let told = [&differences[..], &named[..]].concat().join(" ");
        let detail = format!("{} reservations lost: {told}", lost.len());
        let note = self.note_of(&who, "sale.accept_loss", Some(sale_id), "ok", &detail);
        let accepted = AcceptedLoss {
            serials: [self.serials.next(), self.serials.next()],
            note: &note,
            lost: lost.len(),
            ev: content.ev,
            is_rest_whole: differences.is_empty(),
        };
        let mut fresh = self.reloaded(content)?;
        let accepting = self.store.accept(sale.sale_no(), &accepted);
        let state = accepting.await.map_err(|error| match error {
            AcceptError::Refused(why) => AdminRefusal::Conflict(why),
            AcceptError::Unavailable(why) => {
                tracing::warn!(why, "a loss was not accepted");
                AdminRefusal::Refused(Refusal::StoreUnavailable)
            }
        })?;
        Arc::get_mut(&mut fresh)
            .expect("nobody else has it so far")
            .go_on_from(&sale);
        fresh.set_gate(state);
        fresh.set_state(state);
        tracing::warn!(sale = %sale_id, detail, "a loss was accepted");
        self.catalogue.put([fresh]);
        self.queue.poke(sale.sale_no());
        Ok(Loss {
            sale_id: *sale_id,
            state,
            lost_reservations: lost.len(),
            differences,
        })
    }

    fn frozen(&self, sale_id: &SaleId) -> Result<Arc<Sale>, AdminRefusal> {
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        if sale.state() != SaleState::Frozen {
            let why = format!("the sale is {}, not frozen", sale.state().as_str());
            return Err(AdminRefusal::Conflict(why));
        }
        Ok(sale)
    }

    async fn content(&self, sale: &Sale) -> Result<Option<SaleContent>, AdminRefusal> {
        let content = self.store.content(sale.sale_no()).await;
        content.map_err(|error| AdminRefusal::Conflict(error.to_string()))
    }

    /// A sale as stored, fit to go on, but for its state.
    fn reloaded(&self, content: SaleContent) -> Result<Arc<Sale>, AdminRefusal> {
        let mut recovered = Recovered::new(self.config.hash_key);
        recovered.add(content);
        let (mut sales, findings) = recovered.finish(self.clock.read().steady);
        if let Some((_, finding)) = findings.first() {
            let why = format!("what is stored does not balance: {finding}");
            return Err(AdminRefusal::Conflict(why));
        }
        let sale = sales.pop().ok_or(Refusal::NotFound)?;
        debug_assert!(imbalances(&sale).is_empty());
        Ok(sale)
    }

    /// What was acknowledged besides reservations and is not stored so: the state before the freeze, stock, and what a
    /// start found missing.
    fn differences(&self, sale: &Sale, content: Option<&SaleContent>) -> Vec<String> {
        let unlisted = self.store.unlisted_loss(sale.sale_no());
        let mut differences: Vec<String> = unlisted.into_iter().collect();
        let Some(content) = content else {
            return differences;
        };
        let stored = match content.sale.state {
            SaleState::Frozen => content.thaw,
            state @ (SaleState::Draft
            | SaleState::Published
            | SaleState::Open
            | SaleState::Paused
            | SaleState::Closed) => Some(state),
        };
        if let (Some(told), Some(stored)) = (sale.state_before_freeze(), stored)
            && told != stored
        {
            differences.push(format!(
                "the sale was {}, stored is {};",
                told.as_str(),
                stored.as_str()
            ));
        }
        for row in &content.sale.items {
            let told = sale.units(row.index).stock;
            if told != row.units.stock {
                differences.push(format!(
                    "the stock of {} was {told}, stored are {};",
                    row.item, row.units.stock
                ));
            }
        }
        differences
    }

    /// Everything that the ledger has as committed and the store has not, or not so.
    fn lost(&self, sale: &Sale, content: Option<&SaleContent>) -> Vec<Lost> {
        let stored: HashMap<Serial, &ReservationRow> = content
            .into_iter()
            .flat_map(|content| &content.reservations)
            .map(|row| (row.serial, row))
            .collect();
        let mut lost = Vec::new();
        let mut after = Serial(0);
        loop {
            let records = sale.ledger().records_after(after, STEP);
            for record in &records {
                let Some(view) = sale.ledger().view(*record) else {
                    continue;
                };
                let Some(reservation) = sale.rendered(&view, self.durability()) else {
                    continue;
                };
                let serial = reservation.reservation_id.serial;
                after = after.max(serial);
                // Never told as won.
                if view.state == ReservationState::Unknown {
                    continue;
                }
                let row = stored.get(&serial).copied();
                if row.is_none_or(|row| is_behind(&reservation, row, view.in_flight.is_some())) {
                    lost.push(Lost {
                        reservation,
                        stored_state: row.map(|row| row.state),
                    });
                }
            }
            if records.len() < STEP {
                return lost;
            }
        }
    }
}

/// The store has an earlier state than was told. What was on its way may be there or not: either was never told.
fn is_behind(told: &Reservation, stored: &ReservationRow, is_in_flight: bool) -> bool {
    let refunds = told.lines.iter().zip(&stored.lines);
    let has_fewer_refunds = refunds
        .into_iter()
        .any(|(told, stored)| stored.refunded_units < told.refunded_units);
    has_fewer_refunds || (!is_in_flight && told.state != stored.state)
}
