//! The program killed, doubled, frozen and stopped beside a real Kafka: what it leaves behind is exactly its topic.
//!
//! `ALLUVIUM_KILLS` says how often it is killed: 20 by default, 50 in `make proofs`. `ALLUVIUM_SEED` has the moments of a run that printed it
//! come again, as far as the machine allows.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::support::history;
use crate::support::kafka::{Broker, NEVER_GIVEN_UP};
use crate::support::postgres::wait_within;
use crate::support::program::{Program, Site, free_port, http, metric, status};
use crate::support::shop::{PARTITIONS, Shop, Source, served, until_all_published, until_all_read};
use crate::support::stream::Stream;
use crate::support::verdict;

/// One life in so many is left alone until there is a new version, and one ends as soon as there is a data file that no version names; the
/// others end whenever it happens.
const LIVES_TO_A_VERSION: usize = 3;
const PATIENCE: Duration = Duration::from_secs(180);
/// What the log says of lanes that the group has given to others.
const LOST: &str = "\"lost\":true";

fn kills() -> usize {
    std::env::var("ALLUVIUM_KILLS").map_or(20, |text| text.parse().expect("ALLUVIUM_KILLS is a number"))
}

fn chance() -> SmallRng {
    let seed: u64 =
        std::env::var("ALLUVIUM_SEED").map_or_else(|_| rand::rng().random(), |text| text.parse().expect("ALLUVIUM_SEED is a number"));
    println!("ALLUVIUM_SEED={seed}");
    SmallRng::seed_from_u64(seed)
}

/// How many data files are there that no version names: each is of a commit that a kill or a rival came before.
fn orphans(site: &Site) -> usize {
    let tables = ["orders", "audit"].map(|table| site.table(table));
    tables.iter().map(|table| history::orphans(table).len()).sum()
}

/// The lines of a pipeline that make it a member of this group, which gives a silent one up after so long.
fn group(name: &str, session_ms: u32) -> String {
    format!("group = \"{name}\"\noptions = {{ \"session.timeout.ms\" = \"{session_ms}\", \"heartbeat.interval.ms\" = \"1000\" }}")
}

