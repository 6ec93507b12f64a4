//! Several tables at one position, as `query` is asked for it on the command line, and what `history` tells to ask for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{alluvium, code, result, text};
use crate::support::kafka::Broker;
use crate::support::program::Site;

const JOIN: &str = "SELECT c.name, o.status FROM orders o JOIN customers c ON o.customer = c.id ORDER BY c.name";

/// Two tables that two topics of two partitions feed.
fn configure(site: &Site, broker: &Broker, customers: &str, orders: &str) -> PathBuf {
    let mut text = format!(
        "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nhttp = {{ address = \"\" }}\n[pipelines.p.kafka]\nbrokers = \"{}\"\n",
        broker.bootstrap()
    );
    for (table, topic, columns) in [
        ("customers", customers, r#"{"name": "name", "type": "string"}"#),
        (
            "orders",
            orders,
            r#"{"name": "customer", "type": "long"}, {"name": "status", "type": "long"}"#,
        ),
    ] {
        let schema = format!(r#"{{"type": "record", "name": "r", "fields": [{{"name": "id", "type": "long"}}, {columns}]}}"#);
        std::fs::write(site.path(&format!("{table}-of-two.avsc")), schema).unwrap();
        text += &format!("[pipelines.p.tables.{table}]\ntopic = \"{topic}\"\nschema = \"{{dir}}/{table}-of-two.avsc\"\nkey = [\"id\"]\n");
    }
    site.configure("p", &text)
}

/// `query` with these options, as CSV without its header.
fn rows(folder: &Path, sql: &str, options: &[&str]) -> String {
    let told = result(
        folder,
        &[&["query", sql, "--format", "csv", "--config", "p.toml"], options].concat(),
    );
    told.split_once('\n').expect("a header").1.to_owned()
}

/// The versions of a table, oldest first, each with how far it is: its lanes' positions, as `--position` takes them.
fn versions(folder: &Path, table: &str) -> Vec<(String, Vec<String>)> {
    let told = result(folder, &["history", table, "--format", "json", "--config", "p.toml"]);
    let (mut at, mut versions) = (BTreeMap::new(), Vec::new());
    for line in told.lines().rev() {
        let entry: Value = serde_json::from_str(line).unwrap();
        for (lane, range) in entry["alluvium"]["positions"].as_object().into_iter().flatten() {
            at.insert(lane.clone(), range[1].as_u64().expect("a position"));
        }
        let positions = at.iter().map(|(lane, at)| format!("{lane}:{at}")).collect();
        versions.push((entry["version"].to_string(), positions));
    }
    versions
}

fn position(lanes: &[String]) -> Vec<&str> {
    let lanes = lanes.iter().map(String::as_str);
    std::iter::once("--position").chain(lanes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_are_joined_at_one_position_of_all_their_partitions() {
    let broker = Broker::shared();
    let (customers, orders) = (broker.topic("customers", 2, &[]).await, broker.topic("orders", 2, &[]).await);
    let site = Site::new();
    let (folder, config) = (site.path(""), configure(&site, broker, &customers, &orders));
    let customer = |partition: i32, id: u64, name: &str| {
        let value = format!("{{\"id\": {id}, \"name\": \"{name}\"}}");
        broker.produce(&customers, partition, [("k", Some(value))]);
    };
    let order = |partition: i32, id: u64, status: u64| {
        let value = format!("{{\"id\": {id}, \"customer\": {id}, \"status\": {status}}}");
        broker.produce(&orders, partition, [("k", Some(value))]);
    };
    // In each round a version of each table: in the second one partition of each goes on, in the third the other.
    customer(0, 1, "ann 1");
    customer(1, 2, "bob 1");
    order(0, 1, 10);
    order(1, 2, 10);
    site.catch_up(&config).await;
    customer(0, 1, "ann 2");
    order(1, 2, 20);
    site.catch_up(&config).await;
    customer(1, 2, "bob 3");
    order(0, 1, 30);
    site.catch_up(&config).await;

    let lanes = |of: [u64; 4]| -> Vec<String> {
        let named = [(&customers, 0), (&customers, 1), (&orders, 0), (&orders, 1)].into_iter();
        named
            .zip(of)
            .map(|((topic, partition), at)| format!("{topic}/{partition}:{at}"))
            .collect()
    };
    for (at, says) in [
        ([0, 0, 0, 0], "ann 1,10\nbob 1,10\n"),
        ([1, 0, 0, 1], "ann 2,10\nbob 1,20\n"),
        ([1, 1, 1, 1], "ann 2,30\nbob 3,20\n"),
        // Each table for its own lanes: one as it was at first, the other as it is.
        ([0, 0, 1, 1], "ann 1,30\nbob 1,20\n"),
        ([1, 1, 0, 0], "ann 2,10\nbob 3,10\n"),
        // The first version that holds the one partition's position holds more of the other.
        ([0, 1, 1, 0], "ann 2,30\nbob 3,20\n"),
    ] {
        assert_eq!(rows(&folder, JOIN, &position(&lanes(at))), says, "{at:?}");
    }
    for (named, exit, says) in [
        (lanes([0, 0, 0, 7]), 75, format!("{orders}/1:7")),
        (lanes([0, 0, 0, 0])[..2].to_vec(), 64, format!("{orders}/0:1")),
    ] {
        let output = alluvium(
            &folder,
            &[&["query", JOIN, "--config", "p.toml"][..], &position(&named)[..]].concat(),
        );
        let (told, log) = text(&output);
        assert!(
            code(&output) == exit && told.is_empty() && log.contains(&says),
            "{named:?}: {told}{log}"
        );
    }

    // What `history` tells can be asked for: of each table, and of the newest versions of both.
    let mut newest = Vec::new();
    for table in ["customers", "orders"] {
        let (sql, mut versions) = (format!("SELECT * FROM {table} ORDER BY id"), versions(&folder, table));
        let whole = |(_, lanes): &&(String, Vec<String>)| lanes.len() == 2;
        let mut differ = Vec::new();
        for (version, lanes) in versions.iter().filter(whole) {
            let there = rows(&folder, &sql, &["--version", version]);
            assert_eq!(rows(&folder, &sql, &position(lanes)), there, "{table} at version {version}");
            differ.push(there);
        }
        differ.dedup();
        assert_eq!(differ.len(), 3, "{table}: {versions:?}");
        newest.extend(versions.pop().expect("a version").1);
    }
    assert!(newest.iter().all(|lane| lane.contains('@')), "{newest:?}");
    assert_eq!(rows(&folder, JOIN, &position(&newest)), rows(&folder, JOIN, &[]));
}
