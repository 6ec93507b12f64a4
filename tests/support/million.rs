//! A million changes from a real Kafka in an upsert and an audit table, and what readers must see of them: the whole, and any moment.

use std::path::Path;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;

use super::changes::{Changes, Encoding};
use super::history::{self, Commit};
use super::kafka::Broker;
use super::model::Model;
use super::program::{Exit, Site};
use super::python::{Question, Reader};
use super::seed::seed;
use super::shop::{PARTITIONS, Shop, Source};
use super::verdict;

/// Versions that are read, beside the newest and one that compaction made.
const CHOSEN: usize = 10;

/// What the configuration of [`Shop`] has as `memory`.
const MEMORY: u64 = 128 << 20;
/// Beside it: the program itself, the client's buffers, what the allocator keeps: 150 MiB by themselves, and more where the machine is busy.
const BESIDE_MEMORY: u64 = 200 << 20;
/// The most that the index takes for a key.
const INDEX_BYTES: u64 = 24;
const LIVE_MAX: usize = 300_000;

/// Fills a topic of four partitions, drains it into an upsert and an audit table, and returns what must be in them, and what that took.
pub async fn drain(site: &Site, encoding: Encoding, changes: Changes, count: usize) -> (Model, Exit) {
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let mut producer = source.producer(Model::new(PARTITIONS as usize, encoding));
    changes.take(count).for_each(|change| producer.send(&change));
    producer.flush();
    let shop = Shop {
        encoding,
        commit: "rows = 20000",
        ..Shop::on(&source)
    };
    let exit = site.catch_up(&shop.configure(site)).await;
    (producer.model, exit)
}

pub fn versions_with_marks(history: &[Commit]) -> Vec<&Commit> {
    history.iter().filter(|commit| !commit.marks.is_empty()).collect()
}

/// Each of these readers sees what the model says.
pub async fn is_read_by(readers: &[Reader]) {
    let (site, seed) = (Site::new(), seed());
    let (model, exit) = drain(&site, Encoding::Json, Changes::new(seed, LIVE_MAX), 1_000_000).await;
    let most = MEMORY + BESIDE_MEMORY + LIVE_MAX as u64 * INDEX_BYTES;
    assert!(exit.peak_rss_bytes <= most, "{} bytes of {most}", exit.peak_rss_bytes);

    let (orders, audit) = (site.table("orders"), site.table("audit"));
    let history = history::read(&orders);
    assert_eq!(history.last().unwrap().marks, model.end(), "the table holds the whole topic");
    let chosen = choose(&history, &mut SmallRng::seed_from_u64(seed));
    let lanes = lanes(&orders);
    for reader in readers {
        let asked = questions(*reader, &history, &chosen, &lanes);
        verdict::answers_equal_their_folds(*reader, &orders, &asked, &model, &site.out()).await;
    }

    let history = history::read(&audit);
    assert_eq!(history.last().unwrap().marks, model.end());
    verdict::every_version_added_what_its_marks_say(&audit, &history, &model);
    for reader in readers {
        verdict::every_record_is_there_once(*reader, &audit, history.last().unwrap().version, &model, &site.out()).await;
    }
}

/// Versions at random, all of which need their deletion vectors to be read; whatever else is chosen, the newest, and one in which compaction has
/// just moved rows.
fn choose<'h>(history: &'h [Commit], chance: &mut SmallRng) -> Vec<&'h Commit> {
    let mut versions = versions_with_marks(history);
    let newest = versions.pop().expect("the table has versions");
    versions.retain(|commit| commit.vectors > 0);
    assert!(
        versions.len() > 2 * CHOSEN,
        "a history of {} versions with deletion vectors is too short to be travelled",
        versions.len()
    );
    let mut chosen = versions.into_iter().choose_multiple(chance, CHOSEN);
    let compacted = history.iter().rfind(|commit| commit.info["operation"] == "OPTIMIZE");
    chosen.push(compacted.expect("compaction came to something"));
    chosen.push(newest);
    chosen.sort_by_key(|commit| commit.version);
    chosen.dedup_by_key(|commit| commit.version);
    chosen
}

/// Each version is asked for by its number, and some by other names that the reader knows for it, too.
fn questions<'h>(reader: Reader, history: &[Commit], chosen: &[&'h Commit], lanes: &[(i32, String)]) -> Vec<(Question, &'h Commit)> {
    let (mut asked, mut times) = (Vec::new(), 0);
    for commit in chosen {
        asked.push((Question::Version(commit.version), *commit));
        if let Some(time_ms) = history::time_of(history, commit.version).filter(|_| reader != Reader::Duckdb && times < 2) {
            asked.push((Question::Time(time_ms), *commit));
            times += 1;
        }
    }
    assert!(
        times == 2 || reader == Reader::Duckdb,
        "the versions follow each other too closely to be told by time"
    );
    if reader == Reader::Alluvium {
        let position = |(partition, lane): &(i32, String)| Some(format!("{lane}:{}", chosen[0].marks.get(partition)?));
        asked.insert(0, (Question::Position(lanes.iter().filter_map(position).collect()), chosen[0]));
    }
    asked
}

/// The lanes of a table by their partitions, as positions name them.
fn lanes(table: &Path) -> Vec<(i32, String)> {
    let lane = |id: String| {
        let lane = id.strip_prefix("alluvium/shop/").expect("a lane of this pipeline").to_owned();
        (history::partition(&lane), lane)
    };
    history::app_ids(table).into_iter().map(lane).collect()
}
