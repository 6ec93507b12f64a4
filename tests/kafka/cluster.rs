//! A cluster of three brokers, which die and come back while it is read: leaders move, and so does the group's coordinator.

use std::path::Path;
use std::time::Duration;

use rand::Rng;

use super::conformance::conforms;
use super::made_anew_while_it_is_read;
use crate::support::history;
use crate::support::kafka::Broker;
use crate::support::program::{Program, Site, free_port, http};
use crate::support::shop::{PARTITIONS, Shop, Source, until_all_published};
use crate::support::stream::Stream;
use crate::support::verdict;

const PATIENCE: Duration = Duration::from_secs(240);

/// Waits until every mark of a table has moved on from where it is now.
async fn until_it_goes_on(program: &mut Program, table: &Path) {
    let has_all = || (history::marks(table).len() == PARTITIONS as usize).then_some(());
    program.until("a mark of each partition", PATIENCE, has_all).await;
    let before = history::marks(table);
    let moved = || history::all_moved(table, &before).then_some(());
    program.until("all partitions read on", PATIENCE, moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_leaders_move_and_brokers_are_killed_and_nothing_is_lost_or_doubled() {
    // Each in turn, where there is time for as many.
    let kills: usize = std::env::var("ALLUVIUM_KILLS").map_or(2, |text| text.parse::<usize>().expect("ALLUVIUM_KILLS is a number") / 10);
    // None is given up for a stall of the machine: what comes last asks them without trying again.
    let mut cluster = Broker::cluster(3, "broker.session.timeout.ms=9000");
    let source = Source::new(&cluster[0], PARTITIONS).await;
    let (site, port) = (Site::new(), free_port());
    let config = Shop {
        top: &http(port),
        kafka: "group = \"shop\"\noptions = { \"session.timeout.ms\" = \"6000\", \"heartbeat.interval.ms\" = \"1000\" }",
        commit: "interval = \"500 ms\"",
        ..Shop::on(&source)
    }
    .configure(&site);
    let stream = Stream::start(&source, 2_000);
    let mut program = site.run("program", &config);
    let audit = site.table("audit");
    let first = rand::rng().random_range(0..cluster.len());
    for kill in 0..kills {
        let node = (first + kill) % cluster.len();
        let id = cluster[node].id();
        println!("broker {id} is killed");
        until_it_goes_on(&mut program, &audit).await;
        cluster[node].kill();
        cluster[node]
            .until_led(&source.topic, |leaders| !leaders.contains(&id) && leaders.iter().all(|id| *id > 0))
            .await;
        until_it_goes_on(&mut program, &audit).await;
        cluster[node].resume();
        // From one that lives to one that lives, while it is read.
        cluster[node].until_led(&source.topic, |leaders| leaders.contains(&id)).await;
    }
    until_it_goes_on(&mut program, &audit).await;
    let model = stream.finish().await;
    until_all_published(&mut program, port, &source.topic, &model).await;
    program.stop().await;
    verdict::every_version_is_right(&site, &model).await;

    conforms(&cluster[0]).await;
    made_anew_while_it_is_read(&cluster[0]).await;
}
