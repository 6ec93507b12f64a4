//! A catch-up of a member of a group: it ends when the tables hold what was there, whoever read it.

use std::sync::Mutex;

use alluvium::error::Kind;
use alluvium::sources::Resume;
use alluvium::sources::kafka::KafkaSource;

use super::{Lake, Pipe, failed, numbered, values};
use crate::support::kafka::Broker;

/// Reads to the end as a pipeline does: whatever ends a flow, what it read is in the tables, and the next one begins there. Each member sees
/// of the others what the tables say.
async fn catch_up(pipe: &Pipe, lake: &mut Lake, tables: &Mutex<Resume>) {
    loop {
        lake.marks = tables.lock().unwrap().clone();
        let mut source = match pipe.open(lake).await {
            Err(error) if error.code == "group_not_joined" => continue,
            opened => opened.expect("the flow opens"),
        };
        let ended = pipe.read(&mut source, lake, |_| false).await.expect("the flow goes on");
        for (table, mark) in &lake.marks {
            let mut tables = tables.lock().unwrap();
            let holds = tables.entry(table.clone()).or_default();
            *holds = std::mem::take(holds).join(mark);
        }
        if ended.is_none() {
            return;
        }
    }
}

/// A flow with so many lanes.
async fn with_lanes(pipe: &Pipe, count: usize) -> KafkaSource {
    let mut lake = Lake::default();
    loop {
        let mut source = pipe.open_at_last(&lake).await;
        if pipe.board.read()["test"].lanes.len() == count {
            return source;
        }
        let why = pipe.read(&mut source, &mut lake, |_| false).await.expect("the flow goes on");
        assert!(why.is_some(), "lanes come and go");
    }
}

async fn a_dead_member(strategy: &str) {
    let broker = Broker::shared();
    let topic = broker.topic("dead-member", 4, &[]).await;
    // Members with names do not leave the group when they end.
    let member = |name: &str| {
        let more = format!(
            "group = \"{topic}\"\noptions = {{ \"group.instance.id\" = \"{name}\", \"session.timeout.ms\" = \"12000\", \
             \"partition.assignment.strategy\" = \"{strategy}\" }}"
        );
        let mut pipe = Pipe::new(&broker.bootstrap(), &more, &[("a", &topic)]);
        pipe.settings.until_caught_up = false;
        pipe
    };
    let (mut first, second) = (member("first"), member("second"));
    drop(tokio::join!(with_lanes(&first, 2), with_lanes(&second, 2)));
    drop(second);
    (0..4).for_each(|partition| broker.produce(&topic, partition, numbered(0, 10)));
    first.settings.until_caught_up = true;
    let mut lake = Lake::default();
    catch_up(&first, &mut lake, &Mutex::default()).await;
    for partition in 0..4 {
        assert_eq!(lake.values("a", partition), values(0, 10), "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_reads_what_a_dead_member_leaves_behind_after_cooperative_rebalances() {
    a_dead_member("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_reads_what_a_dead_member_leaves_behind_after_eager_rebalances() {
    a_dead_member("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catch_ups_side_by_side_all_end_when_together_they_have_read_everything() {
    let broker = Broker::shared();
    let topic = broker.topic("side-by-side", 4, &[]).await;
    (0..4).for_each(|partition| broker.produce(&topic, partition, numbered(0, 1_000)));
    let more = format!("group = \"{topic}\"\noptions = {{ \"session.timeout.ms\" = \"20000\" }}");
    let pipe = || Pipe::new(&broker.bootstrap(), &more, &[("a", &topic)]);
    let (first, second) = (pipe(), pipe());
    let (mut one, mut other, tables) = (Lake::default(), Lake::default(), Mutex::default());
    // Neither leaves the group before both have ended.
    tokio::join!(catch_up(&first, &mut one, &tables), catch_up(&second, &mut other, &tables));
    for partition in 0..4 {
        let both = [one.values("a", partition), other.values("a", partition)].concat();
        assert_eq!(both.len(), 1_000, "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_group_does_not_let_in_is_told_why_and_reads_when_it_does() {
    let broker = Broker::shared();
    let topic = broker.topic("refused", 1, &[]).await;
    let member = |strategy: &str| {
        let more = format!("group = \"{topic}\"\noptions = {{ \"partition.assignment.strategy\" = \"{strategy}\" }}");
        let mut pipe = Pipe::new(&broker.bootstrap(), &more, &[("a", &topic)]);
        pipe.settings.until_caught_up = false;
        pipe
    };
    let (first, second) = (member("range"), member("cooperative-sticky"));
    let reads = with_lanes(&first, 1).await;
    let said = second.client.look_at_group(&topic).await.unwrap();
    for part in [topic.as_str(), "note", "(1)", "`range`", "`cooperative-sticky`"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    let error = failed(second.open(&Lake::default()).await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "group_refused"), "{error}");
    assert!(
        error.what.contains(&topic) && error.what.contains("`cooperative-sticky`"),
        "{error}"
    );
    drop((reads, first));
    with_lanes(&second, 1).await;
}
