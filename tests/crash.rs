//! The program killed, doubled, frozen and stopped beside a real Kafka: what it leaves behind is exactly its topic.
//!
//! `ALLUVIUM_KILLS` says how often it is killed: 20 by default, 50 in `make proofs`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::time::sleep;

use crate::support::history;
use crate::support::kafka::Broker;
use crate::support::model::{Marks, Model};
use crate::support::program::{Program, Site, free_port, http, metric, status};
use crate::support::shop::{PARTITIONS, Shop, Source, served};
use crate::support::stream::Stream;
use crate::support::verdict;

/// One life in so many is left alone until there is a new version; the others end whenever it happens.
const LIVES_TO_A_VERSION: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn r2_killed_at_random_moments_beside_a_second_instance_nothing_is_lost_or_doubled() {
    let kills: usize = std::env::var("ALLUVIUM_KILLS").map_or(20, |text| text.parse().expect("ALLUVIUM_KILLS is a number"));
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let site = Site::new();
    let shop = Shop {
        commit: "interval = \"200 ms\"",
        ..Shop::on(&source)
    };
    let config = shop.configure(&site);
    // The twin reads all partitions too: that is an operator's mistake, and must not harm the tables.
    let twin_config = Shop { name: "twin", ..shop }.configure(&site);
    let stream = Stream::start(&source, 10_000);
    let mut rng = rand::rng();
    let mut twin: Option<Program> = None;
    let versions = || history::read(&site.table("orders")).len();
    for kill in 0..kills {
        let mut program = site.run("program", &config);
        // However slow the machine is, not every life ends before it did anything.
        if kill % LIVES_TO_A_VERSION == 0 {
            let before = versions();
            program
                .until("a version", Duration::from_secs(60), || (versions() > before).then_some(()))
                .await;
        }
        if rng.random_ratio(1, 3) {
            sleep(Duration::from_millis(rng.random_range(0..500))).await;
            twin = Some(site.run("twin", &twin_config));
        }
        sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
        let exit = program.poll();
        assert!(
            exit.is_none(),
            "before kill {kill} it ended by itself with {exit:?}:\n{}",
            program.log_tail()
        );
        program.kill().await;
        if rng.random_ratio(1, 2)
            && let Some(mut twin) = twin.take()
        {
            twin.kill().await;
        }
    }
    drop(twin);
    let model = stream.finish().await;
    assert!(versions() >= kills.div_ceil(LIVES_TO_A_VERSION), "a life ended before its version");
    site.catch_up(&config).await;
    verdict::every_version_is_right(&site, &model).await;
}

/// The data files in a table's folder, committed or not.
fn data_files(table: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(table).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains(".parquet"))
        .collect()
}

/// Freezes a process (SIGSTOP) between its writing of a data file and the commit of it.
async fn freeze_while_it_commits(program: &mut Program, table: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut known = data_files(table);
    while Instant::now() < deadline {
        tokio::task::yield_now().await;
        let files = data_files(table);
        let new: Vec<String> = files.difference(&known).cloned().collect();
        known = files;
        if new.is_empty() {
            continue;
        }
        program.signal(libc::SIGSTOP);
        // A file of the other instance, or of a commit that got through before the signal, is in the log by now or very soon.
        sleep(Duration::from_secs(2)).await;
        let committed: BTreeSet<String> = history::read(table).into_iter().flat_map(|commit| commit.added).collect();
        if new.iter().any(|file| !committed.contains(file)) {
            return;
        }
        program.signal(libc::SIGCONT);
        known = data_files(table);
    }
    panic!("never caught between data file and commit within a minute:\n{}", program.log_tail());
}

