//! Commands asked again while the first is still with the store: turns end when the job does.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::time::Duration;

use common::{Shop, id, refusal, sale, stands, who};
use flash_engine::{EngineConfig, HashKey, SaleCommand};
use flash_store::{MemoryFault, MemoryStore, NotApplied};
use flash_types::*;

const CONFLICT: Refusal = Refusal::StateConflict { refund_due: false };

/// Starts a call that does not end before the store is released.
fn spawned<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(call)
}

#[tokio::test(start_paused = true)]
async fn two_drafts_made_while_the_store_is_slow_are_two_sales() {
    let shop = Shop::open();
    shop.store.hold();
    let make = |name: &str| {
        let mut definition = sale(5);
        definition["sale_id"] = serde_json::json!(name);
        let definition: SaleDefinition = serde_json::from_value(definition).unwrap();
        let engine = shop.engine.clone();
        spawned(async move { engine.put_draft(definition, false, who()).await.map(|_| ()) })
    };
    let unknown = Err(flash_engine::AdminRefusal::Unknown);
    assert_eq!(make("s1").await.unwrap(), unknown);
    // The second is asked for while the first is still with the store, and is sent right behind it.
    let second = make("s2");
    shop.pass(Duration::from_millis(50)).await;
    shop.store.release();
    assert_eq!(second.await.unwrap(), Ok(()));
    let numbers: Vec<_> = shop
        .engine
        .sales()
        .iter()
        .map(|sale| sale.sale_no())
        .collect();
    assert_eq!(numbers, [SaleNo(1), SaleNo(2)]);
    shop.command(SaleCommand::Publish).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await;
    let shop = shop.restart();
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Reserved
    );
}

#[tokio::test(start_paused = true)]
async fn an_admin_command_asked_again_while_it_is_under_way_does_not_stop_the_process() {
    let shop = Shop::open();
    shop.publish(sale(5)).await;
    shop.store.hold();
    let change = || {
        let engine = shop.engine.clone();
        spawned(async move {
            engine
                .change_stock(&id("s1"), &id("a"), &id("t1"), 5, "more", who())
                .await
        })
    };
    assert_eq!(
        change().await.unwrap(),
        Err(flash_engine::AdminRefusal::Unknown)
    );
    let again = change();
    shop.pass(Duration::from_millis(50)).await;
    shop.store.release();
    assert_eq!(again.await.unwrap(), Ok(5));
    assert_eq!(shop.units(0), [0, 10, 0, 0], "once");
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn a_draft_is_not_replaced_behind_its_publishing() {
    let shop = Shop::open();
    let definition: SaleDefinition = serde_json::from_value(sale(5)).unwrap();
    shop.engine
        .put_draft(definition.clone(), false, who())
        .await
        .unwrap();
    shop.store.hold();
    let publish = {
        let engine = shop.engine.clone();
        spawned(async move {
            engine
                .command(&id("s1"), SaleCommand::Publish, who())
                .await
                .map(|_| ())
        })
    };
    assert_eq!(
        publish.await.unwrap(),
        Err(flash_engine::AdminRefusal::Unknown)
    );
    let replace = {
        let engine = shop.engine.clone();
        spawned(async move { engine.put_draft(definition, true, who()).await.map(|_| ()) })
    };
    shop.pass(Duration::from_millis(50)).await;
    shop.store.release();
    assert_eq!(
        replace.await.unwrap(),
        Err(flash_engine::AdminRefusal::Refused(CONFLICT))
    );
    shop.won("u1", "k1", &[("a", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_failed_does_not_stick() {
    let shop = Shop::open();
    shop.publish(sale(5)).await;
    shop.store
        .fail_next(MemoryFault::NotApplied(NotApplied::Unavailable(
            "busy".into(),
        )));
    shop.store.hold();
    let pause = {
        let engine = shop.engine.clone();
        spawned(async move {
            engine
                .command(&id("s1"), SaleCommand::Pause, who())
                .await
                .map(|_| ())
        })
    };
    // Its caller is gone before the store says no.
    assert_eq!(
        pause.await.unwrap(),
        Err(flash_engine::AdminRefusal::Unknown)
    );
    shop.store.release();
    shop.pass(Duration::from_secs(2)).await;
    shop.won("u1", "k1", &[("a", 1)]).await;
    shop.command(SaleCommand::Pause).await;
    assert_eq!(
        refusal(&shop.buy("u2", "k1", &[("a", 1)]).await),
        Refusal::SalePaused
    );
    shop.command(SaleCommand::Resume).await;
    shop.won("u2", "k1", &[("a", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn commands_on_a_sale_that_left_memory_do_not_overtake_each_other() {
    let config = EngineConfig {
        hash_key: HashKey(1, 2),
        retire_after: Duration::from_secs(1),
        ..EngineConfig::default()
    };
    let shop = Shop::with(MemoryStore::new(), config);
    shop.publish(sale(2)).await;
    let won = shop.won("u1", "k1", &[("a", 2)]).await;
    shop.confirm(won.reservation_id, "p1").await;
    shop.pass(Duration::from_secs(3_700)).await;
    let retired = shop.engine.sale(&id("s1")).unwrap();
    assert!(retired.is_retired());
    let mark = retired.events_mark();
    shop.store.hold();
    let refund = || {
        let engine = shop.engine.clone();
        let now = shop.now();
        let request = flash_engine::RefundRequest {
            refund_ref: None,
            restock: true,
            lines: None,
        };
        spawned(async move { engine.refund(won.reservation_id, &request, now).await })
    };
    assert!(matches!(refund().await.unwrap(), Outcome::Unknown(_)));
    let again = refund();
    shop.pass(Duration::from_millis(50)).await;
    shop.store.release();
    assert_eq!(
        stands(&again.await.unwrap()).state,
        ReservationState::Refunded
    );
    // Relays look at the entry that stayed: they would not read what happened since.
    assert!(retired.events_mark() > mark);
    shop.audited().await;
}
