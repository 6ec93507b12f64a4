//! The dead letters of a topic: each is there once for each table, however often the program is killed, and whenever a table joins.

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng;

use crate::support::bank::read;
use crate::support::kafka::Broker;
use crate::support::program::Site;

const PARTITIONS: i32 = 2;

/// Every fifth record cannot be read.
fn record(number: usize) -> (String, Option<String>) {
    let value = match number % 5 {
        3 => "no JSON".to_owned(),
        _ => format!("{{\"id\": {number}}}"),
    };
    (format!("k{number}"), Some(value))
}

/// A pipeline that feeds these tables from the topic.
fn configure(site: &Site, broker: &Broker, topic: &str, tables: &[&str]) -> PathBuf {
    std::fs::write(
        site.path("id.avsc"),
        r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}"#,
    )
    .expect("a schema");
    let mut text = format!(
        "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nmemory = \"128 MiB\"\nhttp = {{ address = \"\" }}\n\
         [pipelines.p.kafka]\nbrokers = \"{}\"\n[pipelines.p.commit]\ninterval = \"50 ms\"\n",
        broker.bootstrap()
    );
    for table in tables {
        text += &format!("[pipelines.p.tables.{table}]\ntopic = \"{topic}\"\nschema = \"{{dir}}/id.avsc\"\n");
    }
    site.configure("p", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_letter_is_there_once_though_tables_join_and_leave_and_the_program_is_killed() {
    let broker = Broker::shared();
    let topic = broker.topic("letters", PARTITIONS, &[]).await;
    let site = Site::new();
    let letters = site.table("p_dead_letters");
    let (mut produced, mut killed_behind_letters) = (0, 0);
    // One table joins late; it is away for a while; and one is made anew, while its letters stay.
    for tables in [
        &["a"][..],
        &["a", "b"],
        &["a"],
        &["a", "b"],
        &["made_anew", "b"],
        &["a", "b", "made_anew"],
    ] {
        let config = configure(&site, broker, &topic, tables);
        if tables.contains(&"made_anew") && site.table("made_anew").exists() {
            std::fs::remove_dir_all(site.table("made_anew")).expect("the table goes");
        }
        for kill in 0..4 {
            for partition in 0..PARTITIONS {
                broker.produce(&topic, partition, (produced..produced + 400).map(record));
            }
            produced += 400;
            let mut program = site.run("program", &config);
            if kill % 2 == 0 {
                killed_behind_letters += usize::from(program.kill_at_commit(&letters, Duration::from_secs(60)).await);
            } else {
                tokio::time::sleep(Duration::from_millis(rand::rng().random_range(50..800))).await;
                assert!(program.poll().is_none(), "{}", program.log_tail());
                program.kill().await;
            }
        }
    }
    site.catch_up(&configure(&site, broker, &topic, &["a", "b", "made_anew"])).await;
    assert!(
        killed_behind_letters > 3,
        "it was hardly ever killed between the letters and the data"
    );

    let mut expected = Vec::new();
    for table in ["a", "b", "made_anew"] {
        for partition in 0..PARTITIONS {
            let bad = (0..produced).filter(|number| record(*number).1.is_some_and(|value| value == "no JSON"));
            expected.extend(bad.map(|offset| vec![table.to_owned(), format!("{topic}/{partition}"), offset.to_string()]));
        }
    }
    expected.sort();
    let there = read(&site, "SELECT \"table\", lane, position FROM p_dead_letters", &["p_dead_letters"]).await;
    assert!(there == expected, "{}", difference(&there, &expected));
    let ids = read(&site, "SELECT COUNT(DISTINCT id) FROM p_dead_letters", &["p_dead_letters"]).await;
    assert_eq!(ids, [[expected.len().to_string()]], "an id is one letter's");
    for table in ["a", "b", "made_anew"] {
        let rows = read(&site, &format!("SELECT COUNT(*), COUNT(DISTINCT id) FROM {table}"), &[table]).await;
        let good = produced - produced / 5;
        assert_eq!(rows, [[(good * PARTITIONS as usize).to_string(), good.to_string()]], "{table}");
    }
}

/// The first letters that one side has more of.
pub fn difference(there: &[Vec<String>], expected: &[Vec<String>]) -> String {
    let more = |these: &[Vec<String>], those: &[Vec<String>]| {
        let mut left = those.to_vec();
        let surplus = these.iter().filter(|row| match left.binary_search(row) {
            Ok(place) => {
                left.remove(place);
                false
            }
            Err(_) => true,
        });
        surplus.cloned().collect::<Vec<_>>()
    };
    let (doubled, missing) = (more(there, expected), more(expected, there));
    format!(
        "{} letters that should not be there: {:?} …; {} are missing: {:?} …",
        doubled.len(),
        doubled.iter().take(5).collect::<Vec<_>>(),
        missing.len(),
        missing.iter().take(5).collect::<Vec<_>>()
    )
}
