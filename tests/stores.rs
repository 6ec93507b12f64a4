//! The same list of promises over every store that a machine of its own can have: a folder, and servers that answer as S3 and Azure do.

mod durable;

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use alluvium::error::{Error, Kind};
use alluvium::log::{Change, Log, Outcome, When, maintain, store};
use alluvium::query::{Named, query};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::sync::Barrier;
use url::Url;

use crate::support::bucket::{ACCOUNT, Bucket, SIGNATURE, Service};
use crate::support::delta::{PIPELINE, append_table, assert_replays, change, data_file, library, mark, row_numbers, rows_of, upsert_table};
use crate::support::gateway::{Fate, Gateway, Put, Request, Wrong};
use crate::support::store::{Fault, FaultyStore, Op, Rule};

type Options = BTreeMap<String, String>;

const WRITERS: usize = 4;
/// Each of them reads the log anew before each round: a short one is quickly read.
const ROUNDS_OF_A_TABLE: usize = 10;

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
}

/// Writers of one lane, each with a connection of its own: of each round exactly one wins, the others are fenced.
async fn one_winner_a_round(lake: &Url, options: &Options, rounds: usize) {
    for first in (0..rounds).step_by(ROUNDS_OF_A_TABLE) {
        let url = lake.join(&format!("raced-{first}/")).expect("a URL");
        one_winner_a_round_of(&url, options, ROUNDS_OF_A_TABLE.min(rounds - first)).await;
    }
}

async fn one_winner_a_round_of(url: &Url, options: &Options, rounds: usize) {
    for round in 0..rounds as u64 {
        let mut logs = Vec::new();
        for _ in 0..WRITERS {
            let store = store::open(url, options).expect("a store");
            logs.push(Log::open_or_create(url, store, &append_table(), PIPELINE).await.expect("opens"));
        }
        let step = change(round.checked_sub(1), round);
        let all = futures::future::join_all(logs.iter_mut().map(|log| log.commit(&step))).await;
        let won = all.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Committed(_)))).count();
        let fenced = all
            .iter()
            .filter(|outcome| matches!(outcome, Err(error) if error.kind == Kind::Fenced))
            .count();
        assert_eq!((won, fenced), (1, WRITERS - 1), "{all:?}");
    }
    let log = Log::open(url, store::open(url, options).expect("a store"), PIPELINE)
        .await
        .expect("opens")
        .expect("a table");
    assert_eq!(log.snapshot().version, rounds as u64);
}

