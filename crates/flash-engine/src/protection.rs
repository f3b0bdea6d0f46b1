//! Price protection 价保: buyers who paid more than the item costs a little later are due the difference, once.

use std::sync::Arc;
use std::time::Duration;

use flash_ledger::Command;
use flash_store::{DecisionKind, Store as _};
use flash_types::{
    ItemId, ItemIndex, Money, Outcome, Refusal, Reservation, ReservationId, ReservationState,
    SaleId, Serial, Timestamp,
};

use crate::sale::Sale;
use crate::{AdminRefusal, Caller, Engine, ReservationQuery, Who};

/// What a buyer is due, or has been told to be due.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Protection {
    /// Which reservation.
    pub reservation_id: ReservationId,
    /// Whose.
    pub buyer_id: flash_types::BuyerId,
    /// The payment that the difference goes back to.
    pub payment_ref: Option<flash_types::PaymentRef>,
    /// Which item.
    pub item: ItemId,
    /// Units of it that are not refunded.
    pub quantity: u32,
    /// What was paid for one.
    pub unit_price_minor: Money,
    /// The lower price.
    pub later_price_minor: Money,
    /// The sale with the lower price.
    pub later_sale_id: SaleId,
    /// The difference, for all units.
    pub amount_minor: Money,
}

/// A page of them.
#[derive(Debug, Clone)]
pub struct Protected {
    /// What is due, or was due at this call.
    pub items: Vec<Protection>,
    /// Reservations that were told as `refund_due` by this call.
    pub emitted: usize,
    /// Where the next page begins, if there is one.
    pub next: Option<Serial>,
}

/// The lowest later price of an item.
#[derive(Clone, Copy)]
struct Later {
    price: Money,
    sale_id: SaleId,
}