/// Whether every mark that stood in `before` has moved on.
fn all_moved(table: &Path, before: &Marks) -> bool {
    let now = history::marks(table);
    before.iter().all(|(lane, mark)| now.get(lane) > Some(mark))
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_an_instance_frozen_while_it_commits_is_fenced_when_it_thaws() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let site = Site::new();
    let ports = [free_port(), free_port()];
    let tops = ports.map(http);
    // The shortest session that a broker allows by default.
    let group = "group = \"shop\"\noptions = { \"session.timeout.ms\" = \"6000\", \"heartbeat.interval.ms\" = \"1000\" }";
    let shop = Shop {
        commit: "interval = \"500 ms\"",
        kafka: group,
        ..Shop::on(&source)
    };
    let first = Shop {
        name: "first",
        top: &tops[0],
        ..shop
    }
    .configure(&site);
    let second = Shop {
        name: "second",
        top: &tops[1],
        ..shop
    }
    .configure(&site);
    let stream = Stream::start(&source, 20_000);
    let (orders, audit) = (site.table("orders"), site.table("audit"));

    let mut zombie = site.run("first", &first);
    let committed = |port: u16| move || (metric(port, "alluvium_commits_total") > 0.0).then_some(());
    zombie.until("its first commit", Duration::from_secs(60), committed(ports[0])).await;
    let mut heir = site.run("second", &second);
    heir.until("its first commit", Duration::from_secs(60), committed(ports[1])).await;
    freeze_while_it_commits(&mut zombie, &audit).await;

    // The broker gives the frozen one's partitions away when its session is over; then the heir moves all marks.
    let (orders_before, audit_before) = (history::marks(&orders), history::marks(&audit));
    assert_eq!(audit_before.len(), PARTITIONS as usize);
    let taken_over = || (all_moved(&orders, &orders_before) && all_moved(&audit, &audit_before)).then_some(());
    heir.until("all partitions taken over", Duration::from_secs(60), taken_over).await;

    zombie.signal(libc::SIGCONT);
    zombie
        .until("being fenced", Duration::from_secs(60), || {
            (metric(ports[0], "alluvium_fenced_total") > 0.0).then_some(())
        })
        .await;
    // They go on as a group of two.
    sleep(Duration::from_secs(3)).await;
    let model = stream.finish().await;
    zombie.kill().await;
    heir.kill().await;
    site.catch_up(
        &Shop {
            name: "last",
            kafka: "",
            ..shop
        }
        .configure(&site),
    )
    .await;
    verdict::every_version_is_right(&site, &model).await;
}

/// Whether all that was produced has been read, by `/status`.
fn all_read(port: u16, topic: &str, model: &Model) -> bool {
    let Some(status) = status(port) else { return false };
    let lanes = &status["pipelines"]["shop"]["lanes"];
    let read = |partition: &i32| lanes[format!("{topic}/{partition}")]["read"].as_u64();
    model.end().iter().all(|(partition, last)| read(partition) >= Some(*last))
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_terminated_program_publishes_what_it_has_read_and_ends_well() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    // Nothing but the signal can be what publishes.
    let (site, config, port) = served(&source, "1 h");
    let producer = source.fill(50_000);
    let mut program = site.run("program", &config);
    program
        .until("everything read", Duration::from_secs(60), || {
            all_read(port, &source.topic, &producer.model).then_some(())
        })
        .await;
    assert!(
        history::marks(&site.table("audit")).is_empty(),
        "nothing is published before the signal"
    );
    program.signal(libc::SIGTERM);
    let exit = program.wait(Duration::from_secs(60)).await;
    assert_eq!(exit.status.code(), Some(0), "{}", program.log_tail());
    verdict::every_version_is_right(&site, &producer.model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_second_signal_ends_the_program_at_once() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, config, port) = served(&source, "1 h");
    let producer = source.fill(300_000);
    let mut program = site.run("program", &config);
    program
        .until("everything read", Duration::from_secs(60), || {
            all_read(port, &source.topic, &producer.model).then_some(())
        })
        .await;
    // Frozen while both signals come in, so that it cannot be done with the first before the second.
    for signal in [libc::SIGSTOP, libc::SIGTERM, libc::SIGINT, libc::SIGCONT] {
        program.signal(signal);
    }
    let exit = program.wait(Duration::from_secs(30)).await;
    assert!(
        matches!(exit.status.code(), Some(130 | 143)),
        "{} {}",
        exit.status,
        program.log_tail()
    );
    // Whatever it had time for, the next start makes it whole.
    site.catch_up(
        &Shop {
            name: "last",
            ..Shop::on(&source)
        }
        .configure(&site),
    )
    .await;
    verdict::every_version_is_right(&site, &producer.model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_frozen_for_long_and_goes_on_is_read_on() {
    let broker = Broker::start("");
    let source = Source::new(&broker, PARTITIONS).await;
    let (site, config, port) = served(&source, "200 ms");
    let stream = Stream::start(&source, 1_000);
    let mut program = site.run("program", &config);
    program
        .until("a version", Duration::from_secs(60), || {
            (history::read(&site.table("orders")).len() > 1).then_some(())
        })
        .await;
    // Longer than its own cluster takes it for alive: when it goes on, it is none of the brokers for a moment.
    broker.freeze();
    sleep(Duration::from_secs(25)).await;
    broker.thaw();
    let model = stream.finish().await;
    program
        .until("everything read", Duration::from_secs(150), || {
            all_read(port, &source.topic, &model).then_some(())
        })
        .await;
    program.stop().await;
    verdict::every_version_is_right(&site, &model).await;
}
