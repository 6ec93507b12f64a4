//! Topics of every kind, and what the program makes of them: compressed ones, many at once, many partitions, names by pattern, records that
//! came twice, and records that are gone.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::Producer;
use serde_json::{Value, json};

use super::PATIENCE;
use crate::support::bank::read;
use crate::support::changes::{Changes, Encoding};
use crate::support::history;
use crate::support::kafka::{Broker, send};
use crate::support::model::Model;
use crate::support::program::{Exit, Site, free_port, http, status};
use crate::support::shop::{LIVE_MAX, PARTITIONS, Shop, Source};
use crate::support::verdict;

const MIB: u64 = 1 << 20;
const MEMORY_MIB: u64 = 64;
/// The program itself, the client's buffers, what the allocator keeps: 150 MiB by themselves, and more where the machine is busy with other tests.
const BESIDE_MEMORY: u64 = 200 * MIB;
/// What brokers answer with at once, as it is compressed: a 64th of the memory.
const ANSWER: u64 = MEMORY_MIB * MIB / 64;

const NOTES: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string"}]}"#;

/// A pipeline that feeds an append table `notes` from these topics.
fn configure(site: &Site, broker: &Broker, topics: &[String], kafka: &str) -> PathBuf {
    std::fs::write(site.path("notes.avsc"), NOTES).expect("a schema");
    let text = format!(
        "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"{MEMORY_MIB} MiB\"\nhttp = {{ address = \"\" }}\n\
         [pipelines.p.kafka]\nbrokers = \"{}\"\n{kafka}\n\
         [pipelines.p.tables.notes]\ntopic = {topics:?}\nschema = \"{{dir}}/notes.avsc\"\nmetadata = [\"__topic\", \"__partition\"]\n",
        broker.bootstrap()
    );
    site.configure("p", &text)
}

fn record(id: usize, note: &str) -> String {
    format!("{{\"id\": {id}, \"note\": \"{note}\"}}")
}

