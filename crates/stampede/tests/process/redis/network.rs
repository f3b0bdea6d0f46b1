//! The way to Redis: slow, half open, cut within a request or a reply. What was applied is applied once.

use std::net::{Ipv4Addr, SocketAddr};

use crowd::check::look_at_unknowns;
use dev_faultproxy::{Fault, FaultProxy, Upstream};
use dev_servers::RedisServer;

use super::*;

/// An open sale on a Redis that is reached by TCP, through a proxy.
async fn shop_behind_a_proxy() -> (Shop, FaultProxy) {
    let redis = RedisServer::start(RedisOptions::default().tcp()).unwrap();
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port().unwrap()));
    let proxy = FaultProxy::start(Upstream::Tcp(upstream)).unwrap();
    let url = format!("redis://{}/0", proxy.addr());
    let shop = Shop::open(quick(Rig::at(redis, &url)), &[("a", 1_000_000)]).await;
    (shop, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_link_is_left_for_a_new_one() {
    let (shop, proxy) = shop_behind_a_proxy().await;
    for number in 0..3 {
        let fired = proxy.fired_by(Fault::HalfOpen);
        proxy.half_open();
        // Within the deadline: one time-out, then a new connection.
        shop.wins(&format!("k{number}")).await;
        assert!(
            proxy.fired_by(Fault::HalfOpen) > fired,
            "the fault did not fire"
        );
        shop.until_ready().await;
    }
    let buyers = Buyers::start(&shop, 8, "a", 1);
    buyers.work(&shop, 100, 6).await;
    proxy.half_open();
    let yes = shop.count(Told::Yes);
    buyers.work(&shop, yes + 100, 0).await;
    buyers.stop().await;
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_after_the_batch_was_applied_is_asked_for_again() {
    let (shop, proxy) = shop_behind_a_proxy().await;
    shop.wins("first").await;
    for bytes in [0, 1, 10, 20] {
        let (cuts, reserved) = (proxy.fired_by(Fault::CutReplies), shop.meta("n_resv"));
        proxy.cut_replies_after(bytes);
        shop.wins(&format!("k{bytes}")).await;
        let has_fired = proxy.fired_by(Fault::CutReplies) > cuts;
        assert!(has_fired, "{bytes}: the fault did not fire");
        assert_eq!(shop.meta("n_resv"), reserved + 1, "{bytes}: applied once");
    }
    // Replies vanish without a cut: nobody knows at the deadline, though it is done.
    proxy.drop_replies(true);
    shop.until_answered("dropped", "unknown").await;
    let reserved = shop.meta("n_resv");
    proxy.drop_replies(false);
    shop.until_answered("dropped", "replayed").await;
    assert_eq!(shop.meta("n_resv"), reserved, "it was done before");
    assert!(proxy.fired_by(Fault::DropReplies) > 0);
    let buyers = Buyers::start(&shop, 8, "a", 1);
    for _ in 0..5 {
        let yes = shop.count(Told::Yes);
        buyers.work(&shop, yes + 20, 0).await;
        proxy.cut_replies_after(17);
    }
    buyers.stop().await;
    look_at_unknowns(&mut shop.api(), &shop.log, 0)
        .await
        .unwrap();
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_cut_on_its_way_is_sent_again() {
    let (shop, proxy) = shop_behind_a_proxy().await;
    shop.wins("first").await;
    for bytes in [0, 1, 100, 200] {
        let (cuts, reserved) = (proxy.fired_by(Fault::CutRequests), shop.meta("n_resv"));
        proxy.cut_requests_after(bytes);
        shop.wins(&format!("k{bytes}")).await;
        let has_fired = proxy.fired_by(Fault::CutRequests) > cuts;
        assert!(has_fired, "{bytes}: the fault did not fire");
        assert_eq!(shop.meta("n_resv"), reserved + 1, "{bytes}: applied once");
    }
    let buyers = Buyers::start(&shop, 8, "a", 1);
    for _ in 0..5 {
        let (yes, resets) = (shop.count(Told::Yes), proxy.fired_by(Fault::Reset));
        buyers.work(&shop, yes + 20, 0).await;
        proxy.reset_all();
        assert!(proxy.fired_by(Fault::Reset) > resets);
    }
    buyers.stop().await;
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_makes_batches_grow_and_one_too_slow_is_waited_out() {
    let (shop, proxy) = shop_behind_a_proxy().await;
    let jobs = async || {
        let sum = shop.metric("stampede_commit_batch_jobs_sum").await;
        (sum, shop.metric("stampede_commit_batch_jobs_count").await)
    };
    proxy.set_delay(Duration::from_millis(20));
    let buyers = Buyers::start(&shop, 32, "a", 1);
    buyers.work(&shop, 100, 24).await;
    let before = jobs().await;
    buyers.work(&shop, 600, 0).await;
    let after = jobs().await;
    let per_batch = (after.0 - before.0) / (after.1 - before.1);
    assert!(per_batch > 8.0, "{per_batch} jobs in a batch");
    // Slower than the time-out: no answer is ever in time.
    proxy.set_delay(TIMEOUT);
    shop.until_told(&[Told::Unknown], 33).await;
    let yes = shop.count(Told::Yes);
    proxy.set_delay(Duration::ZERO);
    buyers.work(&shop, yes + 100, 0).await;
    buyers.stop().await;
    assert!(proxy.fired_by(Fault::Delay) > 0);
    shop.until_ready().await;
    look_at_unknowns(&mut shop.api(), &shop.log, 0)
        .await
        .unwrap();
    shop.assert_books().await;
}
