//! A configuration file that people share: each command asks for the secrets that it uses, and for no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::config::url_of;
use alluvium::log::{Change, Log, store};

use super::{code, text};
use crate::support::delta::{PIPELINE, append_table, change, data_file};
use crate::support::program::Site;

/// The secrets of both sources are missing.
const SOURCES: &str = r#"
[pipelines.shop.kafka]
brokers = "127.0.0.1:1"
[pipelines.shop.kafka.sasl]
mechanism = "SCRAM-SHA-512"
username = "me"
password = { env = "NO_SUCH_NAME" }
[pipelines.shop.tables.orders]
topic = "orders"
schema = "orders.avsc"
[pipelines.bank.postgres]
url = "postgresql://me@127.0.0.1:1/bank"
password = { file = "no-such-file" }
[pipelines.bank.tables.accounts]
table = "public.accounts"
"#;
const QUERY: [&str; 4] = ["query", "SELECT count(*) AS n FROM orders", "--format", "csv"];
const HISTORY: [&str; 2] = ["history", "orders"];

/// The exit code of a command, the result, and what else it tells.
fn told(site: &Site, command: &[&str]) -> (i32, String, String) {
    let common = ["--log-format", "text", "--config", "shared.toml"];
    let output = super::alluvium(&site.path(""), &[command, &common[..]].concat());
    let (result, log) = text(&output);
    (code(&output), result, log)
}

/// Makes the table `orders`: ten rows in its second version.
async fn fill(site: &Site) {
    let url = url_of(&site.table("orders").display().to_string()).expect("a place");
    let store = store::open(&url, &BTreeMap::new()).expect("a store");
    let made = Log::open_or_create(&url, Arc::clone(&store), &append_table(), PIPELINE).await;
    let adds = vec![data_file(&store, 0..10, "a").await];
    let change = Change { adds, ..change(None, 9) };
    made.expect("a table").commit(&change).await.expect("a commit");
}

#[tokio::test]
async fn tables_are_read_without_the_passwords_of_their_sources() {
    let site = Site::new();
    site.configure("shared", &format!("lake = \"{{dir}}/lake\"{SOURCES}"));
    fill(&site).await;
    let (code, result, log) = told(&site, &QUERY);
    assert_eq!((code, result.as_str()), (0, "n\n10\n"), "{log}");
    let (code, result, log) = told(&site, &HISTORY);
    assert!(code == 0 && result.contains("STREAMING UPDATE"), "{result}{log}");
    // It writes into the log of a table, and has got as far as to look for it.
    let (code, _, log) = told(&site, &["resnapshot", "accounts"]);
    assert!(code == 78 && log.contains("it is copied by the first run"), "{log}");

    for command in ["run", "check"] {
        let (code, _, log) = told(&site, &[command]);
        assert!(code == 78 && log.contains("2 problems in shared.toml"), "{command}: {log}");
        for line in [
            "shared.toml:7:1: pipelines.shop.kafka.sasl.password: the environment variable `NO_SUCH_NAME` is not set",
            "shared.toml:13:1: pipelines.bank.postgres.password: the secret file ",
        ] {
            assert!(log.contains(line), "{command} should tell {line}: {log}");
        }
    }
}

#[test]
fn a_secret_of_the_store_that_is_missing_is_told_to_every_command_with_its_line() {
    let site = Site::new();
    let storage = "[storage]\naws_access_key_id = \"me\"\naws_secret_access_key = { env = \"NO_SUCH_KEY\" }";
    site.configure("shared", &format!("lake = \"s3://bucket/lake\"\n{storage}{SOURCES}"));
    let line = "shared.toml:4:1: storage.aws_secret_access_key: the environment variable `NO_SUCH_KEY` is not set";
    for (command, problems) in [
        (&QUERY[..], "1 problem in"),
        (&HISTORY[..], "1 problem in"),
        (&["run"][..], "3 problems in"),
        (&["check"][..], "3 problems in"),
    ] {
        let (code, _, log) = told(&site, command);
        assert!(
            code == 78 && log.contains(problems) && log.contains(line),
            "{command:?} should tell {problems} and {line}: {log}"
        );
    }
}
