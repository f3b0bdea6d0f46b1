//! A campaign from its file to the last prize, on both databases.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_it_goes_from_the_file_to_the_last_prize() {
    from_the_file_to_the_last_prize(&Books::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_it_goes_from_the_file_to_the_last_prize() {
    from_the_file_to_the_last_prize(&Books::postgres()).await;
}

const PHONE: &str = "+8613800138000";
const STREET: &str = "77 Nightingale Street, Wuhan";

async fn from_the_file_to_the_last_prize(books: &Books) {
    let shop = Shop::open(books.rig(), &[("a", 100)]).await;
    shop.campaigns_are_up().await;
    the_example(&shop).await;
    solvency(&shop);
    refusals(&shop).await;
    a_task_a_number_and_a_place(&shop).await;
    let order = coupons_and_an_order(&shop).await;
    the_end(&shop, books).await;
    what_is_told_of_it(&shop, &order).await;
    every_path_answers(&shop).await;
    books.assert_proved(&shop).await;
    shop.assert_books().await;
}

async fn the_example(shop: &Shop) {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../config/examples/giveaway.toml"
    );
    let said = good(&shop.campaign(&["apply", file, "--publish"]));
    assert!(said.contains("example-giveaway is RUNNING"), "{said}");
    for buyer in ["e1", "e2", "e3", "e4"] {
        let joined = shop.join("example-giveaway", buyer, "j");
        let joined = told(&shop.public(joined).await, 201);
        assert_eq!(joined["rewards"][0]["state"], "GIVEN", "{joined}");
    }
    assert_eq!(shop.budget("example-giveaway").await.1, 602_000);
    good(&shop.campaign(&["end", "example-giveaway"]));
    shop.until_campaign("example-giveaway", "SETTLED").await;
    // Four coupons and three tablets are promised, the rest went back.
    let (available, held, spent) = shop.budget("example-giveaway").await;
    assert_eq!((available, held, spent), (498_000, 602_000, 0));
}

/// Applies a campaign from a file of TOML.
fn apply(shop: &Shop, definition: &Value, words: &[&str]) -> std::process::Output {
    let file = shop.rig.path("campaign.toml");
    std::fs::write(&file, toml::to_string(definition).unwrap()).unwrap();
    let mut all = vec!["apply", file.to_str().unwrap()];
    all.extend(words);
    shop.campaign(&all)
}

fn solvency(shop: &Shop) {
    let mut poor = campaign("poor", 10);
    poor["budget_minor"] = json!(6_999);
    let complained = failed(&apply(shop, &poor, &["--publish"]));
    assert!(complained.contains("may cost 7000"), "{complained}");
    assert!(complained.contains("--accept insolvent"), "{complained}");
    let said = good(&shop.campaign(&["publish", "poor", "--accept", "insolvent"]));
    assert!(said.contains("poor is RUNNING"), "{said}");
    // Published is published.
    let complained = failed(&apply(shop, &poor, &[]));
    assert!(complained.contains("no draft any more"), "{complained}");
}

async fn refusals(shop: &Shop) {
    let refused = async |id: &str, buyer: &str, status: u16, outcome: &str| {
        let answer = shop.public(shop.join(id, buyer, "r")).await;
        no(&answer, status, outcome)
    };
    refused("nothing", "u", 404, "not_found").await;
    refused("example-giveaway", "u", 410, "campaign_ended").await;
    let mut soon = campaign("soon", 10);
    soon["starts_at"] = at(3_600_000);
    assert!(good(&apply(shop, &soon, &["--publish"])).contains("soon is PUBLISHED"));
    refused("soon", "u", 425, "campaign_not_started").await;
    good(&shop.campaign(&["pause", "poor", "--reason", "a look at it"]));
    refused("poor", "u", 423, "campaign_paused").await;
    good(&shop.campaign(&["resume", "poor"]));
    let list = "/v1/admin/campaigns/poor/blocklist/buyers/bad";
    let body = json!({"reason": "sells accounts"});
    told(&shop.merchant("PUT", list, Some(&body)).await, 201);
    refused("poor", "bad", 403, "blocked").await;
    told(&shop.merchant("DELETE", list, None).await, 200);
    let joined = shop.public(shop.join("poor", "bad", "j")).await;
    told(&joined, 201);
    // The same key again, and another: once.
    let again = shop.public(shop.join("poor", "bad", "j")).await;
    assert!(again.is_replay());
    assert_eq!(again.body, joined.body);
    told(&shop.public(shop.join("poor", "bad", "j2")).await, 200);
    // Nobody without a token, no buyer without the header, no merchant's door for a buyer.
    let target = "/v1/campaigns/poor/participations";
    let anyone = Request::post(target).key("k").json("{}");
    told(&shop.public(anyone).await, 401);
    let nobody = Request::post(target).bearer(&shop.keys.storefront_key);
    no(
        &shop.public(nobody.key("k").json("{}")).await,
        400,
        "malformed",
    );
    let no_key = shop.of_buyer("POST", target, "u").json("{}");
    no(&shop.public(no_key).await, 400, "malformed");
}