/// Returns when a table has a data file that was not there before; or when that takes too long.
async fn until_a_data_file_comes(table: &Path) {
    let (known, deadline) = (history::data_files(table).len(), Instant::now() + Duration::from_secs(10));
    while history::data_files(table).len() <= known && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r2_killed_at_random_moments_beside_a_second_instance_nothing_is_lost_or_doubled() {
    let kills = kills();
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
    let mut rng = chance();
    let mut twin: Option<Program> = None;
    let versions = || history::read(&site.table("orders")).len();
    for kill in 0..kills {
        let mut program = site.run("program", &config);
        // However slow the machine is, not every life ends before it did anything.
        if kill % LIVES_TO_A_VERSION == 0 {
            let before = versions();
            program.until("a version", PATIENCE, || (versions() > before).then_some(())).await;
        }
        if rng.random_ratio(1, 3) {
            sleep(Duration::from_millis(rng.random_range(0..500))).await;
            twin = Some(site.run("twin", &twin_config));
        }
        if kill % LIVES_TO_A_VERSION == 1 {
            until_a_data_file_comes(&site.table(["orders", "audit"][kill % 2])).await;
        } else {
            sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
        }
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
    // On a busy machine every kill may come late, behind the commit that it was meant to come before.
    if orphans(&site) == 0 {
        let mut program = site.run("program", &config);
        freeze_while_it_commits(&mut program, &site.table("audit")).await;
        program.kill().await;
    }
    let model = stream.finish().await;
    assert!(versions() >= kills.div_ceil(LIVES_TO_A_VERSION), "a life ended before its version");
    println!("{kills} kills, {} versions, {} data files without one", versions(), orphans(&site));
    assert!(orphans(&site) > 0, "nothing ended between a data file and its commit");
    site.catch_up(&config).await;
    verdict::every_version_is_right(&site, &model).await;
}

/// How many lanes the program reads.
fn lanes(port: u16) -> usize {
    let status = status(port).unwrap_or_default();
    status["pipelines"]["shop"]["lanes"].as_object().map_or(0, serde_json::Map::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn r2_members_of_a_group_are_killed_at_random_moments_and_nothing_is_lost_or_doubled() {
    // Each costs the session of the one that was killed.
    let kills = kills() / 4;
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let site = Site::new();
    let names = ["first", "second"];
    let ports = names.map(|_| free_port());
    let tops = ports.map(http);
    let kafka = group("killed", 4_000);
    let of_group = |nth: usize| Shop {
        name: names[nth],
        top: &tops[nth],
        kafka: &kafka,
        commit: "interval = \"200 ms\"",
        ..Shop::on(&source)
    };
    let configs = [0, 1].map(|nth| of_group(nth).configure(&site));
    let stream = Stream::start(&source, 5_000);
    let mut rng = chance();
    let mut members = [0, 1].map(|nth| site.run(names[nth], &configs[nth]));
    let shared = PARTITIONS as usize / 2;
    for kill in 0..kills {
        // Either dies while it reads its share, and every other time also while the group makes up its mind.
        let victim = kill / 2 % 2;
        if kill % 2 == 0 {
            let share = || ports.iter().all(|port| lanes(*port) == shared).then_some(());
            members[1 - victim].until("the lanes shared", PATIENCE, share).await;
            until_a_data_file_comes(&site.table("audit")).await;
        } else {
            sleep(Duration::from_millis(rng.random_range(50..3_000))).await;
        }
        for (nth, member) in members.iter_mut().enumerate() {
            let exit = member.poll();
            assert!(
                exit.is_none(),
                "{} ended by itself with {exit:?}:\n{}",
                names[nth],
                member.log_tail()
            );
        }
        members[victim].kill().await;
        sleep(Duration::from_millis(rng.random_range(0..500))).await;
        members[victim] = site.run(names[victim], &configs[victim]);
    }
    // What the group does with the last one's lanes is seen, too.
    let before = history::marks(&site.table("audit"));
    let moved = || history::all_moved(&site.table("audit"), &before).then_some(());
    members[0].until("all lanes read on", PATIENCE, moved).await;
    let model = stream.finish().await;
    for member in &mut members {
        member.kill().await;
    }
    println!("{kills} kills, {} data files without a version", orphans(&site));
    let last = Shop {
        name: "last",
        kafka: "",
        top: "http = { address = \"\" }",
        ..of_group(0)
    };
    site.catch_up(&last.configure(&site)).await;
    verdict::every_version_is_right(&site, &model).await;
}

/// Freezes a process (SIGSTOP) between its writing of a data file and the commit of it.
async fn freeze_while_it_commits(program: &mut Program, table: &Path) {
    let deadline = Instant::now() + PATIENCE;
    let mut known = history::data_files(table);
    while Instant::now() < deadline {
        tokio::task::yield_now().await;
        let files = history::data_files(table);
        let new: Vec<String> = files.difference(&known).cloned().collect();
        known = files;
        if new.is_empty() {
            continue;
        }
        program.signal(libc::SIGSTOP);
        // A file of the other instance, or of a commit that got through before the signal, is in the log by now or very soon.
        sleep(Duration::from_secs(2)).await;
        let orphans = history::orphans(table);
        if new.iter().any(|file| orphans.contains(file)) {
            return;
        }
        program.signal(libc::SIGCONT);
        known = history::data_files(table);
    }
    panic!(
        "never caught between data file and commit within {PATIENCE:?}:\n{}",
        program.log_tail()
    );
}

/// Waits until a program has published something.
async fn until_it_commits(program: &mut Program, port: u16) {
    let committed = || (metric(port, "alluvium_commits_total") > 0.0).then_some(());
    program.until("its first commit", PATIENCE, committed).await;
}

/// Freezes one instance while it commits, and has another go beyond what it was about to commit. The first one is fenced when it thaws, by
/// the group or by the log; its log is returned. `kafka`: of both instances.
async fn a_frozen_instance_is_fenced(kafka: &str) -> String {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let site = Site::new();
    let ports = [free_port(), free_port()];
    let tops = ports.map(http);
    let shop = Shop {
        commit: "interval = \"500 ms\"",
        kafka,
        ..Shop::on(&source)
    };
    let configure = |name, top| Shop { name, top, ..shop }.configure(&site);
    let (first, second) = (configure("first", tops[0].as_str()), configure("second", tops[1].as_str()));
    let stream = Stream::start(&source, 20_000);
    let (orders, audit) = (site.table("orders"), site.table("audit"));

    let mut zombie = site.run("first", &first);
    until_it_commits(&mut zombie, ports[0]).await;
    let all_lanes = || (history::marks(&audit).len() == PARTITIONS as usize).then_some(());
    zombie.until("a mark of each partition", PATIENCE, all_lanes).await;
    let mut heir = None;
    if !kafka.is_empty() {
        // One of the group, before that is told of the other's death.
        let mut member = site.run("second", &second);
        until_it_commits(&mut member, ports[1]).await;
        heir = Some(member);
    }
    assert_eq!(metric(ports[0], "alluvium_fenced_total"), 0.0, "nobody was fenced before");
    freeze_while_it_commits(&mut zombie, &audit).await;

    // The broker gives the frozen one's partitions away when its session is over; then the heir moves all marks.
    let (orders_before, audit_before) = (history::marks(&orders), history::marks(&audit));
    let mut heir = heir.unwrap_or_else(|| site.run("second", &second));
    let taken_over = || (history::all_moved(&orders, &orders_before) && history::all_moved(&audit, &audit_before)).then_some(());
    heir.until("all partitions taken over", PATIENCE, taken_over).await;

    zombie.signal(libc::SIGCONT);
    // Where a question to the brokers has outlasted its time meanwhile, the flow is over by that, and the group tells who opens the next one.
    let is_fenced = async || metric(ports[0], "alluvium_fenced_total") > 0.0 || zombie.log_text().contains(LOST);
    wait_within(PATIENCE, "being fenced", is_fenced).await;
    // They go on as two.
    sleep(Duration::from_secs(3)).await;
    let model = stream.finish().await;
    zombie.kill().await;
    heir.kill().await;
    let last = Shop {
        name: "last",
        kafka: "",
        ..shop
    };
    site.catch_up(&last.configure(&site)).await;
    verdict::every_version_is_right(&site, &model).await;
    zombie.log_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_member_frozen_while_it_commits_is_fenced_when_it_thaws() {
    // Longer than a machine stalls: before it is frozen, nobody is to be fenced.
    let log = a_frozen_instance_is_fenced(&group("frozen", 12_000)).await;
    let reasons = ["another writer has it", LOST];
    assert!(reasons.iter().any(|reason| log.contains(reason)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_where_no_group_tells_an_instance_frozen_while_it_commits_the_log_fences_it() {
    let log = a_frozen_instance_is_fenced("").await;
    assert!(log.contains("another writer has it"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_terminated_program_publishes_what_it_has_read_and_ends_well() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    // Nothing but the signal can be what publishes.
    let (site, config, port) = served(&source, "1 h");
    let producer = source.fill(50_000);
    let mut program = site.run("program", &config);
    until_all_read(&mut program, port, &source.topic, &producer.model).await;
    assert!(
        history::marks(&site.table("audit")).is_empty(),
        "nothing is published before the signal"
    );
    program.stop().await;
    verdict::every_version_is_right(&site, &producer.model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_stop_that_runs_out_of_grace_leaves_what_it_could_not_publish_to_the_next_start() {
    let broker = Broker::start(NEVER_GIVEN_UP);
    let source = Source::new(&broker, PARTITIONS).await;
    let (site, port) = (Site::new(), free_port());
    let shop = Shop {
        commit: "interval = \"1 h\"",
        ..Shop::on(&source)
    };
    let top = format!("{}\ngrace = \"2 s\"", http(port));
    let config = Shop { top: &top, ..shop }.configure(&site);
    let producer = source.fill(50_000);
    let mut program = site.run("program", &config);
    until_all_read(&mut program, port, &source.topic, &producer.model).await;
    // Before it publishes, it asks the brokers whether the topics are those that it read; and they do not answer.
    broker.freeze();
    let asked = Instant::now();
    program.signal(libc::SIGTERM);
    let exit = program.wait(Duration::from_secs(60)).await;
    let took = asked.elapsed();
    broker.thaw();
    assert_eq!(exit.status.code(), Some(0), "{}", program.log_tail());
    assert!(program.log_text().contains("out of time"), "{}", program.log_tail());
    assert!((Duration::from_secs(2)..Duration::from_secs(45)).contains(&took), "{took:?}");
    assert!(history::marks(&site.table("audit")).is_empty(), "nothing was published");
    site.catch_up(&Shop { name: "last", ..shop }.configure(&site)).await;
    verdict::every_version_is_right(&site, &producer.model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_second_signal_ends_the_program_at_once() {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, config, port) = served(&source, "1 h");
    let producer = source.fill(300_000);
    let mut program = site.run("program", &config);
    until_all_read(&mut program, port, &source.topic, &producer.model).await;
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
        .until("a version", PATIENCE, || {
            (history::read(&site.table("orders")).len() > 1).then_some(())
        })
        .await;
    // Longer than its own cluster takes it for alive: when it goes on, it is none of the brokers for a moment.
    broker.freeze();
    sleep(Duration::from_secs(25)).await;
    broker.thaw();
    let model = stream.finish().await;
    until_all_published(&mut program, port, &source.topic, &model).await;
    program.stop().await;
    verdict::every_version_is_right(&site, &model).await;
}
