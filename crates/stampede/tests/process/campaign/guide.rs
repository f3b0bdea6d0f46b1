//! docs/CAMPAIGNS.md: what it tells to type works.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_can_be_typed_as_it_stands() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let document = std::fs::read_to_string(format!("{root}/docs/CAMPAIGNS.md")).unwrap();
    let shop = Shop::start(Rig::new());
    shop.campaigns_are_up().await;
    let proof = shop.rig.path("FILE");
    let mut typed = 0;
    let is_shell = document
        .split("```")
        .filter_map(|block| block.strip_prefix("sh\n"));
    for line in is_shell.flat_map(str::lines) {
        let line = line.split(" #").next().unwrap().trim();
        if line.is_empty() {
            continue;
        }
        let words = line.strip_prefix("stampede ").expect(line);
        let words = words.replace("config/", &format!("{root}/config/"));
        let words = words.replace("./stampede-data", shop.rig.data());
        let words = words.replace("FILE", proof.to_str().unwrap());
        let url = format!("http://{}", shop.server.admin);
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.extend(["--admin-url", &url]);
        if words[..3].contains(&"--campaign") {
            shop.until_campaign("example-giveaway", "SETTLED").await;
        }
        good(&stampede(&words));
        typed += 1;
    }
    assert!(typed >= 7, "{typed}");
}
