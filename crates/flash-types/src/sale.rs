//! A sale as its merchant plans it, and its states.

use serde::{Deserialize, Serialize};

use crate::{Currency, ItemId, ItemIndex, Money, SaleId, Timestamp, bounds};

/// Where a sale stands.
// Draft -> Published -> Open <-> Paused; (Published | Open | Paused) -> Closed; any -> Frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleState {
    /// Being planned; nobody else sees it.
    Draft,
    /// Announced, not started.
    Published,
    /// Selling.
    Open,
    /// Stopped by the merchant for a while.
    Paused,
    /// Over; reservations still open may be paid until they expire.
    Closed,
    /// Stopped by the engine: its books do not balance, or acknowledged writes are lost.
    Frozen,
}

impl SaleState {
    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Closed => "closed",
            Self::Frozen => "frozen",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Draft,
            Self::Published,
            Self::Open,
            Self::Paused,
            Self::Closed,
            Self::Frozen,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }
}

/// Whether a purchase needs a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TicketRule {
    /// No ticket.
    #[default]
    Off,
}

/// Who may try, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionRules {
    /// Whether a purchase needs a ticket.
    #[serde(default)]
    pub ticket: TicketRule,
    /// Tries of one buyer per second, sustained.
    #[serde(default = "defaults::buyer_rate_per_s")]
    pub buyer_rate_per_s: u32,
    /// Tries of one buyer at once.
    #[serde(default = "defaults::buyer_burst")]
    pub buyer_burst: u32,
    /// Tries from one address per second, sustained.
    #[serde(default = "defaults::address_rate_per_s")]
    pub address_rate_per_s: u32,
    /// Tries from one address at once.
    #[serde(default = "defaults::address_burst")]
    pub address_burst: u32,
}

impl Default for AdmissionRules {
    fn default() -> Self {
        Self {
            ticket: TicketRule::Off,
            buyer_rate_per_s: defaults::buyer_rate_per_s(),
            buyer_burst: defaults::buyer_burst(),
            address_rate_per_s: defaults::address_rate_per_s(),
            address_burst: defaults::address_burst(),
        }
    }
}

mod defaults {
    pub fn payment_window_s() -> u32 {
        300
    }
    pub fn buyer_rate_per_s() -> u32 {
        5
    }
    pub fn buyer_burst() -> u32 {
        10
    }
    pub fn address_rate_per_s() -> u32 {
        50
    }
    pub fn address_burst() -> u32 {
        100
    }
}

/// What the merchant wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// Paid orders.
    pub orders: u64,
}

/// One product line of a sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemDefinition {
    /// Its name.
    pub item: ItemId,
    /// For people.
    pub title: String,
    /// Price outside of the sale, minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_price_minor: Option<Money>,
    /// Price in the sale, minor units.
    pub sale_price_minor: Money,
    /// Units for sale.
    pub stock_units: u32,
    /// Most units of this item for one buyer over the whole sale; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units_per_buyer_max: Option<u32>,
    /// Below this price the plan is held to be a mistake, minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_price_minor: Option<Money>,
    /// Units held back at the start, and when they are released; ascending by time. What is in no wave is released at the start.
    #[serde(default)]
    pub waves: Vec<Wave>,
}

/// A planned release of further units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// When.
    pub at: Timestamp,
    /// How many.
    pub units: u32,
}

/// A sale as its merchant plans it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaleDefinition {
    /// Its name.
    pub sale_id: SaleId,
    /// For people.
    pub title: String,
    /// Sales that belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// When it opens.
    pub starts_at: Timestamp,
    /// When it closes.
    pub ends_at: Timestamp,
    /// Of all prices.
    pub currency: Currency,
    /// How long a reservation is kept unpaid, seconds.
    #[serde(default = "defaults::payment_window_s")]
    pub payment_window_s: u32,
    /// What the merchant wants to reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// For so many days after they bought, buyers are due the difference to a later, lower price of the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_protection_days: Option<u32>,
    /// When units that came back unpaid are sold again, ascending; at once where this is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub re_release_at: Vec<Timestamp>,
    /// How many buyers the merchant expects: what a rehearsal plays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_crowd: Option<u32>,
    /// Who may try.
    #[serde(default)]
    pub admission: AdmissionRules,
    /// What is sold.
    pub items: Vec<ItemDefinition>,
}

