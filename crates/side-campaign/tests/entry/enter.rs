//! Entries: every refusal in its order, a place that only who is in takes, many at once.

use std::sync::Arc;

use dev_servers::Databases;
use serde_json::json;
use side_books::SideError;
use side_campaign::entry::{self, Block, BlockList};
use side_campaign::life::Campaign;
use side_campaign::shop::Shop;
use side_campaign::state::State;

use crate::stand::{END, START, at, buyer, campaign, enter, enter_from, refused, run, shop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        states_are_told(&shop).await;
        checks_come_in_their_order(&shop).await;
        block_lists_know_buyers_addresses_and_devices(&shop).await;
        a_refused_or_repeated_entry_takes_no_place(&shop).await;
        many_at_once_take_the_places_that_there_are(&shop).await;
        a_buyer_at_once_from_everywhere_is_in_once(&shop).await;
    }
}

async fn count(shop: &Shop, campaign: &Campaign) -> i64 {
    let mut reads = shop.database.read().await.unwrap();
    entry::participants(&mut reads, &campaign.id).await.unwrap()
}

async fn states_are_told(shop: &Shop) {
    let mut campaign = campaign("states", json!({}));
    assert!(!enter(shop, &campaign, "in", at(7)).await.unwrap().was_in);
    for state in State::ALL {
        campaign.state = state;
        let expected = match state {
            State::Draft => Some((404, "not_found")),
            State::Published | State::Warmup => Some((425, "campaign_not_started")),
            State::Running => None,
            State::Paused => Some((423, "campaign_paused")),
            State::Ended
            | State::Settling
            | State::Settled
            | State::Archived
            | State::Cancelled => Some((410, "campaign_ended")),
        };
        let entered = enter(shop, &campaign, "late", at(9)).await;
        match expected {
            Some(expected) => assert_eq!(refused(entered), expected, "{state:?}"),
            None => assert!(entered.is_ok()),
        }
        run(
            shop,
            "DELETE FROM participant WHERE campaign = $1 AND buyer = $2 AND joined_at_ms > $3",
            &["states", "late"],
            at(7).0,
        )
        .await;
        // Who is in is told so, whatever the state.
        let again = enter(shop, &campaign, "in", END).await.unwrap();
        assert!(again.was_in && again.joined_at == at(7), "{state:?}");
    }
    campaign.state = State::Running;
    let early = enter(shop, &campaign, "x", at(-1)).await.unwrap_err();
    let SideError::Refused(problem) = early else {
        panic!("not refused");
    };
    assert_eq!(problem.outcome, "campaign_not_started");
    assert_eq!(problem.more["starts_at"], START.to_string());
    assert_eq!(
        refused(enter(shop, &campaign, "x", END).await),
        (410, "campaign_ended")
    );
    let last = flash_types::Timestamp(END.0 - 1);
    assert!(enter(shop, &campaign, "x", last).await.is_ok());
}

