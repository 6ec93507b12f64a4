//! What the metrics say of a run of which everything is known: how many records there were, what became of each, and where the topic stands.

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;

use crate::support::history;
use crate::support::kafka::{Broker, send};
use crate::support::program::{Site, free_port, http, labelled, status};

const PATIENCE: Duration = Duration::from_secs(120);
const MEMORY: u64 = 64 << 20;
const BAD: &str = "no JSON";
const ID: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}"#;

/// Of ten records of a partition, one cannot be read, and one is a tombstone.
fn records(partition: i32, offsets: Range<usize>) -> impl Iterator<Item = (String, Option<String>)> {
    offsets.map(move |offset| {
        let id = partition as usize * 1_000 + offset;
        let value = match offset % 10 {
            3 => Some(BAD.to_owned()),
            7 => None,
            _ => Some(format!("{{\"id\":{id}}}")),
        };
        (id.to_string(), value)
    })
}

/// How many versions a table has.
fn versions(site: &Site, table: &str) -> u64 {
    let commit = |version: &u64| site.table(table).join(format!("_delta_log/{version:020}.json"));
    (0..).take_while(|version| commit(version).exists()).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_the_metrics_tell_what_became_of_every_record_and_where_the_topic_stands() {
    let broker = Broker::shared();
    let topic = broker.topic("accounts", 2, &[]).await;
    let (site, port) = (Site::new(), free_port());
    std::fs::write(site.path("id.avsc"), ID).expect("a schema");
    // Compaction would make versions and files of its own.
    let table = format!("topic = \"{topic}\"\nschema = \"{{dir}}/id.avsc\"\nauto_compact = false");
    let config = site.configure(
        "p",
        &format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"{} MiB\"\n{}\n\
             [pipelines.p.kafka]\nbrokers = \"{}\"\non_gap = \"earliest\"\n[pipelines.p.commit]\ninterval = \"100 ms\"\n\
             [pipelines.p.tables.current]\n{table}\nkey = [\"id\"]\nkey_from = \"message_key\"\n\
             [pipelines.p.tables.log]\n{table}\n",
            MEMORY >> 20,
            http(port),
            broker.bootstrap()
        ),
    );
    for partition in [0, 1] {
        broker.produce(&topic, partition, records(partition, 0..20));
    }
    site.catch_up(&config).await;

    // Retention takes 20 records that nobody has read, and the last 10 are of a transaction that is not over.
    broker.produce(&topic, 0, records(0, 20..130));
    broker.produce(&topic, 1, records(1, 20..60));
    broker.delete_records(&topic, 0, 40).await;
    // It is over when this test ends it, and not before: by itself the broker gives one up after a minute.
    let producer = broker.producer(&[("transactional.id", &topic), ("transaction.timeout.ms", "600000")]);
    producer.init_transactions(PATIENCE).expect("the broker answers");
    producer.begin_transaction().expect("a transaction");
    for (key, value) in records(0, 130..140) {
        send(&producer, &topic, 0, &key, value.as_deref());
    }
    producer.flush(PATIENCE).expect("the broker takes the records");

    let tables = ["current", "log", "p_dead_letters"];
    let before = tables.map(|table| versions(&site, table));
    let began = Instant::now();
    let mut program = site.run("program", &config);
    let source = format!("source=\"{topic}\"");
    let lane = |name: &str, partition: i32| labelled(port, name, &[source.as_str(), format!("partition=\"{partition}\"").as_str()]);
    let stands = |lag: f64, next: f64| {
        let lags = [0, 1].map(|partition| lane("alluvium_kafka_lag_records", partition));
        let committed = [0, 1].map(|partition| lane("alluvium_kafka_committed_offset", partition));
        (lags == [Some(lag), Some(0.0)] && committed == [Some(next), Some(60.0)]).then_some(())
    };
    program
        .until("all but the transaction is read", PATIENCE, || stands(10.0, 130.0))
        .await;
    assert_eq!(lane("alluvium_kafka_high_watermark", 0), Some(140.0));
    producer.commit_transaction(PATIENCE).expect("the transaction ends");
    // The mark of its end has an offset, too.
    program.until("everything is read", PATIENCE, || stands(0.0, 141.0)).await;
    assert_eq!([0, 1].map(|p| lane("alluvium_kafka_high_watermark", p)), [Some(141.0), Some(60.0)]);

    let read: Vec<_> = records(0, 40..140).chain(records(1, 20..60)).collect();
    let count = |is: fn(&Option<String>) -> bool| read.iter().filter(|(_, value)| is(value)).count() as f64;
    let (all, bad, tombstones) = (
        read.len() as f64,
        count(|value| value.as_deref() == Some(BAD)),
        count(Option::is_none),
    );
    let bytes: usize = read
        .iter()
        .map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len))
        .sum();
    let total = |name: &str, labels: &[&str]| labelled(port, name, labels).unwrap_or(0.0);
    let of_source = |name: &str| total(name, &[&source]);
    assert_eq!(of_source("alluvium_records_received_total"), all);
    assert_eq!(of_source("alluvium_received_bytes_total"), bytes as f64);
    assert_eq!(of_source("alluvium_gap_records_total"), 20.0, "two tables miss the same records");
    for (table, written, passed_over) in [
        ("current", all - bad, 0.0), // A tombstone deletes.
        ("log", all - bad - tombstones, tombstones),
    ] {
        let of = format!("table=\"{table}\"");
        let outcomes = ["written", "tombstone", "dead_letter", "filtered", "deduplicated"];
        let told = outcomes.map(|outcome| total("alluvium_records_total", &[&of, &format!("outcome=\"{outcome}\"")]));
        assert_eq!(told, [written, passed_over, bad, 0.0, 0.0], "{table}");
        assert_eq!(told.iter().sum::<f64>(), of_source("alluvium_records_received_total"), "{table}");
        assert_eq!(total("alluvium_dead_letters_total", &[&of]), bad, "{table}");
    }
    for (table, rows) in [("log", all - bad - tombstones), ("p_dead_letters", 2.0 * bad)] {
        let of = format!("table=\"{table}\"");
        assert_eq!(total("alluvium_rows_total", &[&of, "op=\"put\""]), rows, "{table}");
    }
    for (table, before) in tables.into_iter().zip(before) {
        let (of, now) = (format!("table=\"{table}\""), versions(&site, table));
        let results = ["ok", "ambiguous_recovered", "conflict", "error"];
        let told = results.map(|result| total("alluvium_commits_total", &[&of, &format!("result=\"{result}\"")]));
        assert_eq!(told, [(now - before) as f64, 0.0, 0.0, 0.0], "{table}");
        assert!(now > before);
        assert_eq!(total("alluvium_table_version", &[&of]), (now - 1) as f64, "{table}");
        let of_commits = ["alluvium_commit_rows_count", "alluvium_commit_duration_seconds_count"].map(|name| total(name, &[&of]));
        assert_eq!(of_commits, [(now - before) as f64; 2], "{table}");
        // One commit of a table follows the other.
        let took = total("alluvium_commit_duration_seconds_sum", &[&of]);
        assert!(took > 0.0 && took < began.elapsed().as_secs_f64(), "{table}: {took}");
    }
    for (table, changes) in [
        ("current", all - bad),
        ("log", all - bad - tombstones),
        ("p_dead_letters", 2.0 * bad),
    ] {
        let of = format!("table=\"{table}\"");
        assert_eq!(total("alluvium_commit_rows_sum", &[&of]), changes, "{table}");
    }
    assert_eq!(
        labelled(port, "alluvium_errors_total", &["stage=\"pipeline\""]),
        None,
        "no run has ended"
    );
    assert_eq!(total("alluvium_buffer_limit_bytes", &[]), MEMORY as f64);
    // No row is in flight any more; an eighth is set aside for what the client fetches ahead.
    let is_idle = || (total("alluvium_buffer_bytes", &[]) == (MEMORY / 8) as f64).then_some(());
    program.until("the memory of the rows is free", PATIENCE, is_idle).await;
    assert_eq!(total("alluvium_backpressure_active", &[]), 0.0);

    // Of two rows of the first version, one is deleted and one written anew.
    broker.produce(&topic, 1, [("1000", None), ("1001", Some("{\"id\":1001}"))]);
    let is_there = || (lane("alluvium_kafka_committed_offset", 1) == Some(62.0)).then_some(());
    program.until("both changes", PATIENCE, is_there).await;
    program.stop().await;
    // Files are counted now and then, and whenever a table is opened.
    let mut program = site.run("again", &config);
    for (table, deleted) in [("current", 2.0), ("log", 0.0), ("p_dead_letters", 0.0)] {
        let of = format!("table=\"{table}\"");
        let gauge = |name: &str| labelled(port, name, &[&of]);
        let live = history::live(&site.table(table));
        let count = live.len() as f64;
        assert!(count > 1.0 && live.values().sum::<u64>() as f64 == deleted, "{table}: {live:?}");
        program
            .until("its files are counted", PATIENCE, || gauge("alluvium_table_deleted_rows"))
            .await;
        let files = ["alluvium_table_files", "alluvium_table_small_files"].map(gauge);
        assert_eq!(files, [Some(count); 2], "{table}: none is large");
        assert_eq!(gauge("alluvium_table_deleted_rows"), Some(deleted), "{table}");
    }
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_counted_for_its_pipeline_by_where_it_happened_and_what_it_was() {
    let broker = Broker::shared();
    let topic = broker.topic("sound", 1, &[]).await;
    broker.produce(&topic, 0, [("1", Some("{\"id\":1}"))]);
    let (site, port) = (Site::new(), free_port());
    std::fs::write(site.path("id.avsc"), ID).expect("a schema");
    let missing = format!("{topic}-missing");
    let mut text = format!("lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\n{}\n", http(port));
    for (pipeline, topic) in [("sound", &topic), ("lost", &missing)] {
        text += &format!(
            "[pipelines.{pipeline}.kafka]\nbrokers = \"{}\"\n[pipelines.{pipeline}.commit]\ninterval = \"100 ms\"\n\
             [pipelines.{pipeline}.tables.of_{pipeline}]\ntopic = \"{topic}\"\nschema = \"{{dir}}/id.avsc\"\n",
            broker.bootstrap()
        );
    }
    let mut program = site.run("program", &site.configure("two", &text));
    let errors = |of: &[&str]| labelled(port, "alluvium_errors_total", of);
    let lost = ["pipeline=\"lost\"", "stage=\"pipeline\""];
    program.until("an error", PATIENCE, || errors(&lost)).await;
    assert_eq!(
        errors(&[lost[0], lost[1], "code=\"topic_missing\"", "kind=\"config\""]),
        Some(1.0),
        "it is not tried again"
    );
    let state = || status(port)?["pipelines"]["lost"]["state"].as_str().map(str::to_owned);
    let has_failed = || (state()? == "failed").then_some(());
    program.until("the end of its pipeline", PATIENCE, has_failed).await;
    let rows = || labelled(port, "alluvium_rows_total", &["table=\"of_sound\"", "op=\"put\""]).filter(|rows| *rows == 1.0);
    program.until("the other pipeline's row", PATIENCE, rows).await;
    assert_eq!(errors(&["pipeline=\"sound\"", "stage=\"pipeline\""]), None);
}
