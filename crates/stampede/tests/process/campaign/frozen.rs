//! A PostgreSQL that stands still while buyers buy and join: sales go on, and afterwards each key has one result.

use super::*;

const UNITS: u32 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_answered_comes_about_once_and_the_events_follow() {
    let books = Books::postgres();
    let Books::Postgres(server, _) = &books else {
        unreachable!("it is one")
    };
    let rig = books.rig();
    let rig = rig.environment("STAMPEDE_CAMPAIGNS_DEADLINE_MS", "1000");
    let shop = Shop::open(rig, &[("a", UNITS)]).await;
    shop.publish_campaign(&campaign("c", 100)).await;
    told(&shop.public(shop.join("c", "first", "j")).await, 201);
    server.freeze().unwrap();
    let joins = (0..20).map(async |number| {
        let joined = shop.join("c", &format!("b{number}"), "j");
        shop.public(joined).await.status
    });
    let purchases = (0..UNITS).map(|number| {
        let shop = &shop;
        async move {
            shop.buy_and_pay(&format!("b{number}"), &format!("k{number}"))
                .await
        }
    });
    let (joined, orders) = tokio::join!(
        futures_util::future::join_all(joins),
        futures_util::future::join_all(purchases),
    );
    assert!(
        joined.iter().all(|status| [503, 504].contains(status)),
        "{joined:?}"
    );
    let late = shop
        .buy(&mut shop.client(), "late", "late", "a")
        .await
        .unwrap();
    assert_eq!(late.outcome(), "sold_out");

    server.thaw().unwrap();
    shop.campaigns_are_up().await;
    for number in 0..20 {
        for round in 0..2 {
            let joined = shop
                .public(shop.join("c", &format!("b{number}"), "j"))
                .await;
            let joined_body = told(&joined, joined.status);
            assert!([200, 201].contains(&joined.status), "{joined_body}");
            assert!(round == 0 || joined.is_replay());
        }
    }
    assert_eq!(shop.budget("c").await.1, 21 * 500 + 2_000);
    let coupons = shop.read("/v1/admin/campaigns/c/coupons?limit=200").await;
    assert_eq!(coupons["items"].as_array().unwrap().len(), 21);
    for (number, order) in orders.iter().enumerate() {
        shop.until_order(order).await;
        let target = format!("/v1/orders?buyer=b{number}");
        let request = Request::get(&target).bearer(&shop.keys.storefront_key);
        let found = told(&shop.public(request.bare()).await, 200);
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    }
    books.assert_proved(&shop).await;
    shop.assert_books().await;
}