async fn checks_come_in_their_order(shop: &Shop) {
    let campaign = campaign(
        "order",
        json!({"eligibility": {
            "phone_verification": true,
            "new_buyers_only": true,
            "sign_up_task": "follow",
            "participants_max": 1,
        }}),
    );
    let block = Block {
        campaign: "order",
        list: BlockList::Buyers,
        stored: "anna",
        who: "m",
        reason: "",
    };
    let mut tx = shop.database.begin().await.unwrap();
    assert!(entry::block(&mut tx, &block, at(0)).await.unwrap());
    assert!(!entry::block(&mut tx, &block, at(0)).await.unwrap());
    tx.commit().await.unwrap();
    enter_full(shop, &campaign).await;
    let old = "INSERT INTO buyer_first_order (buyer, order_id, paid_at_ms) VALUES ($1, $2, $3)";
    run(shop, old, &["anna", "o1"], at(-1).0).await;
    let told = async || refused(enter(shop, &campaign, "anna", at(1)).await);
    assert_eq!(told().await, (403, "blocked"));
    let mut tx = shop.database.begin().await.unwrap();
    assert!(entry::unblock(&mut tx, &block, at(0)).await.unwrap());
    assert!(!entry::unblock(&mut tx, &block, at(0)).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(told().await, (403, "verification_required"));
    let phone = "INSERT INTO verified_phone (buyer, phone_hash, at_ms) VALUES ($1, $2, $3)";
    run(shop, phone, &["anna", "hash"], 1).await;
    assert_eq!(told().await, (403, "not_eligible"));
    // Bought first when the campaign had begun: that is what it is for.
    let moved = "UPDATE buyer_first_order SET order_id = $1 WHERE paid_at_ms < $2";
    run(shop, moved, &["o2"], 0).await;
    run(
        shop,
        "UPDATE buyer_first_order SET paid_at_ms = $2 WHERE buyer = $1",
        &["anna"],
        START.0,
    )
    .await;
    assert_eq!(told().await, (403, "task_required"));
    let mut tx = shop.database.begin().await.unwrap();
    let other = entry::sign_up(&mut tx, &campaign, buyer("anna"), "other", at(1)).await;
    assert_eq!(refused(other), (400, "malformed"));
    for (now, is_first) in [(at(1), true), (at(2), false)] {
        let done = entry::sign_up(&mut tx, &campaign, buyer("anna"), "follow", now).await;
        assert_eq!(done.unwrap(), (is_first, at(1)));
    }
    tx.commit().await.unwrap();
    assert_eq!(told().await, (409, "campaign_full"));
    assert_eq!(count(shop, &campaign).await, 1);
    let mut wider = campaign.clone();
    wider.definition.eligibility.participants_max = Some(2);
    let entered = enter(shop, &wider, "anna", at(3)).await.unwrap();
    assert!(entered.is_new_buyer && !entered.was_in && entered.verdict.is_none());
    assert!(enter(shop, &campaign, "anna", at(4)).await.unwrap().was_in);
    assert_eq!(count(shop, &campaign).await, 2);
}

/// Takes the only place, by a definition without conditions.
async fn enter_full(shop: &Shop, campaign: &Campaign) {
    let mut open = campaign.clone();
    open.definition.eligibility = Default::default();
    enter(shop, &open, "first", at(0)).await.unwrap();
}

async fn block_lists_know_buyers_addresses_and_devices(shop: &Shop) {
    let campaign = campaign("blocks", json!({}));
    let mut tx = shop.database.begin().await.unwrap();
    for (list, value) in [
        (BlockList::Addresses, "2001:db8::1"),
        (BlockList::Devices, "phone-1"),
    ] {
        let block = Block {
            campaign: "blocks",
            list,
            stored: &list.stored(&shop.sealer, value).unwrap(),
            who: "m",
            reason: "abuse",
        };
        assert!(!block.stored.contains(value));
        entry::block(&mut tx, &block, at(0)).await.unwrap();
    }
    tx.commit().await.unwrap();
    for (from, is_blocked) in [
        ((Some("2001:db8::2"), None), true),
        ((None, Some("phone-1")), true),
        ((Some("2001:db8:1::2"), Some("phone-2")), false),
    ] {
        let entered = enter_from(shop, &campaign, "b", from, at(1)).await;
        if is_blocked {
            assert_eq!(refused(entered), (403, "blocked"));
        } else {
            entered.unwrap();
        }
    }
    assert!(
        BlockList::Addresses
            .stored(&shop.sealer, "somewhere")
            .is_err()
    );
    assert!(BlockList::Buyers.stored(&shop.sealer, "a b").is_err());
}

async fn a_refused_or_repeated_entry_takes_no_place(shop: &Shop) {
    let full = campaign(
        "places",
        json!({"eligibility": {"participants_max": 2, "new_buyers_only": true}}),
    );
    let old = "INSERT INTO buyer_first_order (buyer, order_id, paid_at_ms) VALUES ($1, $2, $3)";
    run(shop, old, &["old", "o9"], at(-1).0).await;
    for _ in 0..3 {
        let early = enter(shop, &full, "early", at(-1)).await;
        assert_eq!(refused(early), (425, "campaign_not_started"));
        let old = enter(shop, &full, "old", at(1)).await;
        assert_eq!(refused(old), (403, "not_eligible"));
        enter(shop, &full, "a", at(1)).await.unwrap();
    }
    assert_eq!(count(shop, &full).await, 1);
    enter(shop, &full, "b", at(1)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(
            refused(enter(shop, &full, "c", at(1)).await),
            (409, "campaign_full")
        );
        assert!(enter(shop, &full, "b", at(1)).await.unwrap().was_in);
    }
    assert_eq!(count(shop, &full).await, 2);
}

async fn many_at_once_take_the_places_that_there_are(shop: &Arc<Shop>) {
    let campaign = campaign("rush", json!({"eligibility": {"participants_max": 7}}));
    let mut tasks = Vec::new();
    for number in 0..24 {
        let (shop, campaign) = (shop.clone(), campaign.clone());
        // Everyone twice.
        let name = format!("b{}", number / 2);
        tasks.push(tokio::spawn(async move {
            enter(&shop, &campaign, &name, at(1)).await
        }));
    }
    let (mut fresh, mut full) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(entered) => fresh += usize::from(!entered.was_in),
            Err(error) => {
                assert_eq!(refused::<()>(Err(error)), (409, "campaign_full"));
                full += 1;
            }
        }
    }
    assert_eq!((fresh, full), (7, 10));
    assert_eq!(count(shop, &campaign).await, 7);
}

async fn a_buyer_at_once_from_everywhere_is_in_once(shop: &Arc<Shop>) {
    let campaign = campaign("once", json!({"eligibility": {"participants_max": 1}}));
    let mut tasks = Vec::new();
    for _ in 0..12 {
        let (shop, campaign) = (shop.clone(), campaign.clone());
        tasks.push(tokio::spawn(async move {
            enter(&shop, &campaign, "b", at(1)).await.unwrap().was_in
        }));
    }
    let mut fresh = 0;
    for task in tasks {
        fresh += usize::from(!task.await.unwrap());
    }
    assert_eq!(fresh, 1);
    assert_eq!(count(shop, &campaign).await, 1);
}
