//! Campaigns: what bargain, cashback and points have in common. Their life and rules ([`life`]), draws that outsiders can
//! recompute ([`draws`]), who may take part ([`entry`], [`risk`]), what was bought ([`orders`], [`inbox`]), what buyers are
//! told ([`notices`]).
//!
//! Knows nothing of any one kind of campaign: each is a [`kind::CampaignKind`].

pub mod canonical;
pub mod definition;
pub mod draws;
pub mod entry;
pub mod fact;
pub mod history;
pub mod inbox;
pub mod kind;
pub mod life;
pub mod notices;
pub mod orders;
pub mod reward;
pub mod risk;
pub mod shop;
pub mod state;

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::sql::Migration;
use side_books::step::Step;

use crate::shop::Shop;

/// Tables of this crate, in the order in which they are made.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "life-1",
        sql: include_str!("../queries/life_1.sql"),
    },
    Migration {
        name: "draws-1",
        sql: include_str!("../queries/draws_1.sql"),
    },
    Migration {
        name: "orders-1",
        sql: include_str!("../queries/orders_1.sql"),
    },
    Migration {
        name: "inbox-1",
        sql: include_str!("../queries/inbox_1.sql"),
    },
    Migration {
        name: "notices-1",
        sql: include_str!("../queries/notices_1.sql"),
    },
    Migration {
        name: "entry-1",
        sql: include_str!("../queries/entry_1.sql"),
    },
    Migration {
        name: "risk-1",
        sql: include_str!("../queries/risk_1.sql"),
    },
];

/// Everything that answers requests.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    let services = [
        life::services(shop),
        draws::services(shop),
        orders::services(shop),
        notices::services(shop),
        entry::services(shop),
        risk::services(shop),
    ];
    services.into_iter().flatten().collect()
}

/// Everything that goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    let steps = [
        life::steps(shop),
        inbox::steps(shop),
        notices::steps(shop),
        risk::steps(shop),
    ];
    steps.into_iter().flatten().collect()
}