/// In memory, where there is such a folder: what is raced for is the name, and not the disk, which would be waited for thousands of times.
#[tokio::test(flavor = "multi_thread")]
async fn c5_of_writers_who_come_to_a_folder_at_one_moment_one_wins_each_of_1000_rounds() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let lake = Url::from_directory_path(folder.path()).expect("a URL");
    one_winner_a_round(&lake, &Options::new(), 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_of_writers_who_come_to_a_bucket_at_one_moment_one_wins_each_round() {
    for service in [Service::S3, Service::Azure] {
        let bucket = Bucket::for_races(service).await;
        one_winner_a_round(&url(&service.place("lake/")), &service.options(bucket.port()), 12).await;
    }
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
async fn a_table_lives_in_a_bucket_of_s3() {
    let bucket = Bucket::of(Service::S3).await;
    a_table_lives_here(&url(&Service::S3.place("a/lake/")), &Service::S3.options(bucket.port())).await;
}

#[tokio::test]
async fn a_table_lives_in_a_container_of_azure() {
    let bucket = Bucket::of(Service::Azure).await;
    a_table_lives_here(&url(&Service::Azure.place("a/lake/")), &Service::Azure.options(bucket.port())).await;
}

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

/// What a writer and a reader are told who find such a store.
async fn told(place: &Url, options: &Options) -> [Error; 2] {
    let store = store::open(place, options).expect("a store");
    let written = store::probe_conditional_put(store.as_ref(), place.as_str()).await;
    let read = Log::open(place, store, PIPELINE).await;
    [written.expect_err("refused"), read.expect_err("refused")]
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_told_to_readers_and_writers() {
    for service in [Service::S3, Service::Azure] {
        let bucket = Bucket::of(service).await;
        let place = url(&service.elsewhere("nowhere", "lake/"));
        for error in told(&place, &service.options(bucket.port())).await {
            assert_eq!((error.exit_code(), error.code), (78, "store_missing"), "{error}");
            assert!(error.to_string().contains("does not exist; make it"), "{error}");
        }
    }
}

/// Nothing is sent to such an endpoint, so none is needed.
#[tokio::test]
async fn an_endpoint_of_http_that_nobody_allowed_is_a_mistake_and_no_bad_day() {
    for (service, option, named) in [
        (Service::S3, "aws_allow_http", "`aws_allow_http = \"true\"`"),
        (Service::Azure, "azure_allow_http", "of other stores than S3 `allow_http`"),
    ] {
        let mut options = service.options(1);
        options.remove(option);
        for error in told(&url(&service.place("lake/")), &options).await {
            assert_eq!((error.exit_code(), error.code), (78, "bad_location"), "{error}");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

/// moto takes any key.
#[tokio::test]
async fn a_key_that_azure_does_not_take_is_told_to_readers_and_writers() {
    let bucket = Bucket::of(Service::Azure).await;
    let place = url(&Service::Azure.place("lake/"));
    let with = |name: &str, value: &str| {
        let mut options = Service::Azure.options(bucket.port());
        options.remove("azure_storage_account_key");
        options.insert(name.to_owned(), value.to_owned());
        options
    };
    let expired = SIGNATURE.replace("2100", "2001");
    for options in [
        with("azure_storage_account_key", "b3RoZXI="),
        with("azure_storage_sas_key", &expired),
        with("azure_storage_token", "other"),
    ] {
        for error in told(&place, &options).await {
            assert_eq!((error.exit_code(), error.code), (77, "store_denied"), "{error}");
            let text = error.to_string();
            assert!(
                text.contains(place.as_str()) && text.contains("fix the credentials in `[storage]`"),
                "{text}"
            );
            assert!(!text.contains("sig="), "{text}");
        }
    }
}

#[tokio::test]
async fn a_container_is_written_to_by_its_long_name_and_by_what_its_account_has_signed() {
    let bucket = Bucket::of(Service::Azure).await;
    let mut options = Service::Azure.options(bucket.port());
    options.remove("azure_storage_account_name");
    options.remove("azure_storage_account_key");
    options.insert("azure_storage_sas_key".to_owned(), SIGNATURE.to_owned());
    let place = url(&format!("abfss://bucket@{ACCOUNT}.dfs.core.windows.net/lake/"));
    let store = store::open(&place, &options).expect("a store");
    store::probe_conditional_put(store.as_ref(), place.as_str())
        .await
        .expect("conditional puts");
    let mut log = Log::open_or_create(&place, store, &append_table(), PIPELINE).await.expect("made");
    log.commit(&change(None, 7)).await.expect("a commit");
    let (short, options) = (url(&Service::Azure.place("lake/")), Service::Azure.options(bucket.port()));
    let store = store::open(&short, &options).expect("a store");
    let log = Log::open(&short, store, PIPELINE).await.expect("opens").expect("the same table");
    assert_eq!(log.checkpoint(), mark(&[("orders/0", 7)]));
}

/// The commits of all writers are at hand before the first of them is carried out. S3 itself turns some of such puts away with a 409, which
/// is Azure's word for a name that is taken.
#[tokio::test(flavor = "multi_thread")]
async fn c5_of_commits_that_come_to_a_bucket_at_one_moment_one_is_made() {
    for (service, let_in) in [(Service::S3, WRITERS), (Service::S3, WRITERS / 2), (Service::Azure, WRITERS)] {
        let bucket = Bucket::for_races(service).await;
        let (together, mut came) = (Arc::new(Barrier::new(let_in)), BTreeMap::new());
        let judge = move |request: &Request| {
            // The first version is made by one of them, before the others come.
            if request.put() != Some(Put::Commit) || request.target.ends_with("/00000000000000000000.json") {
                return Fate::Pass;
            }
            let came: &mut usize = came.entry(request.target.clone()).or_default();
            *came += 1;
            match *came {
                nth if nth <= let_in => Fate::Together(Arc::clone(&together)),
                nth if nth <= WRITERS => Fate::Instead(Wrong::Answer(409, "ConditionalRequestConflict")),
                _ => Fate::Pass,
            }
        };
        let gateway = Gateway::before(bucket.port(), judge).await;
        one_winner_a_round(&url(&service.place("lake/")), &service.options(gateway.port()), 12).await;
    }
}
