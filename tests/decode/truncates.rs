//! A truncate of Debezium's in topics of one partition and of two: from a topic to the table.

use crate::support::bank::read;
use crate::support::program::Site;

use super::topics::Topics;

const SCHEMA: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}"#;
const TRUNCATE: &str = r#"{"op":"t","before":null,"after":null}"#;

#[tokio::test(flavor = "multi_thread")]
async fn u7_a_truncate_empties_a_table_that_one_partition_feeds_and_is_a_dead_letter_of_others() {
    let topics = Topics::new(&[("alone", 1), ("divided", 2)]);
    let site = Site::new();
    std::fs::write(site.path("r.avsc"), SCHEMA).unwrap();
    let mut text = topics.pipeline();
    for (table, of) in [
        ("one", "[\"alone\"]"),
        ("two", "[\"divided\"]"),
        ("three", "[\"alone\", \"divided\"]"),
    ] {
        text += &format!(
            "[pipelines.p.tables.{table}]\ntopic = {of}\nformat = \"debezium-json\"\nkey = [\"id\"]\nschema = \"{{dir}}/r.avsc\"\n"
        );
    }
    let config = site.configure("p", &text);
    for (id, value) in [
        (1, r#"{"op":"c","after":{"id":1}}"#),
        (0, TRUNCATE),
        (2, r#"{"op":"c","after":{"id":2}}"#),
    ] {
        for topic in ["alone", "divided"] {
            topics.produce(topic, &format!("{{\"id\":{id}}}"), value);
        }
    }
    site.catch_up(&config).await;

    for (table, rows) in [("one", vec![["2"]]), ("two", vec![["1"], ["2"]]), ("three", vec![["1"], ["2"]])] {
        assert_eq!(
            read(&site, &format!("SELECT id FROM {table} ORDER BY id"), &[table]).await,
            rows,
            "{table}"
        );
    }
    let letters = "SELECT \"table\", lane, position, code FROM p_dead_letters ORDER BY 1, 2";
    let code = "truncate_over_partitions";
    assert_eq!(
        read(&site, letters, &["p_dead_letters"]).await,
        [
            ["three", "alone/0", "1", code],
            ["three", "divided/0", "1", code],
            ["two", "divided/0", "1", code]
        ]
    );
}
