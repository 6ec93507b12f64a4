//! The program writes from a real Kafka into a bucket whose server, and the way to it, have bad days: what the bucket holds then is exactly
//! the topic.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::Barrier;
use tokio::time::sleep;

use crate::support::bank::read;
use crate::support::bucket::{Bucket, Service};
use crate::support::changes::Changes;
use crate::support::gateway::{Fate, Gateway, Put, Request, Wrong};
use crate::support::history;
use crate::support::kafka::Broker;
use crate::support::model::Model;
use crate::support::program::{Site, free_port, get, http, labelled, metric, status};
use crate::support::python::Reader;
use crate::support::readback;
use crate::support::shop::{LIVE_MAX, PARTITIONS, Shop, Source, until_all_published};
use crate::support::stream::Stream;
use crate::support::verdict;

const PATIENCE: Duration = Duration::from_secs(300);

// S3's words, and some of Azure's.
const DENIED: Wrong = Wrong::Answer(403, "AccessDenied");
const CONFLICT: Wrong = Wrong::Answer(409, "ConditionalRequestConflict");
const BROKEN: Wrong = Wrong::Answer(500, "InternalError");
const SLOW_DOWN: Wrong = Wrong::Answer(503, "SlowDown");
const UNAUTHORIZED: Wrong = Wrong::Answer(403, "AuthorizationFailure");
const BUSY: Wrong = Wrong::Answer(503, "ServerBusy");

/// Deals bad days to some kinds of puts: to every so-manieth put of a kind the next one, until each kind has had all of them.
#[derive(Clone)]
struct Dealer {
    every: usize,
    hands: Arc<Mutex<BTreeMap<Put, Hand>>>,
}

#[derive(Clone)]
struct Hand {
    came: usize,
    left: Vec<Fate>,
}

impl Dealer {
    fn new(every: usize, puts: &[Put], days: &[Fate]) -> Self {
        let left: Vec<Fate> = days.iter().rev().cloned().collect();
        let hand = Hand { came: 0, left };
        let hands = puts.iter().map(|put| (*put, hand.clone())).collect();
        Self {
            every,
            hands: Arc::new(Mutex::new(hands)),
        }
    }

    fn deal(&self, request: &Request) -> Fate {
        let mut hands = self.hands.lock().expect("no test panics with the lock");
        let Some(hand) = request.put().and_then(|put| hands.get_mut(&put)) else {
            return Fate::Pass;
        };
        hand.came += 1;
        if !hand.came.is_multiple_of(self.every) {
            return Fate::Pass;
        }
        let fate = hand.left.pop().unwrap_or(Fate::Pass);
        // What a test prints is shown when it fails.
        println!("{fate:?} for {}", request.target);
        fate
    }

    fn is_done(&self) -> bool {
        let hands = self.hands.lock().expect("no test panics with the lock");
        hands.values().all(|hand| hand.left.is_empty())
    }
}

/// The shop with its tables in a bucket that is reached by the lines `storage`.
fn configure(site: &Site, source: &Source, lake: &str, storage: &str, port: u16) -> PathBuf {
    Shop {
        top: &format!("{}\n{storage}", http(port)),
        commit: "interval = \"200 ms\"",
        lake,
        ..Shop::on(source)
    }
    .configure(site)
}

/// Both tables, read in a copy of them, are at every version what they must be.
async fn the_bucket_holds(bucket: &Bucket, lake: &str, site: &Site, model: &Model) {
    bucket.copy(lake, &site.path("lake")).await;
    verdict::every_version_is_right(site, model).await;
}

