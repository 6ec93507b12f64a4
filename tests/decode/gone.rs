//! A change that the table cannot hold, and an update behind it that leaves a large value out: from a topic to the table.

use std::time::Duration;

use crate::support::bank::read;
use crate::support::program::Site;

use super::topics::Topics;

const SCHEMA: &str = r#"{"type": "record", "name": "r", "fields": [
    {"name": "id", "type": "long"}, {"name": "n", "type": ["null", "int"]}, {"name": "doc", "type": ["null", "string"]}]}"#;

fn event(op: &str, n: &str, doc: &str) -> String {
    format!(r#"{{"op":"{op}","before":null,"after":{{"id":1,"n":{n},"doc":"{doc}"}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn v16_an_update_is_not_filled_from_the_row_before_a_dead_letter() {
    let topics = Topics::new(&[("rows", 1), ("others", 1)]);
    let site = Site::new();
    std::fs::write(site.path("r.avsc"), SCHEMA).unwrap();
    let mut text = topics.pipeline();
    for table in ["rows", "others"] {
        text += &format!(
            "[pipelines.p.tables.{table}]\ntopic = \"{table}\"\nformat = \"debezium-json\"\nkey = [\"id\"]\nschema = \"{{dir}}/r.avsc\"\n"
        );
    }
    let config = site.configure("p", &text);
    let produce = |table: &str, value: &str| topics.produce(table, r#"{"id":1}"#, value);
    const ROWS: &str = "SELECT id, n, doc FROM rows";

    produce("rows", &event("c", "1", "A"));
    site.catch_up(&config).await;
    assert_eq!(read(&site, ROWS, &["rows"]).await, [["1", "1", "A"]]);
    produce("rows", &event("u", "\"no number\"", "B"));
    site.catch_up(&config).await;
    assert_eq!(read(&site, ROWS, &["rows"]).await, [[""; 3]; 0]);
    let letters = "SELECT \"table\", position, code FROM p_dead_letters";
    assert_eq!(read(&site, letters, &["p_dead_letters"]).await, [["rows", "1", "type_mismatch"]]);

    produce("rows", &event("u", "2", "__debezium_unavailable_value"));
    produce("others", &event("c", "1", "A"));
    let mut program = site.start("stopped", &["run", "--config", config.to_str().unwrap(), "--until-caught-up"]);
    let exit = program.wait(Duration::from_secs(120)).await;
    let said = program.log_text();
    assert_eq!(exit.status.code(), Some(65), "{said}");
    for what in ["unknown_row", "`id` = 1", "`doc`", "on_unknown_row", "the others go on"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    assert_eq!(read(&site, "SELECT id FROM others", &["others"]).await, [["1"]], "{said}");

    // It goes on without the row where that is said, and tells so.
    let without = site.configure("without", &text.replace("key = ", "on_unknown_row = \"leave_out\"\nkey = "));
    site.catch_up(&without).await;
    assert_eq!(read(&site, ROWS, &["rows"]).await, [[""; 3]; 0]);
    let said = std::fs::read_to_string(site.path("catch-up.log")).unwrap();
    assert!(said.contains("they were left out") && said.contains("`id` = 1"), "{said}");

    // Debezium's snapshot tells the row whole.
    produce("rows", &event("r", "2", "B"));
    site.catch_up(&config).await;
    assert_eq!(read(&site, ROWS, &["rows"]).await, [["1", "2", "B"]]);
}