/// The fuller campaign: of each check the refusal, then what it asks for, then the next.
async fn a_task_a_number_and_a_place(shop: &Shop) {
    // Whoever paid before its start is not new.
    shop.until_order(&shop.buy_and_pay("old", "k-old").await)
        .await;
    let mut full = campaign("full", 3);
    full["starts_at"] = at(0);
    full["goal"] = json!({"new_buyers": 3, "orders": 2});
    full["eligibility"] = json!({
        "phone_verification": true, "new_buyers_only": true, "sign_up_task": "follow-shop",
        "participants_max": 3,
    });
    full["risk"] = json!({"device_shared": 3});
    full["rewards"][0]["threshold_minor"] = json!(2_000);
    assert!(good(&apply(shop, &full, &["--publish"])).contains("full is RUNNING"));
    let join = async |buyer: &str, key: &str| {
        let target = "/v1/campaigns/full/participations";
        let draft = shop.for_buyer("POST", target, buyer).key(key);
        shop.public(draft.header("X-Device-Id", "d1").json("{}"))
            .await
    };
    no(&join("n1", "j").await, 403, "verification_required");
    for (place, buyer) in ["n1", "n2", "n3", "n4", "old"].into_iter().enumerate() {
        let phone = format!("{}{place}", &PHONE[..PHONE.len() - 1]);
        verify(shop, buyer, &phone).await;
    }
    no(&join("old", "j").await, 403, "not_eligible");
    let body = no(&join("n1", "j").await, 403, "task_required");
    assert_eq!(body["task"], "follow-shop");
    for buyer in ["n1", "n2", "n3", "n4"] {
        let draft = shop.for_buyer("POST", "/v1/campaigns/full/sign-ups", buyer);
        let done = draft.key("s").json(r#"{"task":"follow-shop"}"#);
        told(&shop.public(done).await, 201);
    }
    for (buyer, state) in [("n1", "GIVEN"), ("n2", "GIVEN"), ("n3", "WAITING")] {
        // A refusal does not use up the key.
        let joined = told(&join(buyer, "j").await, 201);
        assert_eq!(joined["rewards"][0]["state"], state, "{joined}");
    }
    no(&join("n4", "j").await, 409, "campaign_full");
    // The third on one device waits for a person, whose word gives it.
    let verdicts = shop.read("/v1/admin/campaigns/full/verdicts").await;
    let verdicts = verdicts["items"].as_array().unwrap();
    let of = |buyer: &str| verdicts.iter().find(|found| found["buyer"] == buyer);
    assert_eq!(of("n3").unwrap()["rule"], "shared_device");
    // The others of that device are looked at as well: nobody's prize waits at the end.
    assert_eq!(verdicts.len(), 3, "{verdicts:?}");
    for verdict in verdicts {
        let verdict = verdict["verdict"].as_str().unwrap();
        let path = format!("/v1/admin/verdicts/{verdict}/decide");
        let body = json!({"decision": "ALLOW", "reason": "a family"});
        told(&shop.merchant("POST", &path, Some(&body)).await, 200);
    }
    let given = shop.of_buyer("GET", "/v1/coupons", "n3").bare();
    let given = told(&shop.public(given).await, 200);
    assert_eq!(given["items"][0]["state"], "ISSUED", "{given}");
}

/// Asks for a code, reads it where the demo sends it, confirms.
async fn verify(shop: &Shop, buyer: &str, phone: &str) {
    let body = json!({"phone": phone}).to_string();
    let ask = shop
        .for_buyer("POST", "/v1/verifications", buyer)
        .json(&body);
    let asked = told(&shop.public(ask).await, 202);
    let before = shop.sent("verification");
    let is_told = |notice: &&Value| notice["to"] == phone;
    let code = poll_until_async(BOUND, ASK, async || {
        let sent = shop.sent("verification");
        let code = sent.iter().find(is_told)?["code"].as_str()?.to_owned();
        Some(code)
    });
    let code = code.await.unwrap_or_else(|| panic!("no code: {before:?}"));
    let id = asked["verification_id"].as_str().unwrap();
    let target = format!("/v1/verifications/{id}/confirm");
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for (tried, status) in [(wrong, 403), (code.as_str(), 200)] {
        let body = json!({"code": tried}).to_string();
        let confirm = shop.for_buyer("POST", &target, buyer).json(&body);
        told(&shop.public(confirm).await, status);
    }
}

/// A coupon is listed, locked, unlocked, used by the order of a real sale; gives the order.
async fn coupons_and_an_order(shop: &Shop) -> String {
    let list = shop.of_buyer("GET", "/v1/coupons", "n1").bare();
    let list = told(&shop.public(list).await, 200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let coupon = list["items"][0]["coupon_id"].as_str().unwrap().to_owned();
    let act = async |buyer: &str, verb: &str, body: Value| {
        let target = format!("/v1/coupons/{coupon}/{verb}");
        let draft = shop.for_buyer("POST", &target, buyer);
        shop.public(draft.json(&body.to_string())).await
    };
    let lock = |order: &str, amount: i64| json!({"order_id": order, "order_amount_minor": amount});
    no(
        &act("n1", "lock", lock("o1", 1_999)).await,
        409,
        "below_threshold",
    );
    no(
        &act("n2", "lock", lock("o1", 9_900)).await,
        404,
        "not_found",
    );
    let locked = told(&act("n1", "lock", lock("o1", 9_900)).await, 200);
    assert_eq!(
        (&locked["state"], &locked["discount_minor"]),
        (&json!("LOCKED"), &json!(500))
    );
    no(
        &act("n1", "use", lock("o2", 9_900)).await,
        409,
        "state_conflict",
    );
    told(&act("n1", "unlock", json!({"order_id": "o1"})).await, 200);
    let order = shop.buy_and_pay("n1", "k-n1").await;
    told(&act("n1", "lock", lock(&order, 9_900)).await, 200);
    for _ in 0..2 {
        let used = told(&act("n1", "use", lock(&order, 9_900)).await, 200);
        assert_eq!(
            (&used["state"], &used["order_id"]),
            (&json!("USED"), &json!(order))
        );
    }
    no(
        &act("n1", "unlock", json!({"order_id": order})).await,
        409,
        "state_conflict",
    );
    assert_eq!(shop.budget("full").await, (0, 3_000, 500));

    // The reservation is the order, by itself and with its id; what goes back follows.
    let known = shop.until_order(&order).await;
    assert_eq!(known["source"], "engine");
    assert_eq!(
        (&known["buyer_id"], &known["paid_minor"]),
        (&json!("n1"), &json!(9_900))
    );
    let target = format!("/v1/reservations/{order}/refund");
    let refund = Request::post(&target).bearer(&shop.keys.storefront_key);
    let refund = refund.json(r#"{"refund_ref":"back","restock":true}"#);
    told(&shop.public(refund).await, 200);
    let is_refunded = poll_until_async(BOUND, ASK, async || {
        let known = shop.until_order(&order).await;
        (known["refunded_minor"] == 9_900).then_some(())
    });
    assert!(is_refunded.await.is_some(), "{}", shop.server.log());
    // The coupon was given for joining, not for the order: no verdict.
    let verdicts = shop.read("/v1/admin/campaigns/full/verdicts").await;
    assert!(!verdicts.to_string().contains("refund_after_reward"));
    order
}

async fn the_end(shop: &Shop, books: &Books) {
    let proofs = || Request::get("/v1/campaigns/full/proofs").bare();
    no(&shop.public(proofs()).await, 409, "not_revealed");
    let early = verify_draws(shop, &["--campaign", "full"]);
    assert_eq!(early.status.code(), Some(2), "{}", stderr(&early));
    good(&shop.campaign(&["end", "full"]));
    let settled = shop.until_campaign("full", "SETTLED").await;
    let winners = Request::get("/v1/campaigns/full/winners").bare();
    let winners = told(&shop.public(winners).await, 200);
    assert_eq!(winners["items"].as_array().unwrap().len(), 2, "{winners}");
    let file = told(&shop.public(proofs()).await, 200);
    assert_eq!(file["seed"], settled["seed"]);

    // By the program, from the server and from a file; a file that was changed proves nothing.
    let saved = shop.rig.path("proof.json");
    let saved = saved.to_str().unwrap();
    good(&verify_draws(
        shop,
        &["--campaign", "full", "--save", saved],
    ));
    let again = stampede(&["verify-draws", saved]);
    assert!(good(&again).contains("2 winners follow"));
    let text = std::fs::read_to_string(saved).unwrap();
    let winner = winners["items"][0]["participant"].as_str().unwrap();
    let tampered = text.replacen(&winner[..8], "00000000", 1);
    assert_ne!(tampered, text);
    std::fs::write(saved, tampered).unwrap();
    let tampered = stampede(&["verify-draws", saved]);
    assert_eq!(tampered.status.code(), Some(3), "{}", stdout(&tampered));
    a_prize_reaches_its_winner(shop, books).await;
}

fn verify_draws(shop: &Shop, words: &[&str]) -> std::process::Output {
    let url = format!("http://{}", shop.server.admin);
    let mut all = vec!["verify-draws"];
    all.extend(words);
    all.extend(["--admin-url", &url, "--data", shop.rig.data()]);
    stampede(&all)
}

async fn a_prize_reaches_its_winner(shop: &Shop, books: &Books) {
    let hidden = |when: &str| {
        let stored = books.bytes(&shop.rig.options.data);
        let street = STREET.as_bytes();
        let is_found = stored.windows(street.len()).any(|at| at == street);
        assert!(!is_found, "the address lies in clear {when}");
        assert!(!shop.server.log().contains("Nightingale"));
    };
    let path = "/v1/admin/campaigns/full/prizes";
    let prize = shop.read(path).await["items"][0].clone();
    assert_eq!(prize["state"], "DRAWN");
    let id = prize["prize_id"].as_str().unwrap();
    let winner = prize["buyer_id"].as_str().unwrap();
    let other = if winner == "n1" { "n2" } else { "n1" };
    let target = format!("/v1/prizes/{id}/claim");
    let body = json!({"name": "Li", "phone": "13800138000", "address": STREET}).to_string();
    let claim = |buyer: &str| shop.of_buyer("POST", &target, buyer).key("c").json(&body);
    no(&shop.public(claim(other)).await, 404, "not_found");
    let ship = json!({"carrier": "SF", "tracking": "SF1"});
    let to_ship = format!("/v1/admin/prizes/{id}/ship");
    no(
        &shop.merchant("POST", &to_ship, Some(&ship)).await,
        409,
        "state_conflict",
    );
    let claimed = told(&shop.public(claim(winner)).await, 200);
    assert_eq!(claimed["state"], "CLAIMED");
    assert!(!claimed.to_string().contains("Nightingale"));
    hidden("when claimed");
    let address = format!("/v1/admin/prizes/{id}/address");
    assert_eq!(shop.read(&address).await["address"], STREET);
    hidden("when read");
    let spent = shop.budget("full").await.2;
    let shipped = told(&shop.merchant("POST", &to_ship, Some(&ship)).await, 200);
    assert_eq!(shipped["state"], "FULFILLING");
    assert_eq!(shop.budget("full").await.2, spent + 1_000);
    let target = format!("/v1/prizes/{id}/received");
    let received = shop.of_buyer("POST", &target, winner).json("{}");
    assert_eq!(
        told(&shop.public(received).await, 200)["state"],
        "DELIVERED"
    );
    told(&shop.merchant("DELETE", &address, None).await, 200);
    no(
        &shop.merchant("GET", &address, None).await,
        409,
        "state_conflict",
    );
    hidden("when erased");
    let log = shop
        .read("/v1/admin/campaigns/full/audit-log")
        .await
        .to_string();
    for what in ["prize.address_read", "prize.ship", "prize.address_erase"] {
        assert!(log.contains(what), "{what}: {log}");
    }
    assert!(!log.contains("Nightingale"));
}

async fn what_is_told_of_it(shop: &Shop, order: &str) {
    let report = good(&shop.campaign(&["report", "full"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    let figures = &report["figures"];
    assert_eq!(figures["participants"]["participants"], 3, "{report}");
    assert_eq!(figures["orders"]["turnover_minor"], 9_900, "{report}");
    let path = "/v1/admin/campaigns/full/report?format=csv";
    let csv = told(&shop.merchant("GET", path, None).await, 200);
    let csv = csv.as_str().unwrap();
    assert!(csv.starts_with("section,figure,group,value"), "{csv}");
    assert!(csv.contains("participants,participants,,3"), "{csv}");

    let history = shop.read("/v1/admin/buyers/n1/history?limit=200").await;
    let whats = history["items"].as_array().unwrap().iter();
    let whats: Vec<_> = whats.map(|entry| entry["what"].as_str().unwrap()).collect();
    for what in [
        "joined",
        "refused",
        "coupon_issued",
        "coupon_used",
        "order_paid",
    ] {
        assert!(whats.contains(&what), "{what}: {whats:?}");
    }
    assert!(history.to_string().contains(order));
    assert!(!history.to_string().contains(PHONE), "a number is shown");

    let versions = good(&shop.campaign(&["versions", "full"]));
    assert!(versions.contains("rules_hash"), "{versions}");
    assert!(good(&shop.campaign(&["list"])).contains("full"));
    assert!(good(&shop.campaign(&["budget", "full"])).contains("CNY"));
    assert_eq!(shop.metric("stampede_side_up").await, 1.0);
    for outcome in ["done", "replayed", "campaign_full", "not_eligible"] {
        let name = format!("stampede_side_requests_total{{outcome=\"{outcome}\"}}");
        assert!(shop.metric(&name).await >= 1.0, "{name}");
    }
    assert!(shop.metric("stampede_side_seconds_count").await > 0.0);
}

/// Every path of the document leads somewhere.
async fn every_path_answers(shop: &Shop) {
    let mut admin = Client::new(shop.server.admin, Timeouts::default());
    let nowhere = Request::get("/v1/admin/no/such/path").bearer(&shop.keys.admin_key);
    let nowhere = admin.send(&nowhere.bare()).await.unwrap();
    let nowhere = told(&nowhere, 404)["detail"].clone();
    let asking = Request::get("/openapi.json").bare();
    let of_admin = admin.send(&asking).await.unwrap().json().unwrap();
    let mut public = Client::new(shop.server.public, Timeouts::default());
    let of_public = public.send(&asking).await.unwrap().json().unwrap();
    let paths = [&of_admin, &of_public].map(|document| document["paths"].as_object().unwrap());
    let mut asked = 0;
    for (path, methods) in paths.into_iter().flatten() {
        let words = ["/campaigns", "/coupons", "/prizes", "/orders", "/verdicts"];
        if !words.iter().any(|word| path.contains(word)) {
            continue;
        }
        let target: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            if !["GET", "POST", "PUT", "DELETE"].contains(&&*method) {
                continue;
            }
            let answer = if path.starts_with("/v1/admin") {
                shop.merchant(&method, &target, Some(&json!({}))).await
            } else {
                let draft = shop.for_buyer(&method, &target, "u").key("x");
                shop.public(draft.json("{}")).await
            };
            assert!(![405, 500, 501].contains(&answer.status), "{method} {path}");
            let body = answer.json().unwrap_or_default();
            assert_ne!(body["detail"], nowhere, "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked > 40, "{asked}");
}
