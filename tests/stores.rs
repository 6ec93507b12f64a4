//! The same list of promises over every store that a machine of its own can have: a folder, and an S3-compatible server.

mod durable;

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use alluvium::error::Kind;
use alluvium::log::{Change, Log, Outcome, When, maintain, store};
use alluvium::query::{Named, query};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use url::Url;

use crate::support::delta::{PIPELINE, append_table, assert_replays, change, data_file, library, mark, row_numbers, rows_of, upsert_table};
use crate::support::s3::{S3, options};
use crate::support::store::{Fault, FaultyStore, Op, Rule};

type Options = BTreeMap<String, String>;

/// Everything that a table needs of its store.
async fn a_table_lives_here(lake: &Url, options: &Options) {
    let url = lake.join("orders/").expect("a URL");
    let store = store::open(&url, options).expect("a store");
    store::probe_conditional_put(store.as_ref(), url.as_str())
        .await
        .expect("conditional puts");
    assert!(
        Log::open(&url, Arc::clone(&store), PIPELINE).await.expect("a look").is_none(),
        "no table yet"
    );

    let table = upsert_table();
    let mut log = Log::open_or_create(&url, Arc::clone(&store), &table, PIPELINE).await.expect("made");
    let file = data_file(&store, 0..50, "a").await;
    log.commit(&Change {
        adds: vec![file.clone()],
        ..change(None, 49)
    })
    .await
    .expect("a commit");
    let vectors = BTreeMap::from([(Arc::clone(&file.path), row_numbers(0..10))]);
    let mut born = data_file(&store, 0..20, "b").await;
    born.deleted = row_numbers(10..20);
    log.commit(&Change {
        adds: vec![born],
        vectors,
        ..change(Some(49), 70)
    })
    .await
    .expect("a commit");
    assert_replays(&log, &store).await;
    maintain::checkpoint(&url, Arc::clone(&store), 2).await.expect("a checkpoint");
    log.commit(&change(Some(70), 71)).await.expect("a commit");
    assert_replays(&log, &store).await;

    let mut log = Log::open_or_create(&url, Arc::clone(&store), &table, PIPELINE)
        .await
        .expect("opens");
    assert_eq!(*log.vector(&file.path).await.expect("a vector"), row_numbers(0..10));
    let expected: BTreeMap<i64, String> = (0..50).map(|id| (id, format!("{}{id}", if id < 10 { "b" } else { "a" }))).collect();
    assert_eq!(rows_of(library(&store).await).await, expected);
    let orders = [Named {
        name: "orders".to_owned(),
        url: url.clone(),
        store: Arc::clone(&store),
    }];
    for (at, tag) in [(49, "a7"), (50, "b7")] {
        let rows = query("select v from orders where id = 7", &orders, &When::Mark(mark(&[("orders/0", at)])))
            .await
            .expect("a plan");
        let text = arrow::util::pretty::pretty_format_batches(&rows.collect().await.expect("rows"))
            .expect("text")
            .to_string();
        assert!(text.contains(tag), "{text}");
    }
    one_winner_a_round(lake, options).await;
}

/// Four writers of one lane, each with a connection of its own: of each round exactly one wins, the others are fenced.
async fn one_winner_a_round(lake: &Url, options: &Options) {
    let url = lake.join("raced/").expect("a URL");
    for round in 0..12_u64 {
        let mut logs = Vec::new();
        for _ in 0..4 {
            let store = store::open(&url, options).expect("a store");
            logs.push(Log::open_or_create(&url, store, &append_table(), PIPELINE).await.expect("opens"));
        }
        let step = change(round.checked_sub(1), round);
        let all = futures::future::join_all(logs.iter_mut().map(|log| log.commit(&step))).await;
        let won = all.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Committed(_)))).count();
        let fenced = all
            .iter()
            .filter(|outcome| matches!(outcome, Err(error) if error.kind == Kind::Fenced))
            .count();
        assert_eq!((won, fenced), (1, 3), "{all:?}");
    }
    let log = Log::open(&url, store::open(&url, options).expect("a store"), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    assert_eq!(log.snapshot().version, 12);
}

#[tokio::test]
async fn a_table_lives_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Url::from_directory_path(folder.path().join("a lake")).expect("a URL");
    a_table_lives_here(&lake, &Options::new()).await;
    let left = walk(folder.path())
        .into_iter()
        .filter(|name| name.contains('#') || name.contains("probe"))
        .collect::<Vec<_>>();
    assert_eq!(left, Vec::<String>::new(), "nothing unfinished is left behind");
}

