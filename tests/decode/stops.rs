//! Records that stop their table: the first of a topic whose schema makes no table, and later ones of another type than the table's.

use std::time::Duration;

use crate::support::bank::read;
use crate::support::history;
use crate::support::program::Site;

use super::documents;
use super::topics::Topics;

const ID: &str = r#"{"type":"int64","optional":false,"field":"id"}"#;

/// A flattened row with its schema.
fn row(fields: &str, payload: &str) -> String {
    format!(r#"{{"schema":{{"type":"struct","optional":false,"fields":[{fields}]}},"payload":{payload}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_a_first_record_that_makes_no_table_stops_its_table_at_the_start_and_while_it_runs() {
    let tables = ["good", "spaced", "mapped", "keyless", "bare", "documents"];
    let names = tables.map(|table| format!("of_{table}"));
    let topics = Topics::new(&names.each_ref().map(|name| (name.as_str(), 1)));
    let site = Site::new();
    let int_keys = r#"{"type":"map","optional":true,"field":"m","keys":{"type":"int16","optional":false},"values":{"type":"double","optional":false}}"#;
    let spaced = r#"{"type":"string","optional":true,"field":"Order Date"}"#;
    let bad = [
        (
            "spaced",
            row(&format!("{ID},{spaced}"), r#"{"id":1,"Order Date":"x"}"#),
            "`Order Date`",
        ),
        ("mapped", row(&format!("{ID},{int_keys}"), r#"{"id":1,"m":[[1,2.5]]}"#), "`m`"),
        (
            "keyless",
            row(r#"{"type":"int64","optional":false,"field":"no"}"#, r#"{"no":1}"#),
            "no column `id`",
        ),
        ("bare", r#"{"id":1}"#.to_owned(), "do not carry their schema"),
        ("documents", documents::in_schema(documents::CREATE), "`ExtractNewDocumentState`"),
    ];
    let mut text = topics.pipeline() + "discovery = \"500 ms\"\n[pipelines.p.commit]\ninterval = \"100 ms\"\n";
    for table in tables {
        text += &format!("[pipelines.p.tables.{table}]\ntopic = \"of_{table}\"\nformat = \"debezium-json\"\nkey = [\"id\"]\n");
    }
    let config = site.configure("p", &text);
    let produce = |table: &str, value: &str| topics.produce(&format!("of_{table}"), r#"{"id":1}"#, value);
    let within = Duration::from_secs(60);

    produce("good", &row(ID, r#"{"id":1}"#));
    let mut program = site.run("running", &config);
    let is_made = || site.table("good").join("_delta_log").exists().then_some(());
    program.until("the table that is good", within, is_made).await;
    for (table, ..) in &bad {
        assert!(!site.table(table).exists(), "`{table}` has no columns yet: nothing of it is seen");
    }
    for (table, value, _) in &bad {
        produce(table, value);
    }
    let said = || std::fs::read_to_string(site.path("running.log")).unwrap_or_default();
    let all_stopped = || (said().matches("the table stopped; the others go on").count() == bad.len()).then_some(());
    program.until("the other tables to stop", within, all_stopped).await;
    produce("good", &row(ID, r#"{"id":2}"#));
    let goes_on = || (history::marks(&site.table("good")) == [(0, 1)].into()).then_some(());
    program.until("the good one to go on", within, goes_on).await;
    program.stop().await;

    produce("good", &row(ID, r#"{"id":3}"#));
    let mut program = site.start("start", &["run", "--config", config.to_str().unwrap(), "--until-caught-up"]);
    let exit = program.wait(Duration::from_secs(120)).await;
    assert!(!exit.status.success(), "not all that was asked for is done");
    assert_eq!(
        read(&site, "SELECT id FROM good ORDER BY id", &["good"]).await,
        [["1"], ["2"], ["3"]]
    );
    let said = program.log_text();
    for (table, _, what) in &bad {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("table `{table}` cannot be made")) && line.contains("the others go on"));
        let line = line.unwrap_or_else(|| panic!("{table}: {said}"));
        assert!(line.contains(what) && line.contains(&format!("of_{table}")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_a_table_that_a_record_stops_has_all_that_came_before_it() {
    let topics = Topics::new(&[("retyped", 1), ("widened", 1), ("spaced", 1), ("good", 1)]);
    let site = Site::new();
    let mut text = topics.pipeline();
    let of = |kind: &str, id: i32, value: &str| {
        let fields = format!(r#"{ID},{{"type":"{kind}","optional":true,"field":"d"}}"#);
        row(&fields, &format!(r#"{{"id":{id},"d":{value}}}"#))
    };
    // Another type is refused by the decoder, a wider one by the table; and not all writers of JSON are sparing with spaces.
    for (table, bad, space) in [
        ("retyped", of("string", 3, "\"x\""), ""),
        ("widened", of("int64", 3, "3"), ""),
        ("spaced", of("string", 3, "\"x\""), " "),
    ] {
        text += &format!("[pipelines.p.tables.{table}]\ntopic = \"{table}\"\nformat = \"debezium-json\"\nkey = [\"id\"]\n");
        for value in [of("int32", 1, "1"), of("int32", 2, "2"), bad] {
            topics.produce(table, "{}", &value.replace(':', &format!("{space}:{space}")));
        }
    }
    // One that goes on, for the run to end well but for the others.
    text += "[pipelines.p.tables.good]\ntopic = \"good\"\nformat = \"debezium-json\"\nkey = [\"id\"]\n";
    topics.produce("good", "{}", &row(ID, r#"{"id":1}"#));
    let config = site.configure("p", &text);
    let mut program = site.start("stopped", &["run", "--config", config.to_str().unwrap(), "--until-caught-up"]);
    let exit = program.wait(Duration::from_secs(120)).await;
    let said = program.log_text();
    assert_eq!(exit.status.code(), Some(65), "{said}");
    for table in ["retyped", "widened", "spaced"] {
        let rows = read(&site, &format!("SELECT id, d FROM {table} ORDER BY id"), &[table]).await;
        assert_eq!(rows, [["1", "1"], ["2", "2"]], "{table}: {said}");
    }
    assert_eq!(read(&site, "SELECT id FROM good", &["good"]).await, [["1"]]);
}
