//! A whole crowd against a toy server: all goes well with a right one, and each wrong one is found out.
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail like a test")]

mod fake;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crowd::api::Addresses;
use crowd::behaviour::{Progress, SaleParams, Summary, run_sale};
use crowd::check::{Finding, Rule, check, gather};
use crowd::log::ClientLog;
use crowd::token::Keys;
use fake::{Fake, Fault};

async fn sale(fault: Fault) -> (Summary, Vec<Finding>, Arc<Progress>) {
    let address = Fake::start(fault).await;
    let addresses = Addresses {
        public: address,
        admin: address,
    };
    let keys = Keys {
        admin_key: "a".into(),
        storefront_key: "s".into(),
        buyer_jwt_secret: "j".into(),
    };
    let params = SaleParams {
        payment_window: Duration::from_secs(1),
        opens_in: Duration::from_millis(50),
        rush: Duration::from_millis(400),
        connections: 8,
        bound: Duration::from_secs(20),
        ..SaleParams::new(addresses, keys.clone(), 400, 60)
    };
    let log = Arc::new(ClientLog::in_memory());
    let progress = Arc::new(Progress::default());
    let summary = run_sale(params, Arc::clone(&progress), Arc::clone(&log))
        .await
        .unwrap();
    let books = gather(addresses, &keys, &log).await.unwrap();
    (
        summary,
        check(&log.entries(), &log.sights(), &books),
        progress,
    )
}

fn rules(findings: &[Finding]) -> BTreeSet<Rule> {
    findings.iter().map(|finding| finding.rule).collect()
}

#[tokio::test]
async fn a_right_server_sells_all_and_nothing_is_found() {
    let (summary, findings, progress) = sale(Fault::Nothing).await;
    assert_eq!(findings, []);
    assert_eq!(
        (summary.sold_units, summary.stock_units),
        (60, 60),
        "{summary:#?}"
    );
    assert_eq!(summary.paid, 60);
    assert_eq!(summary.reserved, 60 + summary.expired, "{summary:#?}");
    assert!(
        summary.expired > 0 && summary.came_back > 0 && summary.replayed > 0,
        "{summary:#?}"
    );
    assert!(summary.refused.contains_key("sold_out"), "{summary:#?}");
    assert_eq!(summary.unknown, 0);
    assert!(summary.sold_within.is_some());
    assert_eq!(progress.paid.load(Ordering::Relaxed), 60);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_told_once() {
    let (summary, findings, _) = sale(Fault::HangsUpEverySeventh).await;
    assert_eq!(findings, []);
    assert!(summary.unknown >= 8, "{summary:#?}");
    assert_eq!(summary.paid, 60, "{summary:#?}");
}

#[tokio::test]
async fn a_server_that_forgets_what_it_said_is_found_out() {
    let (_, findings, _) = sale(Fault::ForgetsEveryTenth).await;
    assert!(rules(&findings).contains(&Rule::Lost), "{findings:?}");
}

#[tokio::test]
async fn a_server_that_sells_too_much_is_found_out() {
    let (_, findings, _) = sale(Fault::SellsTooMuch).await;
    assert!(rules(&findings).contains(&Rule::Oversold), "{findings:?}");
}

#[tokio::test]
async fn a_server_that_forgets_keys_is_found_out() {
    let (_, findings, _) = sale(Fault::ForgetsKeys).await;
    assert!(
        rules(&findings).contains(&Rule::TwoDecisions),
        "{findings:?}"
    );
}