/// Rows are in flight within the memory, and answers on top of it, as what they unpack to.
fn stays_within(exit: Exit, unpacked_answers: u64) {
    let most = MEMORY_MIB * MIB + BESIDE_MEMORY + unpacked_answers;
    println!("peak {} MiB, of at most {} MiB", exit.peak_rss_bytes / MIB, most / MIB);
    assert!(
        exit.peak_rss_bytes < most,
        "{} MiB of {} MiB",
        exit.peak_rss_bytes / MIB,
        most / MIB
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn k14_topics_of_every_compression_are_read_whole_and_in_bounded_memory() {
    const RECORDS: usize = 80_000;
    const LANES: usize = 8;
    let broker = Broker::shared();
    let mut rng = SmallRng::seed_from_u64(1);
    let (mut topics, mut expected) = (Vec::new(), Vec::new());
    let (mut unpacked_bytes, mut ratio_max) = (0, 0);
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let topic = broker.topic(codec, LANES as i32, &[]).await;
        let producer = broker.producer(&[("compression.type", codec), ("linger.ms", "50")]);
        let mut bytes = 0;
        for id in 0..RECORDS {
            let note = format!("{:032x}{}", rng.random::<u128>(), "-".repeat(968));
            let value = record(id, &note);
            bytes += value.len() as u64;
            send(&producer, &topic, (id % LANES) as i32, "k", Some(&value));
        }
        producer.flush(PATIENCE).expect("the broker takes all records");
        let ratio = bytes / broker.stored_bytes(&topic);
        println!("{codec}: {bytes} bytes are {ratio} times what is stored");
        assert!(ratio > 2, "{codec} compresses");
        ratio_max = ratio_max.max(ratio + 1);
        unpacked_bytes += bytes;
        for lane in 0..LANES {
            let count = (RECORDS / LANES).to_string();
            expected.push(
                [
                    topic.clone(),
                    lane.to_string(),
                    count.clone(),
                    count.clone(),
                    (RECORDS / LANES * 1_000).to_string(),
                ]
                .to_vec(),
            );
        }
        topics.push(topic);
    }
    let site = Site::new();
    let exit = site.catch_up(&configure(&site, broker, &topics, "")).await;
    let sql = "SELECT __topic, __partition, COUNT(*), COUNT(DISTINCT id), SUM(LENGTH(note)) FROM notes GROUP BY __topic, __partition";
    expected.sort();
    assert_eq!(read(&site, sql, &["notes"]).await, expected);
    let answers = ANSWER * ratio_max;
    assert!(
        unpacked_bytes > MEMORY_MIB * MIB + BESIDE_MEMORY + answers,
        "a backlog that would not fit"
    );
    stays_within(exit, answers);
}

#[tokio::test(flavor = "multi_thread")]
async fn k14_a_batch_that_unpacks_to_more_than_the_memory_is_read_in_bounded_memory() {
    const RECORDS: usize = 20_000;
    const NOTE: usize = 4_500;
    let broker = Broker::shared();
    let topic = broker.topic("bomb", 1, &[]).await;
    let properties = [
        ("compression.type", "zstd"),
        ("linger.ms", "10000"),
        ("batch.num.messages", "1000000"),
        ("batch.size", "200000000"),
        ("message.max.bytes", "200000000"),
    ];
    let producer = broker.producer(&properties);
    let note = "-".repeat(NOTE);
    let mut bytes = 0;
    for id in 0..RECORDS {
        let value = record(id, &note);
        bytes += value.len() as u64;
        send(&producer, &topic, 0, "k", Some(&value));
    }
    producer.flush(PATIENCE).expect("the broker takes all records");
    let stored = broker.stored_bytes(&topic);
    println!("{stored} bytes unpack to {bytes}");
    assert!(stored < ANSWER, "one answer has all of it");
    assert!(bytes > MEMORY_MIB * MIB, "more than the memory");
    let site = Site::new();
    // As the message says of a batch that is too large to be unpacked.
    let kafka = "options = { \"receive.message.max.bytes\" = \"300000000\" }";
    let exit = site.catch_up(&configure(&site, broker, &[topic], kafka)).await;
    let rows = read(
        &site,
        "SELECT COUNT(*), COUNT(DISTINCT id), SUM(LENGTH(note)) FROM notes",
        &["notes"],
    )
    .await;
    assert_eq!(rows, [[RECORDS.to_string(), RECORDS.to_string(), (RECORDS * NOTE).to_string()]]);
    // As it was unpacked, and what the client keeps of each record.
    stays_within(exit, 2 * bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_hundreds_of_partitions_is_read_whole_and_read_on() {
    const LANES: i32 = 300;
    let broker = Broker::shared();
    let topic = broker.topic("wide", LANES, &[]).await;
    let site = Site::new();
    let config = configure(&site, broker, std::slice::from_ref(&topic), "");
    let producer = broker.producer(&[]);
    for round in 1..=2_usize {
        for id in 0..LANES as usize * 10 {
            send(&producer, &topic, id as i32 % LANES, "k", Some(&record(id, "-")));
        }
        producer.flush(PATIENCE).expect("the broker takes all records");
        site.catch_up(&config).await;
        let counts = "SELECT COUNT(*) AS n FROM notes GROUP BY __partition";
        let sql = format!("SELECT COUNT(*), MIN(n), MAX(n) FROM ({counts}) AS counts");
        let each = (round * 10).to_string();
        assert_eq!(read(&site, &sql, &["notes"]).await, [[LANES.to_string(), each.clone(), each]]);
        assert_eq!(history::app_ids(&site.table("notes")).len(), LANES as usize);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_topics_that_a_pattern_takes_feed_one_table_and_one_that_comes_later_joins_them() {
    let broker = Broker::shared();
    let prefix = broker.topic("matched", 1, &[]).await;
    let [orders, users] = ["orders", "users"].map(|name| format!("{prefix}-{name}"));
    // The pattern is of the whole name.
    let others = [format!("{orders}-old"), format!("old-{orders}"), prefix.clone()];
    let put = |topic: &str, ids: Range<usize>| broker.produce(topic, 0, ids.map(|id| ("k", Some(record(id, "-")))));
    for topic in [&orders, &others[0], &others[1]] {
        broker.create_topic(topic, 1, &[]).await;
    }
    put(&orders, 0..10);
    others.iter().for_each(|topic| put(topic, 100..110));

    let (site, port) = (Site::new(), free_port());
    let often = "discovery = \"500 ms\"\n[pipelines.p.commit]\ninterval = \"100 ms\"";
    let text = std::fs::read_to_string(configure(&site, broker, &[], often)).expect("a configuration");
    let text = text.replace("topic = []", &format!("topic_pattern = '{prefix}-(orders|users)'"));
    let config = site.configure("p", &text.replace("http = { address = \"\" }", &http(port)));
    let mut program = site.run("program", &config);
    let holds = |topic: &str| {
        let at = status(port)?["pipelines"]["p"]["tables"]["notes"]["positions"][format!("{topic}/0")].as_u64();
        (at == Some(9)).then_some(())
    };
    program.until("the topic that is there", PATIENCE, || holds(&orders)).await;
    // Of those that come while it runs, too, one is of the pattern, and one is not.
    let other = format!("{users}-old");
    broker.create_topic(&other, 1, &[]).await;
    put(&other, 100..110);
    broker.create_topic(&users, 1, &[]).await;
    put(&users, 0..10);
    program.until("the topic that came later", PATIENCE, || holds(&users)).await;
    program.stop().await;
    let sql = "SELECT __topic, COUNT(*), COUNT(DISTINCT id), MAX(id) FROM notes GROUP BY __topic";
    let each = |count: usize| [&orders, &users].map(|topic| [topic.clone(), count.to_string(), count.to_string(), (count - 1).to_string()]);
    assert_eq!(read(&site, sql, &["notes"]).await, each(10));
    // Another process goes on with both.
    put(&orders, 10..15);
    put(&users, 10..15);
    site.catch_up(&config).await;
    assert_eq!(read(&site, sql, &["notes"]).await, each(15));
}

/// The gaps that versions tell of, oldest first: by the commits as they lie there, and by `alluvium history`.
async fn gaps(site: &Site, config: &Path, table: &str) -> [Vec<(u64, Value)>; 2] {
    let of = |version: &Value, said: &Value| {
        let told = said["notes"].get("gaps")?;
        Some((version.as_u64().expect("a version is a number"), told.clone()))
    };
    let commits = history::read(&site.table(table));
    let in_commits = commits.iter().filter_map(|commit| {
        let said: Value = serde_json::from_str(commit.info["userMetadata"].as_str()?).expect("what alluvium says is JSON");
        of(&json!(commit.version), &said)
    });
    let path = config.to_str().expect("a path in UTF-8");
    let mut program = site.start("history", &["history", table, "--format", "json", "--config", path]);
    let exit = program.wait(PATIENCE).await;
    let text = program.log_text();
    assert!(exit.status.success(), "{text}");
    let lines = text
        .lines()
        .rev()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    let in_history = lines.filter_map(|entry| of(&entry["version"], &entry["alluvium"]));
    [in_commits.collect(), in_history.collect()]
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_gap_that_is_passed_over_stands_in_its_commit_and_in_the_history() {
    let broker = Broker::shared();
    let topic = broker.topic("passed-over", 1, &[]).await;
    let put = |ids: Range<usize>| broker.produce(&topic, 0, ids.map(|id| ("k", Some(record(id, "-")))));
    let site = Site::new();
    let config = |on_gap: &str| configure(&site, broker, std::slice::from_ref(&topic), &format!("on_gap = \"{on_gap}\""));
    put(0..10);
    site.catch_up(&config("stop")).await;
    put(10..30);
    broker.delete_records(&topic, 0, 25).await;
    let (code, said) = ended(&site, "stops", "run", &config("stop")).await;
    assert!(code == Some(65) && said.contains("15 offsets are gone by retention"), "{said}");
    // Once it is passed, it is told no more.
    for _ in 0..2 {
        site.catch_up(&config("earliest")).await;
    }
    let rows = read(&site, "SELECT COUNT(*), COUNT(DISTINCT id), MAX(id) FROM notes", &["notes"]).await;
    assert_eq!(rows, [["15", "15", "29"]]);
    let [in_commits, in_history] = gaps(&site, &config("earliest"), "notes").await;
    let [(_, told)] = &in_commits[..] else { panic!("{in_commits:?}") };
    let [lane] = told.as_array().map(Vec::as_slice).unwrap_or_default() else {
        panic!("{told}")
    };
    assert_eq!((&lane["from"], &lane["until"]), (&json!(10), &json!(25)), "{told}");
    let named = lane["lane"].as_str().expect("a lane has a name");
    assert!(named.starts_with(&format!("{topic}/0@")), "{told}");
    assert_eq!(in_history, in_commits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_pipeline_is_refused_by_a_table_that_only_grows() {
    let broker = Broker::shared();
    let topic = broker.topic("renamed", 2, &[]).await;
    let producer = broker.producer(&[]);
    for id in 0..10_usize {
        send(&producer, &topic, id as i32 % 2, "k", Some(&record(id, "-")));
    }
    producer.flush(PATIENCE).expect("the broker takes all records");
    let site = Site::new();
    let config = configure(&site, broker, &[topic], "");
    site.catch_up(&config).await;
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let renamed = site.configure("q", &text.replace("[pipelines.p.", "[pipelines.q."));
    for command in ["check", "run"] {
        let mut program = site.start(command, &[command, "--config", renamed.to_str().expect("a path in UTF-8")]);
        let code = program.wait(PATIENCE).await.status.code();
        let said = program.log_text();
        assert!(
            code == Some(78) && said.contains("pipeline `p`") && said.contains("another location"),
            "{said}"
        );
    }
    assert_eq!(read(&site, "SELECT COUNT(*) FROM notes", &["notes"]).await, [["10"]]);
}

/// The code with which a command of the program ends, and what it says.
async fn ended(site: &Site, name: &str, command: &str, config: &Path) -> (Option<i32>, String) {
    let mut program = site.start(name, &[command, "--config", config.to_str().expect("a path in UTF-8")]);
    (program.wait(PATIENCE).await.status.code(), program.log_text())
}

/// The same configuration with another name of the pipeline, and more lines for its table.
fn renamed(site: &Site, config: &Path, name: &str, more: &str) -> PathBuf {
    let text = std::fs::read_to_string(config).expect("a configuration");
    let text = text.replace("[pipelines.p.", &format!("[pipelines.{name}."));
    site.configure(&format!("as-{name}"), &format!("{text}{more}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_pipeline_takes_over_where_the_old_name_ended_and_passes_over_nothing() {
    let broker = Broker::shared();
    for more in ["", "key = [\"id\"]"] {
        let topic = broker.topic("handed-over", 1, &[]).await;
        let put = |ids: Range<usize>| broker.produce(&topic, 0, ids.map(|id| ("k", Some(record(id, "-")))));
        let site = Site::new();
        let config = |name: &str, kafka: &str| renamed(&site, &configure(&site, broker, std::slice::from_ref(&topic), kafka), name, more);
        let sql = "SELECT COUNT(*), COUNT(DISTINCT id) FROM notes";
        let holds = async |rows: usize| assert_eq!(read(&site, sql, &["notes"]).await, [[rows.to_string(), rows.to_string()]]);
        put(0..10);
        site.catch_up(&config("p", "")).await;
        put(10..20);
        for command in ["check", "run"] {
            let latest = config("q", "start = \"latest\"");
            let (code, said) = ended(&site, &format!("latest-{command}"), command, &latest).await;
            assert!(code == Some(78) && said.contains("pipeline `p`"), "{said}");
            assert!(said.contains("10 offsets, from 10 on, would be missing"), "{said}");
        }
        holds(10).await;
        // The old name reads them, and then there is nothing between.
        site.catch_up(&config("p", "")).await;
        site.catch_up(&config("q", "start = \"latest\"")).await;
        put(20..30);
        site.catch_up(&config("q", "start = \"latest\"")).await;
        holds(30).await;

        put(30..40);
        broker.delete_records(&topic, 0, 36).await;
        for (command, on_gap) in [("check", "stop"), ("run", "stop"), ("run", "earliest")] {
            let third = config("r", &format!("on_gap = \"{on_gap}\""));
            let (code, said) = ended(&site, &format!("gap-{command}-{on_gap}"), command, &third).await;
            assert!(code == Some(78) && said.contains("pipeline `q`"), "{said}");
            assert!(said.contains("6 offsets, from 30 on, would be missing"), "{said}");
        }
        for command in ["check", "run"] {
            let (code, said) = ended(&site, &format!("own-{command}"), command, &config("q", "")).await;
            assert!(code == Some(65) && said.contains("6 offsets are gone by retention"), "{said}");
        }
        holds(30).await;
        // As the message says.
        site.catch_up(&config("q", "on_gap = \"earliest\"")).await;
        holds(34).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_what_is_said_of_a_topic_made_anew_can_be_followed() {
    let broker = Broker::shared();
    let put = |topic: &str, ids: Range<usize>| broker.produce(topic, 0, ids.map(|id| ("k", Some(record(id, "-")))));
    let sql = "SELECT COUNT(*), COUNT(DISTINCT id) FROM notes";
    for is_alone in [true, false] {
        let (anew, other) = (broker.topic("made-anew", 1, &[]).await, broker.topic("beside", 1, &[]).await);
        let site = Site::new();
        let of_topics = |name: &str, topics: &[&String]| {
            let topics: Vec<String> = topics.iter().map(|&topic| topic.clone()).collect();
            renamed(&site, &configure(&site, broker, &topics, ""), name, "")
        };
        let both = if is_alone { vec![&anew] } else { vec![&anew, &other] };
        put(&anew, 0..5);
        put(&other, 100..105);
        site.catch_up(&of_topics("p", &both)).await;
        broker.delete_topic(&anew).await;
        broker.until_gone(&anew).await;
        broker.create_topic(&anew, 1, &[]).await;
        put(&anew, 10..15);
        for command in ["check", "run"] {
            let (code, said) = ended(&site, &format!("anew-{command}"), command, &of_topics("p", &both)).await;
            let choice = if is_alone {
                "give the pipeline a new name"
            } else {
                "a pipeline of another name, in a file of its own"
            };
            assert!(code == Some(65) && said.contains(choice), "{said}");
        }
        let rows = if is_alone {
            site.catch_up(&of_topics("q", &both)).await;
            "10"
        } else {
            let (code, said) = ended(&site, "all", "run", &of_topics("q", &both)).await;
            assert!(
                code == Some(78) && said.contains("pipeline `p`"),
                "a new name does not help: {said}"
            );
            site.catch_up(&of_topics("p", &[&other])).await;
            site.catch_up(&of_topics("q", &[&anew])).await;
            "15"
        };
        assert_eq!(read(&site, sql, &["notes"]).await, [[rows, rows]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k15_what_a_producer_sends_twice_is_two_events_and_one_row() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let mut producer = source.producer(Model::new(PARTITIONS as usize, Encoding::Json));
    let mut once = Model::new(PARTITIONS as usize, Encoding::Json);
    for change in Changes::new(45, LIVE_MAX).take(5_000) {
        once.push(&change);
        // As one that retries without idempotence: the same record at two offsets.
        producer.send(&change);
        producer.send(&change);
    }
    producer.flush();
    let site = Site::new();
    site.catch_up(&Shop::on(&source).configure(&site)).await;
    verdict::every_version_is_right(&site, &producer.model).await;
    assert_eq!(producer.model.records(), 2 * once.records(), "each is there twice in `audit`");
    let (end, end_once) = (producer.model.end(), once.end());
    assert_eq!(
        producer.model.fold().upto(&end),
        once.fold().upto(&end_once),
        "and changes `orders` once"
    );
}
