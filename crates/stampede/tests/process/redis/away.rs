//! A Redis that goes and comes back, or stands still for a while: nothing acknowledged is lost, nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crowd::check::look_at_unknowns;
use crowd::{Progress, SaleParams, run_sale};
use nix::sys::signal::Signal;

use super::*;

/// What a purchase is told of which nothing was reserved, while the store is away.
const REFUSED: [Told; 2] = [Told::No("store_unavailable"), Told::No("overloaded")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_and_restarted_it_has_lost_nothing() {
    let mut shop = shop_of(1_000_000).await;
    for round in 0..2 {
        let (from, yes) = (shop.log.len(), shop.count(Told::Yes));
        let refused: usize = REFUSED.iter().map(|told| shop.count(*told)).sum();
        let (generation, events) = (shop.meta("gen"), shop.meta("ev"));
        let buyers = Buyers::start(&shop, 8, "a", round);
        buyers.work(&shop, yes + 100, 6).await;
        shop.rig.redis_mut().kill().unwrap();
        shop.until_not_ready("redis.sock").await;
        shop.until_told(&REFUSED, refused + 1).await;
        let yes = shop.count(Told::Yes);
        shop.rig.redis_mut().restart().unwrap();
        buyers.work(&shop, yes + 100, 0).await;
        shop.until_ready().await;
        buyers.stop().await;
        assert!(shop.meta("gen") > generation && shop.meta("ev") > events);
        let unknown = look_at_unknowns(&mut shop.api(), &shop.log, from).await;
        let (done, not_done) = unknown.unwrap();
        // Whatever was with it was sent again until it was done.
        assert!(!done.is_empty(), "nothing was in flight");
        assert!(not_done.is_empty(), "{not_done:#?}");
        shop.assert_books().await;
    }
    // And the engine after it: the new home is no news any more.
    let generation = shop.meta("gen");
    shop.server.kill().unwrap();
    shop.restart();
    shop.wins("after").await;
    assert_eq!(shop.meta("gen"), generation);
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_for_longer_than_any_time_out_it_does_nothing_twice() {
    let shop = shop_of(1_000_000).await;
    let buyers = Buyers::start(&shop, 8, "a", 1);
    buyers.work(&shop, 100, 6).await;
    shop.rig.redis().freeze().unwrap();
    // Past the deadline nobody knows, and whoever comes later is told that nothing was reserved.
    shop.until_told(&[Told::Unknown], 9).await;
    shop.until_told(&REFUSED, 1).await;
    shop.until_not_ready("asking again").await;
    shop.until_measured("stampede_store_up", 0.0).await;
    let yes = shop.count(Told::Yes);
    shop.rig.redis().thaw().unwrap();
    buyers.work(&shop, yes + 100, 0).await;
    shop.until_ready().await;
    shop.until_measured("stampede_store_up", 1.0).await;
    buyers.stop().await;
    let unknown = look_at_unknowns(&mut shop.api(), &shop.log, 0).await;
    let (done, _) = unknown.unwrap();
    assert!(!done.is_empty(), "what it had received was done");
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_for_its_clients_it_does_nothing_twice() {
    let shop = shop_of(1_000_000).await;
    let buyers = Buyers::start(&shop, 8, "a", 1);
    buyers.work(&shop, 100, 6).await;
    for (number, what) in ["WRITE", "ALL"].into_iter().enumerate() {
        let yes = shop.count(Told::Yes);
        let pause = ["CLIENT", "PAUSE", "1000", what];
        shop.rig.redis().command(&pause).unwrap();
        shop.until_not_ready("asking again").await;
        buyers.work(&shop, yes + 100, 0).await;
        shop.until_ready().await;
        let log = shop.server.log();
        let times = log.matches("Redis does not answer").count();
        assert!(times > number, "the fault did not fire\n{log}");
    }
    buyers.stop().await;
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_with_much_to_load_it_is_waited_for() {
    let mut shop = shop_of(1_000).await;
    shop.wins("k").await;
    let mut redis = shop.rig.take_redis();
    // Keys of somebody else, all of them in the snapshot with which its file begins.
    let fill = "for i = 1, 300 do redis.call('SET', 'pad:' .. i, string.rep('x', 100)) end";
    redis.command(&["EVAL", fill, "0"]).unwrap();
    redis.command(&["BGREWRITEAOF"]).unwrap();
    let is_written = poll_until_async(BOUND, LOOK, async || {
        let info = redis.command(&["INFO", "persistence"]).unwrap();
        let is_done = info.contains("aof_rewrite_in_progress:0")
            && info.contains("aof_rewrite_scheduled:0")
            && info.contains("aof_last_bgrewrite_status:ok");
        is_done.then_some(())
    });
    assert!(is_written.await.is_some(), "{}", redis.log());
    redis.kill().unwrap();
    // Over each key of the snapshot it takes 8 ms, and answers in between.
    let restarted = tokio::task::spawn_blocking(move || {
        let restarted = redis.restart_with(|options| {
            let slow = [
                ("key-load-delay", "8000"),
                ("loading-process-events-interval-bytes", "1024"),
            ];
            let slow = slow.map(|(name, value)| (name.to_owned(), value.to_owned()));
            options.extra.extend(slow);
        });
        restarted.map(|()| redis)
    });
    let first = shop.buy(&mut shop.client(), "u", "new", "a").await.unwrap();
    assert!([503, 504].contains(&first.status), "{}", first.outcome());
    shop.until_not_ready("loading").await;
    shop.rig.put_redis(restarted.await.unwrap().unwrap());
    shop.until_ready().await;
    let again = shop.buy(&mut shop.client(), "u", "new", "a").await.unwrap();
    let told = if first.status == 504 {
        "replayed"
    } else {
        "reserved"
    };
    assert_eq!(again.outcome(), told);
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_sale_goes_through_its_restarts() {
    let mut shop = Shop::start(quick(Rig::on_redis()));
    let params = SaleParams {
        opens_in: Duration::from_millis(300),
        rush: Duration::from_secs(2),
        payment_window: Duration::from_secs(1),
        connections: 16,
        ..SaleParams::new(shop.addresses(), shop.keys.clone(), 1_200, 300)
    };
    let progress = Arc::new(Progress::default());
    let (shared, log) = (Arc::clone(&progress), Arc::clone(&shop.log));
    let running = tokio::spawn(async move { run_sale(params, shared, log).await });
    for paid in [20, 100, 180] {
        let is_so_far = poll_until_async(BOUND, LOOK, async || {
            // Relaxed: a count to look at.
            (progress.paid.load(Ordering::Relaxed) >= paid).then_some(())
        });
        assert!(is_so_far.await.is_some(), "{progress:?}");
        shop.rig.redis_mut().kill().unwrap();
        shop.until_not_ready("redis.sock").await;
        shop.rig.redis_mut().restart().unwrap();
    }
    let summary = running.await.unwrap().unwrap();
    assert!(summary.audit_ok, "{summary:?}");
    assert_eq!(
        (summary.sold_units, summary.reserved_units),
        (300, 0),
        "{summary:?}"
    );
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_while_it_is_away_the_process_ends_in_time() {
    let rig = quick(Rig::on_redis()).environment("STAMPEDE_PUBLIC_DRAIN_DEADLINE_MS", "1500");
    let mut shop = Shop::open(rig, &[("a", 1_000)]).await;
    // With something on its way that nobody knows of.
    let buyers = Buyers::start(&shop, 8, "a", 1);
    buyers.work(&shop, 100, 6).await;
    shop.rig.redis().freeze().unwrap();
    shop.until_told(&[Told::Unknown], 9).await;
    shop.server.signal(Signal::SIGTERM).unwrap();
    let ended = shop.server.wait_for_end(BOUND).unwrap();
    buyers.stop().await;
    let log = shop.server.log();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(
        log.contains("the store did not answer by the drain deadline"),
        "{log}"
    );
    shop.rig.redis().thaw().unwrap();
    shop.restart();
    let unknown = look_at_unknowns(&mut shop.api(), &shop.log, 0).await;
    let (done, not_done) = unknown.unwrap();
    assert!(done.len() + not_done.len() > 0);
    shop.assert_books().await;
    // With nothing on its way.
    shop.rig.redis_mut().kill().unwrap();
    assert!(
        shop.server.stop(BOUND).unwrap().success(),
        "{}",
        shop.server.log()
    );
    shop.rig.redis_mut().restart().unwrap();
    shop.restart();
    shop.wins("after").await;
    shop.assert_books().await;
}
