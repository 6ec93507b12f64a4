//! What brokers and groups take away: records that were read already, and lanes that are being written.

use std::time::{Duration, Instant};

use alluvium::batch::Flow;
use alluvium::error::Kind;
use alluvium::sources::Source;
use serde_json::Value;

use super::{Lake, PATIENCE, Pipe, failed, joined, numbered, values};
use crate::support::history;
use crate::support::kafka::{Broker, NEVER_GIVEN_UP};
use crate::support::program::Site;
use crate::support::shop::{PARTITIONS, Shop, Source as Topic};

#[tokio::test(flavor = "multi_thread")]
async fn k5_records_that_brokers_lost_stop_the_table_that_has_them() {
    let mut broker = Broker::start("");
    let topic = broker.topic("cut", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 100));
    let mut pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    pipe.settings.until_caught_up = false;
    let mut running = pipe.open(&lake).await.unwrap();
    // The same topic by its id, with none of its records: what is left of it after the election of a leader that was behind.
    broker.kill();
    broker.empty_partition(&topic, 0);
    broker.resume();
    broker.produce(&topic, 0, numbered(500, 540));
    match pipe.read(&mut running, &mut lake, |_| false).await {
        Err(error) => assert_ne!(error.kind, Kind::Bug, "{error}"),
        // Of a broker that takes long to come back, it has given up hope.
        Ok(why) => assert!(why.is_some(), "the flow ended by itself"),
    }
    drop(running);
    let error = failed(pipe.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Data, "topic_truncated"), "{error}");
    for word in [topic.as_str(), "`a`", "99", "40"] {
        assert!(error.what.contains(word), "{word}: {}", error.what);
    }
    assert_eq!(
        lake.values("a", 0),
        values(0, 100),
        "nothing of the new records was taken for the old ones' followers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_topic_that_is_gone_is_waited_for_where_it_was_there_before() {
    let broker = Broker::shared();
    let topic = broker.topic("gone", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let pipe = || Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let (one, mut lake) = (pipe(), Lake::default());
    one.catch_up(&mut lake).await.unwrap();
    broker.delete_topic(&topic).await;
    broker.until_gone(&topic).await;
    // The tables know it, or the process does.
    for (pipe, lake) in [(&pipe(), &lake), (&one, &Lake::default())] {
        let error = failed(pipe.open(lake).await);
        assert_eq!((error.kind, error.code), (Kind::Transient, "topic_missing"), "{error}");
        assert!(error.what.contains(&format!("`{topic}`")), "{error}");
    }
    let error = failed(pipe().open(&Lake::default()).await);
    assert_eq!((error.kind, error.exit_code()), (Kind::Config, 78), "nobody has seen it: {error}");
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 50));
    let error = failed(one.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Data, "topic_recreated"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_what_was_read_is_confirmed_behind_it_and_not_when_the_topic_has_gone_meanwhile() {
    let broker = Broker::start(NEVER_GIVEN_UP);
    let topic = broker.topic("confirmed", 1, &[]).await;
    let mut pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    pipe.settings.until_caught_up = false;
    let mut source = pipe.open(&Lake::default()).await.unwrap();
    let identity = source.confirm().unwrap();
    let mut more = async || {
        broker.produce(&topic, 0, numbered(0, 1));
        while !matches!(source.next().await.unwrap().expect("the flow goes on"), Flow::Mark(_)) {}
    };
    more().await;
    identity.confirm().await.unwrap();
    // The end of the lane is told a moment behind its records, and is nothing to ask about.
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.freeze();
    let confirmed = identity.confirm().await;
    broker.thaw();
    confirmed.expect("no record was read since, and nobody is asked");
    more().await;
    broker.delete_topic(&topic).await;
    broker.until_gone(&topic).await;
    let error = failed(identity.confirm().await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "topic_missing"), "{error}");
    broker.create_topic(&topic, 1, &[]).await;
    let error = failed(identity.confirm().await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "topic_recreated"), "{error}");
    assert!(error.what.contains(&topic) && error.what.contains("dropped"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_stop_does_not_wait_for_brokers_that_do_not_answer() {
    // Left to itself, the client waits a minute for the answer to what it was last told to commit.
    const NOT_WAITED: Duration = Duration::from_secs(40);
    let broker = Broker::start(NEVER_GIVEN_UP);
    let topic = broker.topic("frozen", 1, &[]).await;
    for (round, more) in [String::new(), format!("group = \"{topic}\"")].into_iter().enumerate() {
        broker.produce(&topic, 0, numbered(round * 10, round * 10 + 10));
        let count = round * 10 + 10;
        let pipe = Pipe::new(&broker.bootstrap(), &more, &[("a", &topic)]);
        let mut lake = Lake::default();
        let mut source = if more.is_empty() {
            pipe.open(&lake).await.unwrap()
        } else {
            joined(&pipe, &mut lake).await
        };
        pipe.read(&mut source, &mut lake, |lake| lake.count("a") == count).await.unwrap();
        broker.freeze();
        source.release(&lake.mark("a")).await.unwrap();
        drop(source);
        let began = Instant::now();
        drop(pipe);
        let took = began.elapsed();
        broker.thaw();
        assert!(took < NOT_WAITED, "{more}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_without_an_answer_of_the_group_has_not_caught_up() {
    let broker = Broker::shared();
    let topic = broker.topic("withheld", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let pipe = |limits: &str| {
        let options = format!("options = {{ \"partition.assignment.strategy\" = \"range\"{limits} }}");
        Pipe::new(&broker.bootstrap(), &format!("group = \"{topic}\"\n{options}"), &[("a", &topic)])
    };
    let (first, mut lake) = (pipe(""), Lake::default());
    // Its flow does not end, so it keeps the lanes for as long as it may: that is longer than the other one takes members to live that say nothing.
    let _held = joined(&first, &mut lake).await;
    let hasty = pipe(", \"session.timeout.ms\" = \"2000\", \"heartbeat.interval.ms\" = \"300\"");
    let error = failed(hasty.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "group_not_joined"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_commit_that_is_held_loses_no_lanes_and_lost_lanes_come_back_without_a_row_twice() {
    let broker = Broker::start(NEVER_GIVEN_UP);
    let topic = broker.topic("held", 2, &[]).await;
    let produce = |from: usize| (0..2).for_each(|partition| broker.produce(&topic, partition, numbered(from, from + 100)));
    let limits = "\"session.timeout.ms\" = \"10000\", \"heartbeat.interval.ms\" = \"300\", \"max.poll.interval.ms\" = \"10000\"";
    let longer = Duration::from_secs(16);
    let mut pipe = Pipe::new(
        &broker.bootstrap(),
        &format!("group = \"{topic}\"\noptions = {{ {limits} }}"),
        &[("a", &topic)],
    );
    pipe.settings.until_caught_up = false;
    let mut lake = Lake::default();
    produce(0);
    let mut source = joined(&pipe, &mut lake).await;
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 200).await.unwrap();

    // A commit takes longer than the client may go without asking for records: it is a member all the same.
    tokio::time::sleep(longer).await;
    produce(100);
    let ended = pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 400).await.unwrap();
    assert_eq!(ended, None, "the flow went on");

    // Rows are staged, their commit is held, and meanwhile the group gives the lanes away.
    produce(200);
    // To their mark: nothing of them is left to be handed out.
    loop {
        match tokio::time::timeout(PATIENCE, source.next()).await.unwrap().unwrap() {
            Some(Flow::Rows(_)) => {}
            Some(Flow::Mark(_)) => break,
            other => panic!("rows and then a mark were to come: {other:?}"),
        }
    }
    broker.freeze();
    tokio::time::sleep(longer).await;
    broker.thaw();
    let mut dropped = Lake {
        marks: lake.marks.clone(),
        ..Lake::default()
    };
    let error = failed(pipe.read(&mut source, &mut dropped, |_| false).await);
    assert_eq!(error.kind, Kind::Fenced, "{error}");
    assert!(error.what.contains("what is staged of them is dropped"), "{error}");
    drop(source);

    // From the tables, as after every other end of a flow. Lanes may come one after the other.
    while lake.count("a") < 600 {
        let mut source = pipe.open_at_last(&lake).await;
        match pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 600).await {
            Err(error) => assert!(matches!(error.kind, Kind::Transient | Kind::Fenced), "{error}"),
            Ok(why) => assert!(why.is_some() || lake.count("a") == 600, "the flow ended by itself"),
        }
    }
    for partition in 0..2 {
        assert_eq!(lake.values("a", partition), values(0, 300), "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k19_of_an_instance_that_is_expelled_only_what_it_says_itself_is_an_error_in_its_log() {
    let topic = Topic::new(Broker::shared(), PARTITIONS).await;
    let end = topic.fill(1_000).model.end();
    let site = Site::new();
    let kafka = format!(
        "group = \"{}\"\noptions = {{ \"group.instance.id\" = \"twin\", \"session.timeout.ms\" = \"30000\", \
         \"heartbeat.interval.ms\" = \"500\" }}",
        topic.topic
    );
    let [one, other] = ["one", "other"].map(|name| {
        Shop {
            name,
            kafka: &kafka,
            commit: "interval = \"100 ms\"",
            ..Shop::on(&topic)
        }
        .configure(&site)
    });
    let mut first = site.run("first", &one);
    let is_read = || (history::marks(&site.table("audit")) == end).then_some(());
    first.until("all to be read", PATIENCE, is_read).await;
    let mut second = site.run("second", &other);
    let exit = first.wait(PATIENCE).await;
    let said = first.log_text();
    assert_eq!(exit.status.code(), Some(78), "{said}");
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors: Vec<Value> = lines.filter(|line| line["level"] == "ERROR").collect();
    // The last line is the program's answer, and comes from no part of it.
    let is_ours = |line: &Value| line["target"].as_str().is_none_or(|target| target.starts_with("alluvium"));
    assert!(errors.iter().all(is_ours), "{said}");
    assert!(errors.iter().any(|line| line["code"] == "member_fenced"), "{said}");
    second.stop().await;
}