fn append(config: &Path, text: &str) {
    let file = std::fs::OpenOptions::new().append(true).open(config);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("the configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_whatever_becomes_of_each_kind_of_put_to_s3_the_tables_are_the_topic() {
    // Where nothing may be written, a pipeline gives up after some tries: these come first, before others make it try again.
    let days = [
        Fate::Instead(DENIED),
        Fate::Instead(CONFLICT),
        Fate::Instead(BROKEN),
        Fate::Instead(SLOW_DOWN),
        Fate::Short,
        Fate::After(BROKEN),
        Fate::After(SLOW_DOWN),
        Fate::After(Wrong::Cut),
    ];
    whatever_becomes_of_each_kind_of_put_the_tables_are_the_topic(Service::S3, &days).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_whatever_becomes_of_each_kind_of_put_to_azure_the_tables_are_the_topic() {
    let days = [
        Fate::Instead(UNAUTHORIZED),
        Fate::Instead(BUSY),
        Fate::After(BROKEN),
        Fate::After(Wrong::Cut),
    ];
    whatever_becomes_of_each_kind_of_put_the_tables_are_the_topic(Service::Azure, &days).await;
}

/// Also for readers that ask the server themselves.
async fn whatever_becomes_of_each_kind_of_put_the_tables_are_the_topic(service: Service, days: &[Fate]) {
    let puts = [Put::DataFile, Put::Vectors, Put::Commit, Put::Checkpoint, Put::Hint];
    let bucket = Bucket::of(service).await;
    let dealer = Dealer::new(2, &puts, days);
    let dealt = dealer.clone();
    let gateway = Gateway::before(bucket.port(), move |request| dealer.deal(request)).await;
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, port, lake) = (Site::new(), free_port(), service.place("lake"));
    let config = configure(&site, &source, &lake, &service.section(gateway.port()), port);
    for table in ["orders", "audit"] {
        append(
            &config,
            &format!("[pipelines.shop.tables.{table}.properties]\n\"delta.checkpointInterval\" = \"3\"\n"),
        );
    }
    let stream = Stream::start(&source, 2_000);
    let mut program = site.run("program", &config);
    program.until("every bad day", PATIENCE, || dealt.is_done().then_some(())).await;
    let model = stream.finish().await;
    until_all_published(&mut program, port, &source.topic, &model).await;
    let recovered = |table: &str| {
        let of_table = format!("table=\"{table}\"");
        labelled(port, "alluvium_commits_total", &[&of_table, "result=\"ambiguous_recovered\""])
    };
    assert!(["orders", "audit"].map(recovered).iter().any(|commits| *commits > Some(0.0)));
    program.stop().await;
    the_bucket_holds(&bucket, &lake, &site, &model).await;
    let newest = history::read(&site.table("orders")).last().expect("versions").version;
    let environment = service.environment(bucket.port());
    for reader in [Reader::Deltalake, Reader::Alluvium] {
        let files = reader
            .read_there(&format!("{lake}/orders"), &environment, newest, &site.out())
            .await;
        let right = readback::check_orders(&files, model.fold().upto(&model.end()));
        assert_eq!(right, Ok(()), "{}", reader.name());
    }
}

/// A record that makes 96 KiB of a data file, however it is compressed.
fn blob(number: usize) -> String {
    let mut bytes = vec![0; 96 << 10];
    SmallRng::seed_from_u64(number as u64).fill_bytes(&mut bytes);
    STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_whatever_becomes_of_the_parts_of_a_file_in_s3_each_record_is_there_once() {
    let days = [
        Fate::Instead(DENIED),
        Fate::Instead(SLOW_DOWN),
        Fate::Short,
        Fate::After(BROKEN),
        Fate::After(Wrong::Cut),
    ];
    let dealer = Dealer::new(3, &[Put::Begin, Put::Part, Put::Complete], &days);
    let given_up = whatever_becomes_of_the_parts_of_a_file_each_record_is_there_once(Service::S3, dealer).await;
    assert!(given_up > 0, "no upload was given up");
}

/// An upload that is given up is nothing to Azure: parts that no file is made of go away by themselves. Nor can a file be completed a
/// second time, where the first answer was lost: it is written anew.
#[tokio::test(flavor = "multi_thread")]
async fn c20_whatever_becomes_of_the_parts_of_a_file_in_azure_each_record_is_there_once() {
    let days = [Fate::Instead(Wrong::Cut), Fate::After(Wrong::Cut)];
    let dealer = Dealer::new(2, &[Put::Part, Put::Complete], &days);
    whatever_becomes_of_the_parts_of_a_file_each_record_is_there_once(Service::Azure, dealer).await;
}

/// Gives how many uploads the program has given up by a request of S3.
async fn whatever_becomes_of_the_parts_of_a_file_each_record_is_there_once(service: Service, dealer: Dealer) -> u32 {
    /// Some 9.6 MB: more than a part.
    const RECORDS_EACH: usize = 100;
    let bucket = Bucket::of(service).await;
    let (dealt, given_up) = (dealer.clone(), Arc::new(AtomicU32::new(0)));
    let counter = Arc::clone(&given_up);
    let judge = move |request: &Request| {
        if request.method == "DELETE" && request.target.contains("uploadId=") {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        dealer.deal(request)
    };
    let gateway = Gateway::before(bucket.port(), judge).await;
    let broker = Broker::shared();
    let topic = broker.topic("blobs", 1, &[]).await;
    let (site, port, lake) = (Site::new(), free_port(), service.place("lake"));
    std::fs::write(
        site.path("blobs.avsc"),
        r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}, {"name": "body", "type": "string"}]}"#,
    )
    .expect("a schema");
    let config = site.configure(
        "blobs",
        &format!(
            "lake = \"{lake}\"\nstate = \"{{dir}}/state\"\nmemory = \"128 MiB\"\n{}\n{}\
             [pipelines.p.kafka]\nbrokers = \"{}\"\n[pipelines.p.commit]\nrows = {RECORDS_EACH}\n\
             [pipelines.p.tables.blobs]\ntopic = \"{topic}\"\nschema = \"{{dir}}/blobs.avsc\"\nauto_compact = false\n",
            http(port),
            service.section(gateway.port()),
            broker.bootstrap()
        ),
    );
    let mut program = site.run("program", &config);
    let mut records = 0;
    while !dealt.is_done() {
        let record = |number: usize| {
            (
                number.to_string(),
                Some(format!("{{\"id\":{number},\"body\":\"{}\"}}", blob(number))),
            )
        };
        broker.produce(&topic, 0, (records..records + RECORDS_EACH).map(record));
        records += RECORDS_EACH;
        let published = || {
            let at = status(port)?["pipelines"]["p"]["tables"]["blobs"]["positions"][format!("{topic}/0")].as_u64();
            (at == Some(records as u64 - 1)).then_some(())
        };
        program.until("a version with them", PATIENCE, published).await;
    }
    program.stop().await;
    bucket.copy(&lake, &site.path("lake")).await;
    let table = site.table("blobs");
    let newest = history::read(&table).last().expect("versions").version;
    let files = Reader::Deltalake.read(&table, &[newest], &site.out()).await.concat();
    let mut expected: Vec<String> = (0..records).map(|number| format!("{number}|{}", blob(number))).collect();
    expected.sort();
    let there = readback::texts(&files, &["id", "body"]);
    assert_eq!(there.len(), records);
    assert!(there == expected, "a record is not as it was written");
    given_up.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn c22_a_store_that_throttles_is_asked_now_and_then_while_the_source_waits() {
    const RECORDS: usize = 400_000;
    const LOOKS: Duration = Duration::from_secs(2);
    let bucket = Bucket::of(Service::S3).await;
    let (calm, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (is_calm, count) = (Arc::clone(&calm), Arc::clone(&asked));
    let mut throttles = false;
    let judge = move |request: &Request| {
        throttles |= request.put() == Some(Put::DataFile);
        if !throttles || is_calm.load(Ordering::Relaxed) {
            return Fate::Pass;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Fate::Instead(SLOW_DOWN)
    };
    let gateway = Gateway::before(bucket.port(), judge).await;
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, port, lake) = (Site::new(), free_port(), bucket.service.place("lake"));
    let config = configure(&site, &source, &lake, &bucket.service.section(gateway.port()), port);
    // Little memory: what there is to read is far more than what may be read ahead.
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("128 MiB", "32 MiB")).expect("the configuration");
    let producer = source.fill(RECORDS);
    let mut program = site.run("program", &config);
    let throttled = || (asked.load(Ordering::Relaxed) > 0).then_some(());
    program.until("the first data file", PATIENCE, throttled).await;
    let received = || metric(port, "alluvium_records_received_total");
    let (began, mut before) = (Instant::now(), 0.0);
    // What was asked before anybody looked at the clock does not count.
    let asked_before = asked.load(Ordering::Relaxed);
    while before < received() {
        before = received();
        assert!(began.elapsed() < PATIENCE, "it goes on reading");
        sleep(LOOKS).await;
    }
    let asked = asked.load(Ordering::Relaxed) - asked_before;
    let (took, records) = (began.elapsed().as_secs_f64(), received());
    println!("asked {asked} times in {took:.1} s; {records} records were read");
    assert!(records < RECORDS as f64, "all has been read, and nothing can be written");
    assert!(f64::from(asked) < 30.0 * took, "asked {asked} times in {took} s");
    let (held, most) = (metric(port, "alluvium_buffer_bytes"), metric(port, "alluvium_buffer_limit_bytes"));
    assert!(held <= most && most == f64::from(32 << 20), "{held} of {most}");
    calm.store(true, Ordering::Relaxed);
    until_all_published(&mut program, port, &source.topic, &producer.model).await;
    program.stop().await;
    the_bucket_holds(&bucket, &lake, &site, &producer.model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k13_a_table_whose_dead_letters_cannot_be_written_waits_for_them_and_goes_on_when_they_can() {
    let bucket = Bucket::of(Service::S3).await;
    let (full, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (is_full, count) = (Arc::clone(&full), Arc::clone(&refused));
    let judge = move |request: &Request| {
        let writes = ["PUT", "POST"].contains(&request.method.as_str());
        if !writes || !request.target.contains("/p_dead_letters/") || !is_full.load(Ordering::Relaxed) {
            return Fate::Pass;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Fate::Instead(SLOW_DOWN)
    };
    let gateway = Gateway::before(bucket.port(), judge).await;
    let broker = Broker::shared();
    let topic = broker.topic("held-letters", 1, &[]).await;
    let (site, port, lake) = (Site::new(), free_port(), bucket.service.place("lake"));
    std::fs::write(
        site.path("id.avsc"),
        r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}"#,
    )
    .expect("a schema");
    let config = site.configure(
        "p",
        &format!(
            "lake = \"{lake}\"\nstate = \"{{dir}}/state\"\nmemory = \"64 MiB\"\n{}\n{}\
             [pipelines.p.kafka]\nbrokers = \"{}\"\n[pipelines.p.commit]\ninterval = \"100 ms\"\n\
             [pipelines.p.tables.ids]\ntopic = \"{topic}\"\nschema = \"{{dir}}/id.avsc\"\n",
            http(port),
            bucket.service.section(gateway.port()),
            broker.bootstrap()
        ),
    );
    // Of the second hundred all can be read.
    let is_bad = |id: u64| id % 10 == 3 && !(100..200).contains(&id);
    let value = |id: u64| {
        if is_bad(id) {
            "no JSON".to_owned()
        } else {
            format!("{{\"id\":{id}}}")
        }
    };
    let produce = |ids: Range<u64>| broker.produce(&topic, 0, ids.map(|id| (id.to_string(), Some(value(id)))));
    let at = || status(port)?["pipelines"]["p"]["tables"]["ids"]["positions"][format!("{topic}/0")].as_u64();
    let is_at = |offset: u64| (at() == Some(offset)).then_some(());

    let mut program = site.run("program", &config);
    produce(0..100);
    program.until("rows and letters", PATIENCE, || is_at(99)).await;
    full.store(true, Ordering::Relaxed);
    produce(100..200);
    program
        .until("rows without a letter, which wait for none", PATIENCE, || is_at(199))
        .await;
    produce(200..300);
    let tried = || (refused.load(Ordering::Relaxed) > 4).then_some(());
    program.until("letters that are refused, and tried again", PATIENCE, tried).await;
    // The client of the store gives up within seconds.
    let says = || {
        get(port, "/readyz")
            .filter(|(code, text)| *code == 503 && text.contains("p_dead_letters"))
            .map(drop)
    };
    program.until("/readyz to say what cannot be written", PATIENCE, says).await;
    // The rows before the first letter may be there: the records come in portions.
    let there = at();
    assert!(
        there.is_some_and(|at| (199..203).contains(&at)),
        "{there:?}: their rows are not there before them"
    );
    full.store(false, Ordering::Relaxed);
    program.until("the rows behind the letters", PATIENCE, || is_at(299)).await;
    program.stop().await;
    bucket.copy(&lake, &site.path("lake")).await;
    let rows = read(&site, "SELECT COUNT(*), COUNT(DISTINCT id), MAX(id) FROM ids", &["ids"]).await;
    assert_eq!(rows, [["280", "280", "299"]]);
    let sql = "SELECT COUNT(*), COUNT(DISTINCT id), MAX(position) FROM p_dead_letters";
    assert_eq!(read(&site, sql, &["p_dead_letters"]).await, [["20", "20", "293"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn k16_a_member_whose_commit_takes_longer_than_it_may_go_without_polling_writes_each_record_once() {
    /// As long as a member may not ask for records, and then longer.
    const POLLS: Duration = Duration::from_secs(3);
    const LONGER: Duration = Duration::from_secs(4);
    let bucket = Bucket::of(Service::S3).await;
    let (gate, holds) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let held = Arc::new(AtomicBool::new(false));
    let (others, next, is_held) = (Arc::clone(&gate), Arc::clone(&holds), Arc::clone(&held));
    let judge = move |request: &Request| {
        let is_commit = request.put() == Some(Put::Commit) && request.target.contains("/audit/");
        if !is_commit || !next.swap(false, Ordering::Relaxed) {
            return Fate::Pass;
        }
        is_held.store(true, Ordering::Relaxed);
        Fate::Together(Arc::clone(&others))
    };
    let gateway = Gateway::before(bucket.port(), judge).await;
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, port, lake) = (Site::new(), free_port(), bucket.service.place("lake"));
    let polls = POLLS.as_millis();
    let config = Shop {
        top: &format!("{}\n{}", http(port), bucket.service.section(gateway.port())),
        kafka: &format!(
            "group = \"{}\"\noptions = {{ \"session.timeout.ms\" = \"{polls}\", \"heartbeat.interval.ms\" = \"300\", \
             \"max.poll.interval.ms\" = \"{polls}\" }}",
            source.topic
        ),
        commit: "interval = \"200 ms\"",
        lake: &lake,
        ..Shop::on(&source)
    }
    .configure(&site);
    let mut producer = source.fill(1_000);
    let mut program = site.run("program", &config);
    until_all_published(&mut program, port, &source.topic, &producer.model).await;
    holds.store(true, Ordering::Relaxed);
    let mut changes = Changes::new(44, LIVE_MAX);
    changes.by_ref().take(1_000).for_each(|change| producer.send(&change));
    producer.flush();
    let is_held = || held.load(Ordering::Relaxed).then_some(());
    program.until("a commit that is held", PATIENCE, is_held).await;
    changes.take(1_000).for_each(|change| producer.send(&change));
    producer.flush();
    sleep(LONGER).await;
    gate.wait().await;
    until_all_published(&mut program, port, &source.topic, &producer.model).await;
    program.stop().await;
    the_bucket_holds(&bucket, &lake, &site, &producer.model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_a_program_that_may_no_longer_write_to_the_bucket_says_so_and_goes_on_when_it_may() {
    let bucket = Bucket::of(Service::S3).await;
    let refuses: Arc<Mutex<Option<Wrong>>> = Arc::default();
    let refused = Arc::clone(&refuses);
    let judge = move |_: &Request| {
        refused
            .lock()
            .expect("no test panics with the lock")
            .map_or(Fate::Pass, Fate::Instead)
    };
    let gateway = Gateway::before(bucket.port(), judge).await;
    let let_in = |wrong: Option<Wrong>| *refuses.lock().expect("no test panics with the lock") = wrong;
    // A token that has run out is no 401 to S3, and no 403.
    for (status, code) in [(403, "AccessDenied"), (400, "ExpiredToken")] {
        let lake = bucket.service.place(&status.to_string());
        let source = Source::new(Broker::shared(), PARTITIONS).await;
        let (site, port) = (Site::new(), free_port());
        let config = configure(&site, &source, &lake, &bucket.service.section(gateway.port()), port);
        let mut producer = source.fill(1_000);
        let mut program = site.run("program", &config);
        until_all_published(&mut program, port, &source.topic, &producer.model).await;
        let_in(Some(Wrong::Answer(status, code)));
        Changes::new(44, LIVE_MAX).take(1_000).for_each(|change| producer.send(&change));
        producer.flush();
        let not_ready = || get(port, "/readyz").is_some_and(|(code, text)| code == 503 && text.contains(&lake));
        let began = Instant::now();
        while !not_ready() {
            assert!(began.elapsed() < PATIENCE, "/readyz does not say so:\n{}", program.log_tail());
            // Its tries are over within a second or two. Where nobody had the time to look, the next start says it again.
            if let Some(exit) = program.poll() {
                assert_eq!(exit.status.code(), Some(77), "{code}: {}", program.log_tail());
                program = site.run("program", &config);
            }
            sleep(Duration::from_millis(10)).await;
        }
        let exit = program.wait(PATIENCE).await;
        assert_eq!(exit.status.code(), Some(77), "{code}: {}", program.log_tail());
        let log = program.log_tail();
        assert!(log.contains(&lake) && log.contains(code) && log.contains("credentials"), "{log}");
        let_in(None);
        site.catch_up(&config).await;
        the_bucket_holds(&bucket, &lake, &site, &producer.model).await;
        let letters = bucket.objects(&format!("{lake}/shop_dead_letters")).await;
        assert!(
            letters.iter().all(|object| object.location.as_ref().contains("_delta_log/")),
            "a record that could not be written is no dead letter: {letters:?}"
        );
    }
}

/// Both read all partitions: that is an operator's mistake, and must not harm the tables.
#[tokio::test(flavor = "multi_thread")]
async fn c5_of_two_instances_that_write_to_one_bucket_one_makes_each_version() {
    let bucket = Bucket::for_races(Service::S3).await;
    // This server cannot delete, and says so in a way that the client tries again and again: the program's probes stay.
    let gateway = Gateway::before(bucket.port(), |request| match request.target.ends_with("?delete") {
        true => Fate::Instead(DENIED),
        false => Fate::Pass,
    })
    .await;
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    let (site, lake, ports) = (Site::new(), bucket.service.place("lake"), [free_port(), free_port()]);
    let stream = Stream::start(&source, 2_000);
    let start = |name: &str, port: u16| {
        let top = format!("{}\n{}", http(port), bucket.service.section(gateway.port()));
        let config = Shop {
            name,
            top: &top,
            commit: "interval = \"200 ms\"",
            lake: &lake,
            ..Shop::on(&source)
        }
        .configure(&site);
        (site.run(name, &config), config)
    };
    let ((mut one, config), (mut other, _)) = (start("one", ports[0]), start("other", ports[1]));
    let lost = || ports.iter().map(|port| metric(*port, "alluvium_fenced_total")).sum::<f64>();
    one.until("three versions that both wanted", PATIENCE, || (lost() >= 3.0).then_some(()))
        .await;
    let model = stream.finish().await;
    one.stop().await;
    other.stop().await;
    site.catch_up(&config).await;
    the_bucket_holds(&bucket, &lake, &site, &model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c18_a_bucket_that_puts_over_what_is_there_is_refused_before_anything_is_written() {
    let bucket = Bucket::of(Service::S3).await;
    let puts: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let seen = Arc::clone(&puts);
    let judge = move |request: &Request| {
        if request.method == "PUT" {
            let mut seen = seen.lock().expect("no test panics with the lock");
            seen.insert(request.target.clone());
        }
        Fate::Unconditional
    };
    let gateway = Gateway::before(bucket.port(), judge).await;
    let source = Source::new(Broker::shared(), PARTITIONS).await;
    source.fill(100);
    let (site, lake) = (Site::new(), bucket.service.place("lake"));
    let config = configure(&site, &source, &lake, &bucket.service.section(gateway.port()), free_port());
    for command in ["check", "run"] {
        let mut program = site.start(command, &[command, "--config", config.to_str().expect("a path in UTF-8")]);
        let exit = program.wait(Duration::from_secs(60)).await;
        let said = program.log_text();
        assert_eq!(exit.status.code(), Some(78), "{command}: {said}");
        for part in [
            format!("the store of {lake}/"),
            "ignores the condition of a put".to_owned(),
            "use a store with conditional puts".to_owned(),
        ] {
            assert!(said.contains(&part), "{command} should say {part}: {said}");
        }
        let left = bucket.objects(&bucket.service.place("")).await;
        assert!(left.is_empty(), "{command} leaves nothing: {left:?}");
    }
    let puts = puts.lock().expect("no test panics with the lock");
    assert!(
        !puts.is_empty() && puts.iter().all(|target| target.contains("/_alluvium_probe_")),
        "nothing but probes: {puts:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_asks_the_store_and_says_what_is_wrong_with_it() {
    let source = Source::new(Broker::shared(), 1).await;
    for service in [Service::S3, Service::Azure] {
        let (bucket, site) = (Bucket::of(service).await, Site::new());
        let storage = service.section(bucket.port());
        let check = async |lake: &str, storage: &str| {
            let config = configure(&site, &source, lake, storage, free_port());
            let mut program = site.start("check", &["check", "--config", config.to_str().expect("a path in UTF-8")]);
            let exit = program.wait(Duration::from_secs(60)).await;
            (exit.status.code(), program.log_text())
        };
        let lake = service.place("lake");
        let (code, said) = check(&lake, &storage).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("{lake}/orders: will be created")), "{said}");
        let left = bucket.objects(&service.place("")).await;
        assert!(left.is_empty(), "a probe is taken away: {left:?}");

        let nowhere = service.elsewhere("nowhere", "lake");
        let (code, said) = check(&nowhere, &storage).await;
        assert_eq!(code, Some(78), "{said}");
        assert!(
            said.contains(&format!("{nowhere}/orders: its bucket or container does not exist")),
            "{said}"
        );

        // moto takes any key.
        if service == Service::Azure {
            std::fs::write(site.path("other"), "b3RoZXI=").expect("a secret");
            let (code, said) = check(&lake, &storage.replace("/secret", "/other")).await;
            assert_eq!(code, Some(77), "{said}");
            for part in [format!("write to {lake}/orders"), "fix the credentials in `[storage]`".to_owned()] {
                assert!(said.contains(&part), "should say {part}: {said}");
            }
        }
    }
}
