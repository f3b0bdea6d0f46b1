//! The outbox: at least once, once where nothing fails, in spite of two deliverers; back-off; an end.

use std::collections::BTreeSet;
use std::sync::Arc;

use dev_servers::Databases;
use side_books::step::Step as _;
use side_campaign::notices::{Notice, Recipient, withdraw};

use crate::world::{Mode, T0, World, after, to_buyer};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_outbox_on_both_databases() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        once_by_two_deliverers(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        again_after_a_crash(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        back_off_and_end(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        oldest_first_and_withdrawn_never(&World::open(&url).await).await;
    }
}

async fn once_by_two_deliverers(world: &World) {
    for number in 0..100 {
        let key = format!("k{number}");
        let notice = to_buyer(&key, "reward", "b1", T0);
        world.send(&notice, T0).await;
        world.send(&notice, T0).await;
    }
    let deliverers: Vec<_> = (0..4).map(|_| Arc::new(world.other())).collect();
    let running = deliverers.into_iter().map(|deliverer| {
        tokio::spawn(async move {
            // Where another is in the way, a worker tries again.
            while deliverer.step(T0).await.unwrap_or(true) {}
        })
    });
    for task in running.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let taken = world.channel.taken.lock().clone();
    let ids: BTreeSet<_> = taken.iter().map(|notice| notice.id.clone()).collect();
    assert_eq!((taken.len(), ids.len()), (100, 100), "{}", world.url);
    let sent =
        "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice WHERE state = 'SENT' AND attempts = 1";
    assert_eq!(world.number(sent).await, 100);
}

async fn again_after_a_crash(world: &World) {
    world.send(&to_buyer("k1", "reward", "b1", T0), T0).await;
    *world.channel.mode.lock() = Mode::Silence;
    let deliverer = world.other();
    tokio::select! {
        _ = deliverer.step(T0) => panic!("it hears nothing and yet ends"),
        () = world.channel.took.notified() => {}
    }
    // The process is gone; the receiver has it, the outbox does not know.
    *world.channel.mode.lock() = Mode::Take;
    world.run(after(59)).await;
    assert_eq!(world.channel.taken.lock().len(), 1, "the lease holds");
    world.run(after(60)).await;
    let taken = world.channel.taken.lock().clone();
    assert_eq!(taken.len(), 2, "{}", world.url);
    assert_eq!(taken[0].id, taken[1].id);
    world.run(after(10_000)).await;
    assert_eq!(world.channel.taken.lock().len(), 2);
}

async fn back_off_and_end(world: &World) {
    *world.channel.mode.lock() = Mode::Refuse;
    let secret = Notice {
        to: Recipient::Phone("+8613800138000".into()),
        ..to_buyer("k1", "reward", "", T0)
    };
    world.send(&secret, T0).await;
    let due = "SELECT next_attempt_ms AS n FROM notice";
    let waiting = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice WHERE state = 'WAITING'";
    let mut tried_at = Vec::new();
    while world.number(waiting).await == 1 {
        let next = flash_types::Timestamp(world.number(due).await);
        let tries = *world.channel.tries.lock();
        world.run(flash_types::Timestamp(next.0 - 1)).await;
        assert_eq!(*world.channel.tries.lock(), tries, "not before its time");
        world.run(next).await;
        assert_eq!(*world.channel.tries.lock(), tries + 1);
        tried_at.push((next.0 - T0.0) / 1_000);
    }
    assert_eq!(tried_at[..4], [0, 5, 20, 65]);
    let last = *tried_at.last().unwrap();
    assert!((22 * 3_600..24 * 3_600).contains(&last), "{tried_at:?}");
    let ended = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice WHERE state = 'GIVEN_UP' AND sealed IS NULL";
    assert_eq!(world.number(ended).await, 1, "{}", world.url);
}

async fn oldest_first_and_withdrawn_never(world: &World) {
    for number in (0..40).rev() {
        let (key, to) = (format!("k{number}"), format!("b{number}"));
        let notice = to_buyer(&key, "reward", &to, after(number));
        world.send(&notice, T0).await;
    }
    let mut tx = world.shop.database.begin().await.unwrap();
    withdraw(&mut tx, "k3").await.unwrap();
    tx.commit().await.unwrap();
    world.other().step(after(38)).await.unwrap();
    let first: BTreeSet<_> = world.taken().into_iter().collect();
    let expected = (0..33).filter(|number| *number != 3);
    let expected: BTreeSet<_> = expected.map(|number| format!("reward b{number}")).collect();
    assert_eq!(first, expected, "{}", world.url);
    world.run(after(38)).await;
    assert_eq!(world.taken().len(), 6, "all that is due, but not k39");
    let mut tx = world.shop.database.begin().await.unwrap();
    withdraw(&mut tx, "k0").await.unwrap();
    tx.commit().await.unwrap();
    let withdrawn = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice WHERE state = 'WITHDRAWN'";
    assert_eq!(world.number(withdrawn).await, 1, "what was sent stays sent");
}
