//! Codes: five looks, five minutes, one number for one buyer, nothing to be read in the database.

use std::sync::Arc;
use std::time::Duration;

use dev_servers::Databases;
use flash_types::Timestamp;
use flash_types::side::{SideAnswer, SideCaller, SideProblem};
use serde_json::json;
use side_campaign::notices::verified_phone;

use crate::world::{T0, World, after, buyer, json as read};

const PHONE: &str = "13800138000";

async fn ask(
    world: &World,
    who: &str,
    phone: &str,
    now: Timestamp,
) -> Result<SideAnswer, SideProblem> {
    let (caller, body) = (SideCaller::Buyer(buyer(who)), json!({"phone": phone}));
    world
        .call("POST", "/v1/verifications", "", caller, &body, now)
        .await
}

async fn confirm(
    world: &World,
    who: &str,
    id: &str,
    code: &str,
    now: Timestamp,
) -> Result<SideAnswer, SideProblem> {
    let path = "/v1/verifications/{verification}/confirm";
    let (caller, body) = (SideCaller::Buyer(buyer(who)), json!({"code": code}));
    world.call("POST", path, id, caller, &body, now).await
}

/// Asks, and reads id and code.
async fn asked(world: &World, who: &str, phone: &str, now: Timestamp) -> (String, String) {
    let answer = ask(world, who, phone, now).await.unwrap();
    assert_eq!(answer.status, 202);
    world.run(now).await;
    let told = world.channel.taken.lock().pop().unwrap();
    let id = read(&answer)["verification_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let code = told.code.unwrap();
    assert!(told.text.contains(&code));
    (id, code)
}

fn other(code: &str) -> String {
    let number: u32 = code.parse().unwrap();
    format!("{:06}", (number + 1) % 1_000_000)
}

fn outcome(answer: &Result<SideAnswer, SideProblem>) -> &'static str {
    answer
        .as_ref()
        .map_or_else(|problem| problem.outcome, |_| "ok")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn codes_on_both_databases() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        one_number_one_buyer(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        five_looks(&Arc::new(World::open(&url).await)).await;
    }
    for url in servers.urls().unwrap() {
        five_minutes(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        limits(&Arc::new(World::open(&url).await)).await;
    }
}

async fn one_number_one_buyer(world: &World) {
    let waiting = ask(world, "b1", PHONE, T0).await.unwrap();
    let id = read(&waiting)["verification_id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        read(&waiting)["expires_at"],
        json!(after(300).text().as_str())
    );
    let unsent = world.everything().await;
    world.run(T0).await;
    let told = world.channel.taken.lock().pop().unwrap();
    assert_eq!(
        (told.kind.as_str(), told.to.as_str()),
        ("verification", "+8613800138000")
    );
    let code = told.code.unwrap();
    // Neither while it waits nor after it was sent: no number, no code.
    for all in [unsent, world.everything().await] {
        assert!(all.contains(&id), "the look finds what is there");
        assert!(
            !all.contains("13800138000") && !all.contains(&format!("is {code}")),
            "{}",
            world.url
        );
    }
    let sealed = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice WHERE sealed IS NOT NULL";
    assert_eq!(world.number(sealed).await, 0);

    let wrong = confirm(world, "b1", &id, &other(&code), after(1))
        .await
        .unwrap_err();
    assert_eq!(
        (wrong.outcome, &wrong.more["tries_left"]),
        ("code_wrong", &json!(4))
    );
    let strange = confirm(world, "b2", &id, &code, after(1)).await;
    assert_eq!(outcome(&strange), "not_found", "another buyer's");
    let odd = confirm(world, "b1", &id, "12345", after(1)).await;
    assert_eq!(outcome(&odd), "malformed");
    let yes = confirm(world, "b1", &id, &code, after(2)).await.unwrap();
    assert_eq!(read(&yes), json!({"verified_at": after(2).text().as_str()}));
    assert_eq!(
        confirm(world, "b1", &id, &code, after(900)).await.unwrap(),
        yes
    );
    let mut reader = world.shop.database.read().await.unwrap();
    let (hash, at_ms) = verified_phone(&mut reader, &buyer("b1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((hash.len(), at_ms), (64, after(2).0));
    assert_eq!(
        verified_phone(&mut reader, &buyer("b2")).await.unwrap(),
        None
    );

    // The number in another form, by another buyer: told only with the right code.
    let (id, code) = asked(world, "b2", "+86 138-0013-8000", after(100)).await;
    let wrong = confirm(world, "b2", &id, &other(&code), after(101)).await;
    assert_eq!(outcome(&wrong), "code_wrong");
    for _ in 0..2 {
        let taken = confirm(world, "b2", &id, &code, after(102)).await;
        assert_eq!(outcome(&taken), "phone_in_use");
    }
    assert_eq!(
        verified_phone(&mut reader, &buyer("b2")).await.unwrap(),
        None
    );

    // Another number takes the place of the first, which is free then; a newer code ends the older one.
    let (old, old_code) = asked(world, "b1", "13900139000", after(200)).await;
    let (id, code) = asked(world, "b1", "13900139000", after(270)).await;
    let superseded = confirm(world, "b1", &old, &old_code, after(271)).await;
    assert_eq!(outcome(&superseded), "code_expired");
    confirm(world, "b1", &id, &code, after(272)).await.unwrap();
    let now = verified_phone(&mut reader, &buyer("b1"))
        .await
        .unwrap()
        .unwrap();
    assert_ne!(now.0, hash);
    let (id, code) = asked(world, "b3", PHONE, after(300)).await;
    confirm(world, "b3", &id, &code, after(301)).await.unwrap();
    let now = verified_phone(&mut reader, &buyer("b3"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now.0, hash, "{}", world.url);
}

async fn five_looks(world: &Arc<World>) {
    let (id, code) = asked(world, "b1", PHONE, T0).await;
    let guesses = (1..=100).map(|step| {
        let (world, id) = (Arc::clone(world), id.clone());
        let guess = (code.parse::<u32>().unwrap() + step) % 1_000_000;
        tokio::spawn(async move {
            let guess = format!("{guess:06}");
            outcome(&confirm(&world, "b1", &id, &guess, after(1)).await)
        })
    });
    let mut looks = 0;
    for guess in guesses.collect::<Vec<_>>() {
        match guess.await.unwrap() {
            "code_wrong" => looks += 1,
            other => assert_eq!(other, "too_many_tries"),
        }
    }
    assert_eq!(looks, 5, "{}", world.url);
    let right = confirm(world, "b1", &id, &code, after(2)).await;
    assert_eq!(outcome(&right), "too_many_tries");
    let (id, code) = asked(world, "b1", PHONE, after(60)).await;
    confirm(world, "b1", &id, &code, after(61)).await.unwrap();
}

async fn five_minutes(world: &World) {
    let (id, code) = asked(world, "b1", PHONE, T0).await;
    let late = confirm(world, "b1", &id, &code, after(300)).await;
    assert_eq!(outcome(&late), "code_expired");
    // One that could not be sent in its time is not sent any more, and leaves nothing behind.
    ask(world, "b2", "13900139000", T0).await.unwrap();
    world.run(after(300)).await;
    assert!(world.channel.taken.lock().is_empty(), "{}", world.url);
    let ended = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice WHERE state = 'GIVEN_UP' AND sealed IS NULL";
    assert_eq!(world.number(ended).await, 1);
    // Still good a moment before.
    let (id, code) = asked(world, "b3", "13700137000", T0).await;
    let before = Timestamp(after(300).0 - 1);
    confirm(world, "b3", &id, &code, before).await.unwrap();
}

async fn limits(world: &Arc<World>) {
    let malformed = ask(world, "b1", "12", T0).await;
    assert_eq!(outcome(&malformed), "malformed");
    let asks = (0..8).map(|_| {
        let world = Arc::clone(world);
        tokio::spawn(async move { outcome(&ask(&world, "b1", PHONE, T0).await) })
    });
    let mut sent = 0;
    for ask in asks.collect::<Vec<_>>() {
        sent += u32::from(ask.await.unwrap() == "ok");
    }
    assert_eq!(sent, 1, "{}", world.url);
    let refused = ask(world, "b1", "13900139000", after(20))
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.outcome), (429, "rate_limited"));
    assert_eq!(
        refused.retry_after,
        Some(Duration::from_secs(40)),
        "per buyer"
    );
    // Nobody keeps the owner of a number out alone; three together in a minute do.
    for other in ["c1", "c2"] {
        ask(world, other, PHONE, after(20)).await.unwrap();
    }
    let refused = ask(world, "b2", PHONE, after(20)).await.unwrap_err();
    assert_eq!(
        refused.retry_after,
        Some(Duration::from_secs(40)),
        "per number"
    );
    // A refused one counted nowhere: b2 may ask with another number at once.
    ask(world, "b2", "13700137000", after(20)).await.unwrap();
    for minute in 1..5 {
        ask(world, "b1", PHONE, after(60 * minute)).await.unwrap();
    }
    let refused = ask(world, "b1", PHONE, after(300)).await.unwrap_err();
    assert_eq!(
        refused.retry_after,
        Some(Duration::from_secs(3_300)),
        "per hour"
    );
    for count in 0..5 {
        ask(world, "b1", PHONE, after(3_600 + 60 * count))
            .await
            .unwrap();
    }
    let refused = ask(world, "b1", PHONE, after(8_000)).await.unwrap_err();
    assert_eq!(
        refused.retry_after,
        Some(Duration::from_secs(86_400 - 8_000)),
        "per day"
    );
    // One address, many buyers and numbers: ten a minute.
    for count in 0..10 {
        let (who, phone) = (format!("a{count}"), format!("1360013600{count}"));
        ask(world, &who, &phone, after(9_000)).await.unwrap();
    }
    let refused = ask(world, "a10", "13600136010", after(9_001))
        .await
        .unwrap_err();
    assert_eq!(
        refused.retry_after,
        Some(Duration::from_secs(59)),
        "per address"
    );
}
