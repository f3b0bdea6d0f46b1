//! Two processes and one database: what goes on by itself comes about once.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_remind_and_draw_once() {
    let books = Books::postgres();
    let one = Shop::open(books.rig(), &[("a", 10)]).await;
    let rig = books.rig();
    // The same keys: what one sealed, the other opens.
    std::fs::create_dir(&rig.options.data).unwrap();
    let keys = one.rig.options.data.join("keys.toml");
    std::fs::copy(keys, rig.options.data.join("keys.toml")).unwrap();
    let other = Shop::start(rig);
    other.campaigns_are_up().await;
    one.publish_campaign(&campaign("c", 40)).await;
    let mut soon = campaign("soon", 10);
    soon["starts_at"] = at(62_000);
    soon["reminders"] = json!({"before_s": [60]});
    other.publish_campaign(&soon).await;
    for number in 0..10 {
        let buyer = format!("b{number}");
        let shop = if number % 2 == 0 { &one } else { &other };
        let remind = shop.of_buyer("POST", "/v1/campaigns/soon/reminders", &buyer);
        told(&shop.public(remind.json("{}")).await, 201);
        // Both at once, with the same key.
        let (here, there) = tokio::join!(
            one.public(one.join("c", &buyer, "j")),
            other.public(other.join("c", &buyer, "j")),
        );
        assert_eq!(here.body, there.body);
        assert!([200, 201].contains(&here.status) && [200, 201].contains(&there.status));
    }
    good(&other.campaign(&["end", "c"]));
    one.until_campaign("c", "SETTLED").await;
    let winners = Request::get("/v1/campaigns/c/winners").bare();
    let winners = told(&one.public(winners).await, 200);
    assert_eq!(winners["items"].as_array().unwrap().len(), 2, "{winners}");
    let prizes = one.read("/v1/admin/campaigns/c/prizes").await;
    assert_eq!(prizes["items"].as_array().unwrap().len(), 2, "{prizes}");
    // Ten coupons and two tablets are promised.
    assert_eq!(one.budget("c").await, (15_000, 7_000, 0));
    assert_eq!(one.budget("c").await, other.budget("c").await);

    let to = || {
        let mut sent = one.sent("reminder");
        sent.extend(other.sent("reminder"));
        let mut to: Vec<_> = sent.iter().map(|notice| notice["to"].to_string()).collect();
        to.sort();
        to
    };
    let are_told = poll_until_async(BOUND, ASK, async || (to().len() >= 10).then_some(()));
    assert!(are_told.await.is_some(), "{:?}\n{}", to(), one.server.log());
    let told_to = to();
    let mut once = told_to.clone();
    once.dedup();
    assert_eq!(told_to, once);
    books.assert_proved(&one).await;
}
