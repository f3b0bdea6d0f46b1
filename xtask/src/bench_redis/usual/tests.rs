use super::*;
use dev_servers::RedisOptions;

const SALE: &str = "sale-1";

fn record(buyer: &str, key: &str) -> Record {
    Record {
        created_at: Timestamp(1_800_000_000_000),
        expires_at: Timestamp(1_800_000_900_000),
        buyer: BuyerId::parse(buyer).unwrap(),
        key: IdempotencyKey::parse(key).unwrap(),
        units: 1,
        price: Money(PRICE_MINOR),
    }
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let record = record("buyer-1", "key-1");
    assert_eq!(
        record.text(),
        "r|1800000000000|1800000900000|buyer-1|key-1||0,1,9900"
    );
    assert_eq!(Record::parse(&record.text()), Some(record));
    for bad in ["", "r|1|2|b|k||", "r|1|2|b|k||1,1,1", "c|1|2|b|k|p|0,1,1"] {
        assert_eq!(Record::parse(bad), None, "{bad}");
    }
}

#[test]
fn the_script_sells_each_unit_once_and_gives_a_key_its_reservation_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("keys.toml"),
        "admin_key = \"a\"\nstorefront_key = \"s\"\nbuyer_jwt_secret = \"secret\"\n",
    )
    .unwrap();
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    publish(&redis, SALE, 1, 3, 2).unwrap();
    let options = Options {
        redis: redis.url(),
        data: dir.path().to_owned(),
    };
    crate::shell::runtime().unwrap().block_on(async {
        let shop = Shop::open(&options).await.unwrap();
        assert_eq!(shop.durability, Durability::RedisAofAlways);
        let sale = shop.sale(SaleId::parse(SALE).unwrap()).await.unwrap();
        let first = shop.next_serial();
        for (serial, buyer, key, expected) in [
            (first, "b1", "k1", Decision::Reserved),
            (
                shop.next_serial(),
                "b1",
                "k1",
                Decision::Known(first, record("b1", "k1")),
            ),
            (shop.next_serial(), "b1", "k2", Decision::Reserved),
            (shop.next_serial(), "b1", "k3", Decision::LimitReached),
            (shop.next_serial(), "b2", "k1", Decision::Reserved),
            (shop.next_serial(), "b3", "k1", Decision::SoldOut),
            (
                shop.next_serial(),
                "b1",
                "k1",
                Decision::Known(first, record("b1", "k1")),
            ),
        ] {
            let decided = shop.decide(&sale, serial, &record(buyer, key)).await;
            assert_eq!(decided, Ok(expected), "{buyer} {key}");
        }
        redis.command(&["SCRIPT", "FLUSH"]).unwrap();
        let again = shop.decide(&sale, first, &record("b4", "k1")).await;
        assert_eq!(again, Ok(Decision::SoldOut));
        let nowhere = shop.sale(SaleId::parse("sale-2").unwrap()).await;
        assert_eq!(nowhere.err(), Some(Refused::UnknownSale));
    });
    let held = |command, key: &str| {
        redis
            .command(&[command, &format!("{{usual:{SALE}}}:{key}")])
            .unwrap()
    };
    assert_eq!(held("HLEN", "buyer"), "2");
    assert_eq!(held("HLEN", "resv"), "3");
    assert_eq!(held("XLEN", "ev"), "3");
    assert_eq!(held("GET", "stock"), "0");
}

#[test]
fn answers_have_the_shape_of_the_contract() {
    let no = refused(Refused::SoldOut);
    assert_eq!(no.status(), StatusCode::CONFLICT);
    let body: serde_json::Value = serde_json::from_str(SOLD_OUT).unwrap();
    assert_eq!(body["outcome"], "sold_out");
}