/// All names of files below a folder.
fn walk(folder: &FilePath) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(walk(&path))
        } else {
            names.push(path.display().to_string())
        }
    }
    names
}

#[tokio::test]
async fn looking_for_a_table_makes_no_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = Url::from_directory_path(folder.path().join("none")).expect("a URL");
    let store = store::open(&url, &Options::new()).expect("a store");
    assert!(Log::open(&url, store, "").await.expect("a look").is_none());
    assert!(!folder.path().join("none").exists());
}

#[tokio::test]
async fn a_folder_keeps_the_promises_of_an_object_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = Url::from_directory_path(folder.path()).expect("a URL");
    let store = store::open(&url, &Options::new()).expect("a store");
    let create = || PutOptions {
        mode: PutMode::Create,
        ..PutOptions::default()
    };
    // One winner of eight racers, with its own bytes.
    for round in 0..20 {
        let path = Path::from(format!("race/{round:03}"));
        let puts = (0..8_u8).map(|n| store.put_opts(&path, vec![n; 100].into(), create()));
        let all = futures::future::join_all(puts).await;
        let winner = all.iter().position(Result::is_ok).expect("a winner");
        assert_eq!(
            all.iter()
                .filter(|put| matches!(put, Err(object_store::Error::AlreadyExists { .. })))
                .count(),
            7
        );
        assert_eq!(
            store.get(&path).await.expect("there").bytes().await.expect("bytes"),
            vec![winner as u8; 100]
        );
        assert_eq!(
            all[winner].as_ref().expect("the winner").e_tag,
            store.head(&path).await.expect("there").e_tag
        );
    }
    // An upload in parts is there when it is complete, and what a crash left is hidden.
    let path = Path::from("deep/er/parts");
    let mut upload = store.put_multipart(&path).await.expect("an upload");
    upload.put_part(vec![1; 10].into()).await.expect("a part");
    assert!(store.head(&path).await.is_err());
    upload.complete().await.expect("complete");
    assert_eq!(store.head(&path).await.expect("there").size, 10);
    std::fs::write(folder.path().join("race/010#1"), "half").expect("a file");
    store.put(&Path::from("race/010"), "over".into()).await.expect("a put");
    assert_eq!(
        store
            .get(&Path::from("race/010"))
            .await
            .expect("there")
            .bytes()
            .await
            .expect("bytes"),
        "over"
    );
    let listed: Vec<ObjectMeta> = store
        .list_with_offset(Some(&Path::from("race")), &Path::from("race/004"))
        .try_collect()
        .await
        .expect("a list");
    let names: Vec<String> = listed.iter().map(|meta| meta.location.to_string()).collect();
    assert_eq!(
        names,
        (5..20).map(|round| format!("race/{round:03}")).collect::<Vec<_>>(),
        "in order, and nothing unfinished"
    );
}

#[tokio::test]
async fn c18_a_store_without_conditional_puts_is_refused() {
    let faults = FaultyStore::over(Arc::new(InMemory::new()));
    faults.rule(Rule::new(Op::Put, "", Fault::Careless));
    let error = store::probe_conditional_put(&faults, "s3://lake").await.expect_err("refused");
    assert_eq!((error.kind, error.code), (Kind::Config, "no_conditional_put"));
    assert!(error.to_string().contains("s3://lake"), "{error}");
    let left: Vec<ObjectMeta> = faults.list(None).try_collect().await.expect("a list");
    assert!(left.is_empty(), "the probe cleans up");
}

#[test]
fn places_and_options_that_make_no_sense_are_refused() {
    for (place, options) in [
        ("ftp://host/lake", None),
        ("s3://bucket/lake", Some("aws_allow_http")),
        ("s3://bucket/lake", Some("timeout")),
    ] {
        let options = options.map(|name| (name.to_owned(), "maybe".to_owned())).into_iter().collect();
        let error = store::open(&Url::parse(place).expect("a URL"), &options).expect_err("refused");
        assert_eq!(error.kind, Kind::Config, "{error}");
    }
}

#[tokio::test]
async fn a_table_lives_in_an_s3_bucket() {
    let s3 = S3::start().await;
    a_table_lives_here(&Url::parse("s3://bucket/a/lake/").expect("a URL"), &options(s3.port())).await;
}