impl SaleDefinition {
    /// Holds every field against its bounds.
    ///
    /// # Errors
    /// One sentence that names the field and what would be taken.
    pub fn check(&self) -> Result<(), String> {
        check_title("title", &self.title)?;
        if let Some(series) = &self.series {
            check_title("series", series)?;
        }
        if self.ends_at <= self.starts_at {
            return Err("ends_at must lie after starts_at".into());
        }
        check_range(
            "payment_window_s",
            self.payment_window_s,
            bounds::PAYMENT_WINDOW_S_MIN,
            bounds::PAYMENT_WINDOW_S_MAX,
        )?;
        if self.expected_crowd == Some(0) {
            return Err("expected_crowd must be 1-4294967295; leave it out if unknown".into());
        }
        let AdmissionRules {
            ticket: _,
            buyer_rate_per_s,
            buyer_burst,
            address_rate_per_s,
            address_burst,
        } = self.admission;
        check_range(
            "admission.buyer_rate_per_s",
            buyer_rate_per_s,
            1,
            bounds::RATE_PER_S_MAX,
        )?;
        check_range("admission.buyer_burst", buyer_burst, 1, bounds::BURST_MAX)?;
        check_range(
            "admission.address_rate_per_s",
            address_rate_per_s,
            1,
            bounds::RATE_PER_S_MAX,
        )?;
        check_range(
            "admission.address_burst",
            address_burst,
            1,
            bounds::BURST_MAX,
        )?;
        if let Some(days) = self.price_protection_days {
            check_range(
                "price_protection_days",
                days,
                1,
                bounds::PRICE_PROTECTION_DAYS_MAX,
            )?;
        }
        self.check_times("re_release_at", self.re_release_at.iter().copied())?;
        if self
            .re_release_at
            .first()
            .is_some_and(|first| *first <= self.starts_at)
        {
            return Err("re_release_at must lie after starts_at".into());
        }
        if self.items.is_empty() || self.items.len() > bounds::ITEMS_MAX {
            return Err(format!("items must be 1-{} items", bounds::ITEMS_MAX));
        }
        for (index, item) in self.items.iter().enumerate() {
            if self.items[..index]
                .iter()
                .any(|earlier| earlier.item == item.item)
            {
                return Err(format!(
                    "items[{index}].item {:?} stands there twice",
                    item.item.as_str()
                ));
            }
            check_title(&format!("items[{index}].title"), &item.title)?;
            check_price(
                &format!("items[{index}].sale_price_minor"),
                item.sale_price_minor,
            )?;
            if let Some(list_price) = item.list_price_minor {
                check_price(&format!("items[{index}].list_price_minor"), list_price)?;
            }
            if let Some(floor_price) = item.floor_price_minor {
                check_price(&format!("items[{index}].floor_price_minor"), floor_price)?;
            }
            self.check_waves(index, item)?;
            if item.units_per_buyer_max == Some(0) {
                return Err(format!(
                    "items[{index}].units_per_buyer_max must be 1-4294967295; leave it out for no limit"
                ));
            }
        }
        Ok(())
    }

    fn check_waves(&self, index: usize, item: &ItemDefinition) -> Result<(), String> {
        let field = format!("items[{index}].waves");
        self.check_times(&field, item.waves.iter().map(|wave| wave.at))?;
        if item.waves.iter().any(|wave| wave.units == 0) {
            return Err(format!("{field}: units must be 1-4294967295"));
        }
        let sum: u64 = item.waves.iter().map(|wave| u64::from(wave.units)).sum();
        if sum > u64::from(item.stock_units) {
            return Err(format!(
                "{field} release {sum} units, more than the {} of stock_units",
                item.stock_units
            ));
        }
        Ok(())
    }

    /// Times of releases: few, ascending, before the end.
    fn check_times(
        &self,
        field: &str,
        times: impl ExactSizeIterator<Item = Timestamp> + Clone,
    ) -> Result<(), String> {
        if times.len() > bounds::WAVES_MAX {
            return Err(format!("{field} must be at most {}", bounds::WAVES_MAX));
        }
        if !times.clone().is_sorted_by(|one, next| one < next) {
            return Err(format!("{field} must ascend in time"));
        }
        if times.last().is_some_and(|last| last >= self.ends_at) {
            return Err(format!("{field} must lie before ends_at"));
        }
        Ok(())
    }

    /// The waves of an item that come after the opening, with their places in the plan; those before are part of it.
    pub fn later_waves(&self, item: ItemIndex) -> impl Iterator<Item = (u16, Wave)> {
        let waves = self.items.get(usize::from(item.0)).map(|item| &item.waves);
        let numbered = (0u16..).zip(waves.into_iter().flatten().copied());
        numbered.filter(|(_, wave)| wave.at > self.starts_at)
    }
}

fn check_title(field: &str, title: &str) -> Result<(), String> {
    let is_good = !title.trim().is_empty()
        && title.len() <= bounds::TITLE_BYTES_MAX
        && !title.chars().any(char::is_control);
    if is_good {
        Ok(())
    } else {
        Err(format!(
            "{field} must be 1-{} bytes without control characters",
            bounds::TITLE_BYTES_MAX
        ))
    }
}

fn check_range(field: &str, value: u32, min: u32, max: u32) -> Result<(), String> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(format!("{field} must be {min}-{max}"))
    }
}

fn check_price(field: &str, price: Money) -> Result<(), String> {
    if (0..=bounds::PRICE_MINOR_MAX).contains(&price.0) {
        Ok(())
    } else {
        Err(format!("{field} must be 0-{}", bounds::PRICE_MINOR_MAX))
    }
}

/// Where the units of one item are. Always `stock = unreleased + available + reserved + sold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ItemUnits {
    /// All units there are.
    #[serde(rename = "stock_units")]
    pub stock: u64,
    /// Not yet for sale.
    #[serde(rename = "unreleased_units")]
    pub unreleased: u64,
    /// For sale now.
    #[serde(rename = "available_units")]
    pub available: u64,
    /// Set aside for buyers who have not paid.
    #[serde(rename = "reserved_units")]
    pub reserved: u64,
    /// Paid for.
    #[serde(rename = "sold_units")]
    pub sold: u64,
}

impl ItemUnits {
    /// `stock - (unreleased + available + reserved + sold)`: 0, or alarm.
    pub fn imbalance(&self) -> i64 {
        let placed = self.unreleased + self.available + self.reserved + self.sold;
        self.stock.cast_signed() - placed.cast_signed()
    }
}
