//! The tables of endpoints and schemas agree, without a database.

use std::collections::BTreeSet;

use crate::common::shop;

#[tokio::test]
async fn endpoints_name_schemas_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(&format!("sqlite:{}", folder.path().join("d.db").display())).await;
    let services = side_rewards::services(&shop);
    let schemas: Vec<_> = services.iter().flat_map(|one| one.schemas()).collect();
    let names: BTreeSet<&str> = schemas.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), schemas.len(), "a name stands for one schema");
    let mut count = 0;
    for endpoint in services.iter().flat_map(|one| one.endpoints()) {
        let answers = endpoint.answers.iter().map(|(_, name)| *name);
        for name in answers.chain(endpoint.body) {
            assert!(names.contains(name), "{} {name}", endpoint.path);
            count += 1;
        }
        assert!(!endpoint.answers.is_empty() && !endpoint.summary.is_empty());
    }
    assert!(count >= 14);
    for (name, schema) in &schemas {
        let text = schema.to_string();
        for found in text.split("#/components/schemas/").skip(1) {
            let used = found.split('"').next().unwrap();
            assert!(names.contains(used), "{name} refers to {used}");
        }
    }
}
