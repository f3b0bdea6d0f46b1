//! A sale that left memory: what was told of it is told for as long as it is kept, and money goes back.

use crowd::api;
use crowd::client::Request;
use crowd::log::now_ms;
use crowd::wait::poll_until_async;
use flash_types::Timestamp;
use serde_json::json;

use crate::rig::*;

on_both_stores!(a_sale_that_left_memory_is_read_replayed_and_refunded);

fn pays(shop: &Shop, reservation: &str, payment_ref: &str) -> Request {
    api::confirm(reservation, &shop.keys.storefront_key, payment_ref)
}

async fn a_sale_that_left_memory_is_read_replayed_and_refunded(rig: Rig) {
    let rig = rig.environment("STAMPEDE_ENGINE_RETIRE_AFTER_S", "0");
    let mut shop = Shop::start(rig);
    let mut plan = sale(&[("a", 10)]);
    plan["ends_at"] = json!(Timestamp(i64::try_from(now_ms()).unwrap() + 1_000));
    shop.api().publish(&plan).await.unwrap();
    let mut won = Vec::new();
    for key in ["paid", "given-up", "refunded"] {
        let answer = shop.buy(&mut shop.client(), "u", key, "a").await.unwrap();
        assert_eq!(answer.status, 201);
        won.push(answer.text_field("reservation_id").unwrap().to_owned());
    }
    let cancel = api::cancel(&won[1], &shop.keys.storefront_key);
    for command in [
        pays(&shop, &won[0], &won[0]),
        cancel,
        pays(&shop, &won[2], &won[2]),
    ] {
        assert_eq!(shop.client().send(&command).await.unwrap().status, 200);
    }
    let sold = "stampede_item_units{sale=\"s1\",item=\"a\",state=\"sold\"}";
    assert_eq!(shop.metric(sold).await, 2.0);
    // Figures are shown of what is in memory.
    let has_left = poll_until_async(BOUND, LOOK, async || {
        (shop.metric(sold).await == 0.0).then_some(())
    });
    assert!(has_left.await.is_some(), "{}", shop.server.log());
    for is_restarted in [false, true] {
        if is_restarted {
            shop.server.kill().unwrap();
            shop.restart();
        }
        let states = [
            "confirmed",
            "released",
            if is_restarted {
                "refunded"
            } else {
                "confirmed"
            },
        ];
        let mut api = shop.api();
        for (at, key) in ["paid", "given-up", "refunded"].into_iter().enumerate() {
            let by_id = api.reservation(&won[at]).await.unwrap().unwrap();
            assert_eq!(by_id.state, states[at], "{key}");
            let by_key = api.reservation_by_key(SALE, "u", key).await.unwrap();
            assert_eq!(by_key.unwrap(), by_id);
            let again = shop.client().send(&shop.purchase("u", key, "a")).await;
            assert_eq!(again.unwrap().outcome(), "replayed", "{key}");
        }
        let listed = api.reservations(SALE).await.unwrap();
        let names: Vec<_> = listed.iter().map(|one| &one.reservation_id).collect();
        assert_eq!(names, won.iter().collect::<Vec<_>>());
        let late = shop.buy(&mut shop.client(), "u", "late", "a").await;
        assert_eq!(late.unwrap().outcome(), "sale_ended");
        // The same payment again, and another one.
        let paid = shop.client().send(&pays(&shop, &won[0], &won[0])).await;
        assert_eq!(paid.unwrap().status, 200);
        let other = shop.client().send(&pays(&shop, &won[0], "other")).await;
        assert!(other.unwrap().field_is("refund_due", "true"));
        let refund = Request::post(&format!("/v1/reservations/{}/refund", won[2]))
            .bearer(&shop.keys.storefront_key)
            .json(r#"{"refund_ref":"f","restock":true}"#);
        let refunded = shop.client().send(&refund).await.unwrap();
        assert_eq!(refunded.text_field("state"), Some("refunded"));
        assert!(shop.api().audit(SALE).await.unwrap().ok);
    }
    shop.assert_books().await;
}
