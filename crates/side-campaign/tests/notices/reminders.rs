//! Reminders: when they are due by the present plan, each once, the second only to the silent; reminders to pay.

use std::sync::Arc;

use dev_servers::Databases;
use flash_types::side::{SideAnswer, SideCaller, SideProblem};
use flash_types::{SaleState, Timestamp};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use side_books::step::Step as _;
use side_campaign::fact::{Fact, React as _};
use side_campaign::notices::{Follow, Planned, RemindStep, Stage, Subject, reacted};

use crate::world::{T0, World, after, buyer, json as read};

const HOUR: i64 = 3_600;

async fn call(
    world: &World,
    method: &str,
    path: &str,
    name: &str,
    who: &str,
    now: Timestamp,
) -> Result<SideAnswer, SideProblem> {
    let caller = SideCaller::Buyer(buyer(who));
    world
        .call(method, path, name, caller, &Value::Null, now)
        .await
}

async fn of_sale(world: &World, who: &str, now: Timestamp) -> Result<SideAnswer, SideProblem> {
    call(world, "POST", "/v1/sales/{sale}/reminders", "s1", who, now).await
}

async fn of_campaign(world: &World, who: &str, now: Timestamp) -> SideAnswer {
    let path = "/v1/campaigns/{campaign}/reminders";
    call(world, "POST", path, "c1", who, now).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reminders_on_both_databases() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        of_a_sale(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        of_a_start_that_moves(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        to_many_by_two(&Arc::new(World::open(&url).await)).await;
    }
    for url in servers.urls().unwrap() {
        the_second_to_the_silent(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        to_pay(&World::open(&url).await).await;
    }
}

async fn of_a_sale(world: &World) {
    assert_eq!(
        of_sale(world, "b1", T0).await.unwrap_err().outcome,
        "not_found"
    );
    world.desk.plan("s1", after(2 * HOUR), SaleState::Published);
    let first = of_sale(world, "b1", T0).await.unwrap();
    assert_eq!(first.status, 201);
    let planned = json!([
        after(2 * HOUR - 600).text().as_str(),
        after(HOUR).text().as_str()
    ]);
    assert_eq!(read(&first)["remind_at"], planned);
    assert_eq!(of_sale(world, "b1", after(1)).await.unwrap().status, 200);
    of_sale(world, "b2", after(2)).await.unwrap();
    of_sale(world, "b3", after(3)).await.unwrap();
    world.run(after(HOUR - 1)).await;
    assert!(world.taken().is_empty());
    world.run(after(HOUR)).await;
    let words = world.channel.taken.lock()[0].text.clone();
    assert_eq!(words, "Sale s1 starts at 2027-01-15 10:00");
    assert_eq!(world.taken(), ["reminder b1", "reminder b2", "reminder b3"]);
    world.run(after(HOUR + 60)).await;
    assert!(world.taken().is_empty(), "once");
    // b4 comes too late for the first; b2 does not want the other.
    of_sale(world, "b4", after(HOUR + 100)).await.unwrap();
    let path = "/v1/sales/{sale}/reminders";
    for _ in 0..2 {
        let gone = call(world, "DELETE", path, "s1", "b2", after(HOUR + 101))
            .await
            .unwrap();
        assert_eq!(gone.status, 200);
    }
    world.run(after(2 * HOUR - 601)).await;
    assert!(world.taken().is_empty());
    world.run(after(2 * HOUR - 599)).await;
    assert_eq!(
        world.taken(),
        ["reminder b1", "reminder b3", "reminder b4"],
        "{}",
        world.url
    );
    // The first to ask at all comes too late for the first one.
    world.desk.plan("s3", after(5 * HOUR), SaleState::Published);
    let late = after(5 * HOUR - 1_800);
    let asked = call(world, "POST", path, "s3", "b5", late).await.unwrap();
    let left = json!([after(5 * HOUR - 600).text().as_str()]);
    assert_eq!(read(&asked)["remind_at"], left);
    world.run(late).await;
    assert!(world.taken().is_empty(), "{}", world.url);
    world.run(after(5 * HOUR - 600)).await;
    assert_eq!(world.taken(), ["reminder b5"]);
    for (state, now, expected) in [
        (SaleState::Published, after(2 * HOUR), "state_conflict"),
        (SaleState::Open, after(2 * HOUR - 1), "state_conflict"),
        (SaleState::Closed, after(2 * HOUR), "sale_ended"),
        (SaleState::Draft, T0, "not_found"),
    ] {
        world.desk.plan("s1", after(2 * HOUR), state);
        assert_eq!(
            of_sale(world, "b9", now).await.unwrap_err().outcome,
            expected
        );
    }
}

async fn of_a_start_that_moves(world: &World) {
    world
        .desk
        .plan("s1", after(10 * HOUR), SaleState::Published);
    of_sale(world, "b1", T0).await.unwrap();
    world.run(T0).await;
    // Earlier: both would have been due already but for the move; the first is sent late, by the present start.
    world.desk.plan("s1", after(HOUR), SaleState::Published);
    world.run(after(1_800)).await;
    assert_eq!(world.taken(), ["reminder b1"], "{}", world.url);
    // Later again: what was sent is not sent again, but b2, who comes now, gets it.
    world
        .desk
        .plan("s1", after(20 * HOUR), SaleState::Published);
    world.run(after(1_900)).await;
    of_sale(world, "b2", after(2_000)).await.unwrap();
    world.run(after(19 * HOUR - 1)).await;
    assert!(world.taken().is_empty());
    world.run(after(19 * HOUR)).await;
    assert_eq!(world.taken(), ["reminder b2"]);
    // A draft again: nobody is reminded; published again: they are.
    world.desk.plan("s1", after(20 * HOUR), SaleState::Draft);
    world.run(after(20 * HOUR - 600)).await;
    assert!(world.taken().is_empty());
    world
        .desk
        .plan("s1", after(20 * HOUR), SaleState::Published);
    world.run(after(20 * HOUR - 300)).await;
    assert_eq!(world.taken(), ["reminder b1", "reminder b2"]);
    // It begins at once: nobody is reminded of what has begun.
    world
        .desk
        .plan("s2", after(30 * HOUR), SaleState::Published);
    let path = "/v1/sales/{sale}/reminders";
    call(world, "POST", path, "s2", "b1", after(20 * HOUR))
        .await
        .unwrap();
    world.desk.plan("s2", after(21 * HOUR), SaleState::Open);
    world.run(after(22 * HOUR)).await;
    world.run(after(30 * HOUR)).await;
    assert!(world.taken().is_empty());
}

async fn to_many_by_two(world: &Arc<World>) {
    world.desk.plan("s1", after(2 * HOUR), SaleState::Published);
    of_sale(world, "b0", T0).await.unwrap();
    let values: Vec<_> = (1..650)
        .map(|number| format!("('sale:s1', 'b{number}', {}, {})", after(2 * HOUR).0, T0.0))
        .collect();
    world
        .execute(format!(
            "INSERT INTO reminder (subject, buyer, starts_at_ms, at_ms) VALUES {}",
            values.join(", ")
        ))
        .await;
    let workers = (0..3).map(|_| {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            let step = RemindStep::new(Arc::clone(&world.shop), world.plans.clone());
            let mut largest = 0;
            let mut before = 0;
            let count = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice";
            while step.step(after(HOUR)).await.unwrap_or(true) {
                let now = world.number(count).await;
                largest = largest.max(now - before);
                before = now;
            }
            largest
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        assert!(worker.await.unwrap() <= 650);
    }
    world.run(after(HOUR)).await;
    let mut taken = world.taken();
    assert_eq!(taken.len(), 650, "{}", world.url);
    taken.dedup();
    assert_eq!(taken.len(), 650, "each once");
}

async fn the_second_to_the_silent(world: &World) {
    let planned = Planned {
        title: "Tea week".into(),
        starts_at: after(10 * HOUR),
        ends_at: after(20 * HOUR),
        zone: TimeZone::UTC,
        before_s: vec![7_200, 3_600],
        second_after_s: Some(4 * 3_600),
        stage: Stage::Ahead,
    };
    let plan = |planned: Planned| world.plans.campaigns.lock().insert("c1".into(), planned);
    plan(planned.clone());
    for who in ["opened", "bought", "silent", "took-part"] {
        assert_eq!(of_campaign(world, who, T0).await.status, 201);
    }
    world.run(after(8 * HOUR)).await;
    let taken = world.channel.taken.lock().clone();
    assert_eq!(world.taken().len(), 4);
    let to = |who: &str| taken.iter().find(|notice| notice.to == who).unwrap();
    let path = "/v1/notices/{notice}/opened";
    let storefront = SideCaller::Storefront(None);
    for at in [after(8 * HOUR + 5), after(8 * HOUR + 50)] {
        let (id, caller) = (&to("opened").id, storefront.clone());
        let opened = world
            .call("POST", path, id, caller, &Value::Null, at)
            .await
            .unwrap();
        assert_eq!(
            read(&opened)["opened_at"],
            after(8 * HOUR + 5).text().as_str()
        );
    }
    let none = world
        .call("POST", path, "nt0", storefront, &Value::Null, T0)
        .await;
    assert_eq!(none.unwrap_err().outcome, "not_found");
    let mut tx = world.shop.database.begin().await.unwrap();
    let campaign = Subject::Campaign("c1".into());
    reacted(&mut tx, &campaign, &buyer("took-part"), after(9 * HOUR))
        .await
        .unwrap();
    let paid = Fact::Paid(crate::tracking::order(
        "o1",
        "bought",
        100,
        after(9 * HOUR),
        true,
    ));
    Follow.react(&mut tx, &paid, after(9 * HOUR)).await.unwrap();
    tx.commit().await.unwrap();
    world.run(after(9 * HOUR)).await;
    assert_eq!(
        world.taken().len(),
        4,
        "the planned one an hour before goes to all"
    );
    plan(Planned {
        stage: Stage::Begun,
        ..planned.clone()
    });
    world.run(after(12 * HOUR - 1)).await;
    assert!(world.taken().is_empty());
    world.run(after(12 * HOUR)).await;
    let words = world.channel.taken.lock()[0].text.clone();
    assert_eq!(words, "Tea week has begun");
    assert_eq!(world.taken(), ["second_reminder silent"], "{}", world.url);
    world.run(after(19 * HOUR)).await;
    assert!(world.taken().is_empty(), "one second reminder, not two");
}

async fn to_pay(world: &World) {
    let reserved = |id: &str, who: &str, window_s: i64| Fact::Reserved {
        reservation_id: id.to_owned(),
        sale_id: "s1".into(),
        buyer: buyer(who),
        expires_at: after(window_s),
    };
    let closed = |id: &str| Fact::Closed {
        reservation_id: id.to_owned(),
    };
    let tell = async |fact: Fact, now: Timestamp| {
        let mut tx = world.shop.database.begin().await.unwrap();
        Follow.react(&mut tx, &fact, now).await.unwrap();
        tx.commit().await.unwrap();
    };
    tell(reserved("r1", "pays", 600), T0).await;
    tell(reserved("r2", "forgets", 600), T0).await;
    tell(reserved("r3", "short", 119), T0).await;
    tell(reserved("r4", "extends", 600), T0).await;
    tell(reserved("r4", "extends", 1_200), after(100)).await;
    tell(closed("r1"), after(299)).await;
    tell(closed("r9"), after(299)).await;
    world.run(after(299)).await;
    assert!(world.taken().is_empty());
    world.run(after(300)).await;
    assert_eq!(world.taken(), ["pay_reminder forgets"], "{}", world.url);
    tell(closed("r2"), after(301)).await;
    let sent = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM notice WHERE state = 'SENT'";
    assert_eq!(world.number(sent).await, 1, "what was sent stays sent");
    world.run(after(649)).await;
    assert!(world.taken().is_empty());
    world.run(after(650)).await;
    assert_eq!(world.taken(), ["pay_reminder extends"]);
    // Past its end nobody is told to pay.
    tell(reserved("r5", "late", 2_000), after(1_000)).await;
    world.run(after(2_000)).await;
    assert!(world.taken().is_empty());
}
