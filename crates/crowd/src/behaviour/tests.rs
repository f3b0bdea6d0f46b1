use std::net::SocketAddr;

use super::*;
use worker::Person;

fn params(seed: u64) -> SaleParams {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let addresses = Addresses {
        public: nowhere,
        admin: nowhere,
    };
    let keys = Keys {
        admin_key: "a".into(),
        storefront_key: "s".into(),
        buyer_jwt_secret: "j".into(),
    };
    SaleParams {
        seed,
        ..SaleParams::new(addresses, keys, 1_000, 100)
    }
}

fn crowd(seed: u64) -> Vec<Person> {
    let params = params(seed);
    (0..params.buyers)
        .map(|number| Person::new(&params, number))
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_people() {
    let described = |seed| format!("{:?}", crowd(seed));
    assert_eq!(described(7), described(7));
    assert_ne!(described(7), described(8));
}

#[test]
fn the_crowd_has_everybody_in_it() {
    let people = crowd(1);
    let share = |is: fn(&Person) -> bool| people.iter().filter(|person| is(person)).count();
    for (what, count, expected) in [
        ("early", share(|person| person.arrives_ms < 0), 50),
        ("twice", share(|person| person.comes_twice), 150),
        ("again", share(|person| person.presses_twice), 200),
        ("unpaid", share(|person| !person.pays), 200),
        ("waiting", share(|person| person.waits), 250),
        (
            "cameras",
            share(|person| person.lines[0].0 == "camera"),
            160,
        ),
    ] {
        assert!(
            count.abs_diff(expected) < expected / 2,
            "{what}: {count}, not about {expected}"
        );
    }
    let first_fifth = share(|person| person.arrives_ms < 1_000);
    assert!(first_fifth > people.len() / 2, "{first_fifth}");
}

#[test]
fn all_units_are_in_the_definition() {
    let params = params(1);
    assert_eq!(params.stock_units(), 100);
    let definition = params.definition(Timestamp(0));
    let units: u64 = definition["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["stock_units"].as_u64().unwrap())
        .sum();
    assert_eq!(units, 100);
    assert_eq!(definition["payment_window_s"], 4);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_and_no_hang() {
    let error = run_sale(params(1), Arc::default(), Arc::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("publishing"), "{error}");
}