impl Engine {
    /// Buyers of a sale who paid more than a later price of the item within the sale's `price_protection_days`, from a
    /// page of its confirmed reservations; those told before are left out. With `who` the difference is due from here
    /// on: told once for each item of a reservation, as the event `reservation.refund_due`.
    ///
    /// # Errors
    /// `not_found`; a conflict where the sale protects no prices; or the store's.
    ///
    /// # Cancel safety
    /// Dropping it leaves the rest of the page untold: asking again tells it.
    pub async fn protection(
        &self,
        sale_id: &SaleId,
        after: Serial,
        limit: usize,
        who: Option<Who>,
    ) -> Result<Protected, AdminRefusal> {
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let Some(days) = sale.definition().price_protection_days else {
            let why = "the sale has no price_protection_days: it protects no prices";
            return Err(AdminRefusal::Conflict(why.into()));
        };
        let window = Duration::from_secs(u64::from(days) * 24 * 3600);
        let query = ReservationQuery {
            state: Some(ReservationState::Confirmed),
            ..ReservationQuery::default()
        };
        let page = self.reservations(sale_id, &query, after, limit).await?;
        let next = (page.len() == limit)
            .then(|| page.last().map(|last| last.reservation_id.serial))
            .flatten();
        // Once for the page: there may be thousands, and most are of another time.
        let first = page.iter().map(|one| one.created_at).min();
        let mut sales = self.catalogue.all();
        sales.retain(|other| first.is_some_and(|first| first < other.definition().starts_at));
        let (mut items, mut emitted) = (Vec::new(), 0);
        let mut stopped = None;
        'page: for reservation in &page {
            for (item, due) in self.due_of(&sale, &sales, reservation, window) {
                if self
                    .was_told(&sale, reservation.reservation_id, item)
                    .await?
                {
                    continue;
                }
                if who.is_some() {
                    match self.tell(reservation.reservation_id, item, &due).await {
                        Ok(true) => emitted += 1,
                        Ok(false) => continue,
                        Err(refusal) => {
                            stopped = Some(refusal);
                            break 'page;
                        }
                    }
                }
                items.push(due);
            }
        }
        // Also of a page that stopped half-way: what was told stands.
        if let Some(who) = who.filter(|_| emitted > 0) {
            let detail = format!("{emitted} differences due");
            self.note(&who, "sale.protect_prices", Some(sale_id), "ok", &detail);
        }
        if let Some(refusal) = stopped {
            return Err(refusal);
        }
        Ok(Protected {
            items,
            emitted,
            next,
        })
    }

    fn due_of(
        &self,
        sale: &Sale,
        sales: &[Arc<Sale>],
        reservation: &Reservation,
        window: Duration,
    ) -> Vec<(ItemIndex, Protection)> {
        let mut due = Vec::new();
        for line in &reservation.lines {
            let left = line.quantity.saturating_sub(line.refunded_units);
            let Some(index) = sale.item_index(&line.item).filter(|_| left > 0) else {
                continue;
            };
            let later = self.later_price(sale, sales, index, reservation.created_at, window);
            let Some(later) = later.filter(|later| later.price < line.unit_price_minor) else {
                continue;
            };
            let difference = Money(line.unit_price_minor.0 - later.price.0);
            let protection = Protection {
                reservation_id: reservation.reservation_id,
                buyer_id: reservation.buyer_id,
                payment_ref: reservation.payment_ref,
                item: line.item,
                quantity: left,
                unit_price_minor: line.unit_price_minor,
                later_price_minor: later.price,
                later_sale_id: later.sale_id,
                amount_minor: difference.times(left),
            };
            due.push((index, protection));
        }
        due
    }

    /// The lowest price of an item that it has had since it was bought, and within the window: in sales that started
    /// then, and in its own sale as it stands, where that was corrected.
    fn later_price(
        &self,
        sale: &Sale,
        sales: &[Arc<Sale>],
        index: ItemIndex,
        bought_at: Timestamp,
        window: Duration,
    ) -> Option<Later> {
        let plan = sale.definition();
        let item = plan.items.get(usize::from(index.0))?.item;
        let until = bought_at.plus(window);
        let wall = self.clock.read().wall;
        let others = sales.iter().filter(|other| {
            let other_plan = other.definition();
            let is_later = bought_at < other_plan.starts_at && other_plan.starts_at <= until;
            is_later && other_plan.currency == plan.currency && other.sale_no() != sale.sale_no()
        });
        let of_others = others.filter_map(|other| {
            let index = other.item_index(&item)?;
            other.was_for_sale(index, wall).then(|| Later {
                price: other.price(index),
                sale_id: other.definition().sale_id,
            })
        });
        let own = (wall <= until).then(|| Later {
            price: sale.price(index),
            sale_id: plan.sale_id,
        });
        of_others.chain(own).min_by_key(|later| later.price)
    }

    /// A difference of an item was told before: it is not due again, also where the price fell further since.
    async fn was_told(
        &self,
        sale: &Sale,
        id: ReservationId,
        item: ItemIndex,
    ) -> Result<bool, AdminRefusal> {
        if !sale.is_retired() {
            return Ok(sale.ledger().is_protected(id.serial, item));
        }
        let decisions = self.store.decisions_of(id.sale_no, id.serial).await;
        let decisions = self.store_read(decisions)?;
        Ok(decisions.iter().any(|row| {
            row.decision.kind == DecisionKind::PriceProtection
                && row.decision.reference == item.0.to_string()
        }))
    }

    /// Tells that a difference is due; `false` where it was told before.
    async fn tell(
        &self,
        id: ReservationId,
        item: ItemIndex,
        due: &Protection,
    ) -> Result<bool, AdminRefusal> {
        let command = Command::ProtectPrice {
            item,
            price_minor: due.later_price_minor,
            other: due.later_sale_id,
        };
        let now = self.clock.read();
        let told = self.told_now(Caller::Storefront, id, command, now).await;
        match told {
            (Outcome::Stands(_) | Outcome::Reserved(_), is_new) => Ok(is_new),
            // It was refunded, or is being decided on, since the page was read: the next call looks again.
            (Outcome::Refused(Refusal::StateConflict { .. } | Refusal::NotFound), _) => Ok(false),
            (Outcome::Refused(refusal), _) => Err(refusal.into()),
            (Outcome::Unknown(_), _) => Err(AdminRefusal::Unknown),
        }
    }
}
