//! Several brokers, of which one does not answer: its partitions wait, and those of the others are read.

use std::time::{Duration, Instant};

use alluvium::batch::Flow;
use alluvium::error::Kind;
use alluvium::sources::Source;
use alluvium::sources::kafka::KafkaSource;
use tokio::time::timeout;

use super::{Lake, PATIENCE, Pipe, failed, joined, numbered, values};
use crate::support::kafka::Broker;
use crate::support::program::Site;

/// Reads until the table has so many rows, with as many flows as that takes. Returns the last one.
async fn read_on(pipe: &Pipe, lake: &mut Lake, mut source: KafkaSource, rows: usize) -> KafkaSource {
    while lake.count("a") < rows {
        let ended = pipe.read(&mut source, lake, |lake| lake.count("a") >= rows).await;
        if let Err(error) = &ended {
            assert_eq!(error.kind, Kind::Transient, "{error}");
        }
        if matches!(ended, Ok(None)) {
            assert!(lake.count("a") >= rows, "the flow ended by itself");
        } else {
            drop(source);
            source = pipe.open_at_last(lake).await;
        }
    }
    source
}

/// Waits until the status names these partitions of these topics as waiting, and no others.
async fn until_waiting(pipe: &Pipe, topics: &[(&str, &[i32])]) {
    let partitions = topics
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().map(move |number| (*topic, *number)));
    let partitions: Vec<(&str, i32)> = partitions.collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waiting = pipe
            .board
            .read()
            .get("test")
            .map(|status| status.waiting.clone())
            .unwrap_or_default();
        let named = |(topic, number): &(&str, i32)| waiting.iter().any(|name| name.starts_with(&format!("{topic}/{number} (")));
        if waiting.len() == partitions.len() && partitions.iter().all(named) {
            return;
        }
        assert!(Instant::now() < deadline, "{partitions:?} were to wait, and these do: {waiting:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn a_frozen_broker_holds_up_nothing_but_its_own(properties: &str) {
    let brokers = Broker::cluster(2, &format!("default.replication.factor=1\nmin.insync.replicas=1\n{properties}"));
    let [first, second] = &brokers[..] else {
        panic!("two were started")
    };
    let topic = first.topic("half", 4, &[]).await;
    let (answering, frozen) = (first.leads(&topic), second.leads(&topic));
    assert!(answering.len() == 2 && frozen.len() == 2, "{answering:?} {frozen:?}");
    let produce = |partitions: &[i32], from: usize| {
        partitions
            .iter()
            .for_each(|partition| first.produce(&topic, *partition, numbered(from, from + 100)));
    };
    let mut pipe = Pipe::new(&first.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    produce(&[0, 1, 2, 3], 0);
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.count("a"), 400);

    // At a start.
    second.freeze();
    produce(&answering, 100);
    pipe.settings.until_caught_up = false;
    let source = pipe.open_at_last(&lake).await;
    let source = read_on(&pipe, &mut lake, source, 600).await;
    until_waiting(&pipe, &[(&topic, &frozen)]).await;
    // With all partitions, or not yet.
    let latest = Pipe::new(&first.bootstrap(), "start = \"latest\"", &[("a", &topic)]);
    let error = failed(latest.open(&Lake::default()).await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "partitions_waiting"), "{error}");
    second.thaw();
    produce(&frozen, 100);
    let source = read_on(&pipe, &mut lake, source, 800).await;
    until_waiting(&pipe, &[]).await;

    // While it is read.
    second.freeze();
    produce(&answering, 200);
    let source = read_on(&pipe, &mut lake, source, 1000).await;
    until_waiting(&pipe, &[(&topic, &frozen)]).await;
    drop(source);
    // A catch-up has not come to its end.
    pipe.settings.until_caught_up = true;
    produce(&answering, 300);
    let source = pipe.open_at_last(&lake).await;
    let mut source = read_on(&pipe, &mut lake, source, 1200).await;
    match pipe.read(&mut source, &mut lake, |_| false).await {
        Ok(ended) => assert!(ended.is_some() && lake.count("a") == 1200, "{ended:?}"),
        Err(error) => assert_eq!(error.kind, Kind::Transient, "{error}"),
    }
    drop(source);
    let error = failed(pipe.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "partitions_waiting"), "{error}");
    for partition in &frozen {
        assert!(error.what.contains(&format!("{topic}/{partition}")), "{error}");
    }
    second.thaw();
    produce(&frozen, 200);
    produce(&frozen, 300);
    pipe.settings.until_caught_up = false;
    let source = pipe.open_at_last(&lake).await;
    read_on(&pipe, &mut lake, source, 1600).await;
    for partition in 0..4 {
        assert_eq!(lake.values("a", partition), values(0, 400), "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_broker_that_its_cluster_gives_up_holds_up_nothing_but_its_own_partitions() {
    // Sooner than the frozen one is waited for, and later than a machine stalls.
    a_frozen_broker_holds_up_nothing_but_its_own("broker.session.timeout.ms=6000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_broker_that_is_silent_holds_up_nothing_but_its_own_partitions() {
    a_frozen_broker_holds_up_nothing_but_its_own("broker.session.timeout.ms=600000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_check_and_a_catch_up_that_cannot_ask_all_partitions_name_those_and_their_brokers() {
    let own = "default.replication.factor=1\nmin.insync.replicas=1\nbroker.session.timeout.ms=6000";
    let brokers = Broker::cluster(2, own);
    let topic = brokers[0].topic("asked", 2, &[]).await;
    let waits = format!("{topic}/{} (", brokers[1].leads(&topic)[0]);
    brokers[1].freeze();
    let site = Site::new();
    let known = "schema = \"{dir}/orders.avsc\"";
    let unknown = "format = \"debezium-json\"\nkey = [\"id\"]"; // What it is, the topic's records tell, if there are any.
    let cases: [(&str, &[&str], &str); 2] = [
        (known, &["check"], "the others would be read"),
        (unknown, &["run", "--until-caught-up"], "what the columns of table `asked` are"),
    ];
    for (table, command, what) in cases {
        let text = format!(
            "lake = \"{{dir}}/lake\"\nstate = \"{{dir}}/state\"\nhttp = {{ address = \"\" }}\n\
             [pipelines.p.kafka]\nbrokers = \"{}\"\n\
             [pipelines.p.tables.asked]\ntopic = \"{topic}\"\n{table}\n",
            brokers[0].bootstrap()
        );
        let config = site.configure(command[0], &text);
        let arguments = [command, &["--config", config.to_str().expect("a path in UTF-8")]].concat();
        let mut program = site.start(command[0], &arguments);
        let code = program.wait(2 * PATIENCE).await.status.code();
        let said = program.log_text();
        let all = [&format!("{what}. These brokers do not answer: "), &waits];
        assert!(code == Some(69) && all.iter().all(|part| said.contains(*part)), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_new_topic_whose_broker_is_silent_holds_up_no_table_that_has_begun_with_the_newest_records() {
    let own = "default.replication.factor=1\nmin.insync.replicas=1\nbroker.session.timeout.ms=600000";
    let brokers = Broker::cluster(2, own);
    let [first, second] = &brokers[..] else {
        panic!("two were started")
    };
    let topic = first.topic("begun", 2, &[]).await;
    let (answering, frozen) = (first.leads(&topic), second.leads(&topic));
    assert!(answering.len() == 1 && frozen.len() == 1, "{answering:?} {frozen:?}");
    let produce = |topic: &str, partitions: &[i32], from: usize| {
        partitions
            .iter()
            .for_each(|partition| first.produce(topic, *partition, numbered(from, from + 100)));
    };
    let pipe = || {
        let mut pipe = Pipe::new(&first.bootstrap(), "start = \"latest\"", &[("a", &format!("^{topic}.*"))]);
        pipe.settings.until_caught_up = false;
        pipe
    };
    let (begun, mut lake) = (pipe(), Lake::default());
    produce(&topic, &[0, 1], 0);
    let source = begun.open_at_last(&lake).await;
    produce(&topic, &[0, 1], 100);
    drop(read_on(&begun, &mut lake, source, 200).await);
    drop(begun);

    // Nobody looks before its broker is silent.
    let later = format!("{topic}-later");
    first.create_topic(&later, 2, &[]).await;
    let (led, waits) = (first.leads(&later), second.leads(&later));
    assert!(led.len() == 1 && waits.len() == 1, "{led:?} {waits:?}");
    produce(&later, &led, 0);
    produce(&topic, &answering, 200);
    second.freeze();
    let pipe = pipe();
    let source = pipe.open_at_last(&lake).await;
    let source = read_on(&pipe, &mut lake, source, 300).await;
    until_waiting(&pipe, &[(&topic, &frozen), (&later, &waits)]).await;
    assert_eq!(lake.count("a"), 300, "a topic that is begun with waits as a whole");
    second.thaw();
    // From its beginning: the table has begun before.
    read_on(&pipe, &mut lake, source, 400).await;
    until_waiting(&pipe, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_what_a_dead_broker_served_is_confirmed_by_those_that_know_that_it_is_gone() {
    let own = "default.replication.factor=1\nmin.insync.replicas=1\nbroker.session.timeout.ms=6000";
    let mut brokers = Broker::cluster(3, own);
    let topic = brokers[0].topic("dead", 3, &[]).await;
    let led: Vec<i32> = brokers.iter().map(|broker| broker.leads(&topic)[0]).collect();
    let mut pipe = Pipe::new(&brokers[0].bootstrap(), "", &[("a", &topic)]);
    pipe.settings.until_caught_up = false;
    let mut source = pipe.open(&Lake::default()).await.unwrap();
    let identity = source.confirm().unwrap();
    let mut read_of = async |server: &Broker, partition: i32| {
        server.produce(&topic, partition, numbered(0, 1));
        while !matches!(source.next().await.unwrap().expect("the flow goes on"), Flow::Mark(_)) {}
    };
    read_of(&brokers[0], led[2]).await;
    brokers[2].kill();
    // Its cluster gives it up within seconds; longer, where it had the controller.
    let given_up = async {
        while let Err(error) = identity.confirm().await {
            assert_eq!((error.kind, error.code), (Kind::Transient, "broker_unreachable"), "{error}");
        }
    };
    timeout(PATIENCE, given_up).await.expect("the others know");
    read_of(&brokers[0], led[0]).await;
    let confirmed = timeout(Duration::from_secs(9), identity.confirm()).await;
    confirmed.expect("nobody waits for the dead one").unwrap();

    // One broker of three gives nobody up.
    read_of(&brokers[0], led[1]).await;
    brokers[1].freeze();
    let error = failed(identity.confirm().await);
    brokers[1].thaw();
    assert_eq!((error.kind, error.code), (Kind::Transient, "broker_unreachable"), "{error}");
    let named = format!("Broker {} ", brokers[1].id());
    assert!(error.what.starts_with(&named), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_out_of_its_group_because_the_coordinator_is_silent_is_not_said_to_read() {
    let one = "default.replication.factor=1\nmin.insync.replicas=1\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=2\n\
               broker.session.timeout.ms=6000";
    let brokers = Broker::cluster(2, one);
    let topic = brokers[0].topic("coordinated", 2, &[]).await;
    let member = |group: &str| {
        let more = format!("group = \"{group}\"\noptions = {{ \"session.timeout.ms\" = 10000 }}");
        let mut pipe = Pipe::new(&brokers[0].bootstrap(), &more, &[("a", &topic)]);
        pipe.settings.until_caught_up = false;
        pipe
    };
    drop(joined(&member("a"), &mut Lake::default()).await);
    // A group is coordinated by who leads its partition: that of the name's hash, which is odd for `a`.
    let group = if brokers[1].leads("__consumer_offsets") == [1] { "a" } else { "b" };
    let (pipe, mut lake) = (member(group), Lake::default());
    drop(joined(&pipe, &mut lake).await);
    brokers[1].freeze();
    // Twice the session: the lanes are lost.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = failed(pipe.open(&lake).await);
        if error.code == "group_not_joined" {
            break;
        }
        assert!(error.code == "broker_unreachable" && Instant::now() < deadline, "{error}");
    }
    // Nor by who only looks.
    let error = failed(pipe.client.look_at_group(group).await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "group_not_joined"), "{error}");
    assert!(error.what.contains(&format!("`{group}`")), "{error}");
    brokers[1].thaw();
}
