//! The Kafka source against a real broker: nothing is lost, doubled or passed over in silence, whatever happens to the topic.

mod brokers;
mod catch_up;
mod cluster;
mod conformance;
mod debezium;
mod groups;
mod logins;
mod losses;
mod readiness;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alluvium::batch::{Flow, Gap};
use alluvium::budget::Budget;
use alluvium::config::Kafka;
use alluvium::error::{Error, Kind, Result};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::reject::Reject;
use alluvium::reject::delivered::Delivered;
use alluvium::sources::decode::{Decoded, Decoder, Message, Terms};
use alluvium::sources::kafka::{KafkaClient, KafkaSource, Policy, Route, Sample, Settings, options};
use alluvium::sources::{Resume, Source};
use alluvium::status::Board;
use alluvium::table::{Lanes, TableId};
use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use rdkafka::producer::Producer;

use crate::support::kafka::{Broker, Door, send};

const PATIENCE: Duration = Duration::from_secs(120);
const MEMORY: usize = 64 << 20;

/// Decodes text to (partition, offset, value): the coordinates tell what came and in which order. `bad…` cannot be read.
struct Text(SchemaRef, Terms);

impl Text {
    fn make(terms: Terms) -> Result<Box<dyn Decoder>> {
        let column = |name: &str, kind| Field::new(name, kind, false);
        let columns = vec![
            column("partition", DataType::Int32),
            column("offset", DataType::Int64),
            column("value", DataType::Utf8),
        ];
        Ok(Box::new(Text(Arc::new(Schema::new(columns)), terms)))
    }
}

impl Decoder for Text {
    fn schema(&self) -> &SchemaRef {
        &self.0
    }

    fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded> {
        let (mut rows, mut rejects, mut tombstones) = (Vec::new(), Vec::new(), 0);
        for (index, message) in messages.iter().enumerate() {
            match message.value.map(|value| std::str::from_utf8(value).expect("the tests write text")) {
                None => tombstones += 1,
                Some(value) if value.starts_with("bad") || message.bytes() > self.1.record_bytes_max => {
                    rejects.push(Reject {
                        index,
                        stage: "decode",
                        code: "malformed",
                        message: "it is bad".to_owned(),
                    });
                }
                Some(value) => rows.push((index as u32, message.partition, message.offset, value)),
            }
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3))),
        ];
        let ops = vec![alluvium::batch::Op::Put; rows.len()];
        let origins = rows.iter().map(|row| row.0).collect();
        let rows = RecordBatch::try_new(Arc::clone(&self.0), columns).expect("the columns fit");
        Ok(Decoded {
            rows,
            ops,
            origins,
            unchanged: None,
            rejects,
            tombstones,
            filtered: 0,
            unknown_members: 0,
        })
    }
}

/// Tables as a pipeline would keep them: rows and marks, published together.
#[derive(Default)]
struct Lake {
    rows: BTreeMap<TableId, Vec<(i32, i64, String)>>,
    marks: Resume,
    gaps: Vec<Gap>,
    /// What was said of where tables begin.
    begun: Vec<(TableId, Checkpoint)>,
    /// Of each letter the id.
    dead: Vec<String>,
}

impl Lake {
    fn mark(&self, table: &str) -> Checkpoint {
        self.marks.get(&TableId::new(table)).cloned().unwrap_or_default()
    }

    /// The values of a table, by partition, in the order in which they were written.
    fn values(&self, table: &str, partition: i32) -> Vec<&str> {
        let rows = self.rows.get(&TableId::new(table)).map(Vec::as_slice).unwrap_or_default();
        rows.iter().filter(|row| row.0 == partition).map(|row| row.2.as_str()).collect()
    }

    fn count(&self, table: &str) -> usize {
        self.rows.get(&TableId::new(table)).map_or(0, Vec::len)
    }
}

/// A pipeline's Kafka: its client, what it feeds, and how.
struct Pipe {
    client: Arc<KafkaClient>,
    routes: Vec<Route>,
    settings: Settings,
    budget: Budget,
    board: Board,
}

impl Pipe {
    fn new(bootstrap: &str, more: &str, tables: &[(&str, &str)]) -> Self {
        Self::try_new(bootstrap, more, tables).expect("the client is made")
    }

    fn try_new(bootstrap: &str, more: &str, tables: &[(&str, &str)]) -> Result<Self> {
        let kafka: Kafka = toml::from_str(&format!("brokers = \"{bootstrap}\"\ndiscovery = \"1 s\"\n{more}")).expect("the test's own text");
        let properties = options::properties(&kafka, "test", MEMORY, 2)?;
        let client = KafkaClient::new("test", &properties, kafka.group.is_some(), kafka.discovery.0)?;
        let decoder: alluvium::sources::kafka::MakeDecoder = Arc::new(Text::make);
        let lanes = |topics: &str| match topics.strip_prefix('^') {
            Some(pattern) => Lanes::TopicPattern(format!("^(?:{pattern})$").parse().expect("a pattern")),
            None => Lanes::Topics(topics.split(',').map(str::to_owned).collect()),
        };
        let route = |(table, topics): &(&str, &str)| Route {
            table: TableId::new(*table),
            lanes: lanes(topics),
            decoder: Arc::clone(&decoder),
        };
        let settings = Settings {
            pipeline: "test".to_owned(),
            policy: Policy {
                start: kafka.start,
                on_gap: kafka.on_gap,
            },
            until_caught_up: true,
            dead_letters: TableId::new("dead"),
            delivered: Arc::default(),
            stop_after: 1000,
            threads: 2,
        };
        let routes = tables.iter().map(route).collect();
        Ok(Self {
            client,
            routes,
            settings,
            budget: Budget::new(MEMORY),
            board: Board::default(),
        })
    }

    async fn open(&self, lake: &Lake) -> Result<KafkaSource> {
        let mut delivered = Delivered::default();
        lake.dead.iter().for_each(|id| delivered.insert(id));
        let settings = Settings {
            delivered: Arc::new(delivered),
            ..self.settings.clone()
        };
        KafkaSource::open(&self.client, &self.routes, &lake.marks, &settings, &self.budget, &self.board).await
    }

    /// Opens a flow as a pipeline does: what may pass is tried again.
    async fn open_at_last(&self, lake: &Lake) -> KafkaSource {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            match self.open(lake).await {
                Err(error) if error.kind == Kind::Transient && std::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                opened => return opened.expect("the flow opens"),
            }
        }
    }

    /// Opens a flow and reads it to its end.
    async fn catch_up(&self, lake: &mut Lake) -> Result<()> {
        let mut source = self.open(lake).await?;
        let ended = self.read(&mut source, lake, |_| false).await?;
        assert_eq!(ended, None, "it was to end by itself");
        Ok(())
    }

    /// Reads until the flow ends, is to be opened again (then why), or `enough` holds after a mark. Checks what a source promises.
    async fn read(&self, source: &mut KafkaSource, lake: &mut Lake, enough: impl Fn(&Lake) -> bool) -> Result<Option<String>> {
        let mut staged: BTreeMap<TableId, Vec<(i32, i64, String)>> = BTreeMap::new();
        let mut dead = Vec::new();
        let mut last = Checkpoint::default();
        loop {
            let flow = tokio::time::timeout(PATIENCE, source.next())
                .await
                .unwrap_or_else(|_| panic!("nothing came; so far: {:?}", lake.marks))?;
            match flow {
                None => return Ok(None),
                Some(Flow::Reopen(why)) => return Ok(Some(why)),
                Some(Flow::Gap(gap)) => lake.gaps.push(gap),
                Some(Flow::Begin { table, mark }) => {
                    assert!(last.is_empty() && staged.is_empty(), "a table begins before anything else");
                    let holds = lake.marks.entry(table.clone()).or_default();
                    *holds = std::mem::take(holds).join(&mark);
                    lake.begun.push((table, mark));
                }
                Some(Flow::Copied { table, .. }) => panic!("a topic copies nothing: {table}"),
                Some(Flow::Rows(batch)) if batch.table == self.settings.dead_letters => {
                    let ids = batch.rows.column_by_name("id").expect("a column").as_string::<i32>();
                    dead.extend(ids.iter().flatten().map(str::to_owned));
                }
                Some(Flow::Rows(batch)) => {
                    assert_eq!(batch.ops.len(), batch.rows.num_rows());
                    assert!(batch.permit.is_some(), "rows carry their memory");
                    staged.entry(batch.table.clone()).or_default().extend(read_rows(&batch.rows));
                }
                Some(Flow::Mark(mark)) => {
                    assert!(mark.covers(&last), "a mark goes back: {last} to {mark}");
                    source.confirm().expect("a topic may be made anew").confirm().await?;
                    last = mark.clone();
                    for route in &self.routes {
                        let holds = lake.marks.entry(route.table.clone()).or_default();
                        for (partition, offset, value) in staged.remove(&route.table).unwrap_or_default() {
                            let at = |checkpoint: &Checkpoint| {
                                let named =
                                    |(lane, _): &(&Lane, Position)| lane.topic_partition().is_some_and(|(_, number)| number == partition);
                                checkpoint.iter().filter(named).map(|(_, at)| at.0).max()
                            };
                            assert!(
                                at(&mark).is_some_and(|at| offset as u64 <= at),
                                "{value} at {offset} is not in {mark}"
                            );
                            lake.rows.entry(route.table.clone()).or_default().push((partition, offset, value));
                        }
                        *holds = std::mem::take(holds).join(&mark.only(|lane| route.lanes.takes(lane)));
                    }
                    lake.dead.append(&mut dead);
                    if enough(lake) {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

fn read_rows(rows: &RecordBatch) -> Vec<(i32, i64, String)> {
    let (partition, offset) = (
        rows.column(0).as_primitive::<Int32Type>(),
        rows.column(1).as_primitive::<Int64Type>(),
    );
    let value = rows.column(2).as_string::<i32>();
    (0..rows.num_rows())
        .map(|row| (partition.value(row), offset.value(row), value.value(row).to_owned()))
        .collect()
}

fn numbered(from: usize, upto: usize) -> impl Iterator<Item = (String, Option<String>)> {
    (from..upto).map(|number| (format!("k{number}"), Some(format!("v{number}"))))
}

fn values(from: usize, upto: usize) -> Vec<String> {
    (from..upto).map(|number| format!("v{number}")).collect()
}

fn failed<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it was to fail"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_comes_once_and_in_order_however_often_the_flow_is_dropped() {
    let broker = Broker::shared();
    let topic = broker.topic("resume", 3, &[]).await;
    for partition in 0..3 {
        broker.produce(&topic, partition, numbered(0, 20_000));
    }
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("all", &topic)]);
    let mut lake = Lake::default();
    for stop in (0..60_000).step_by(7_000) {
        let mut source = pipe.open(&lake).await.unwrap();
        pipe.read(&mut source, &mut lake, |lake| lake.count("all") > stop).await.unwrap();
    }
    pipe.catch_up(&mut lake).await.unwrap();
    for partition in 0..3 {
        assert_eq!(lake.values("all", partition), values(0, 20_000), "partition {partition}");
    }
    let lane = lake.mark("all").iter().next().map(|(lane, at)| (lane.clone(), at)).unwrap();
    assert_eq!(lane.1, Position(19_999));
    assert!(
        lane.0.incarnation().is_some_and(|id| id.len() == 22),
        "the topic's id is part of {}",
        lane.0.as_str()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mock_cluster_of_the_client_is_read_as_well() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("mock", 2, 1).unwrap();
    let mut config = rdkafka::ClientConfig::new();
    let producer = config.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    (0..1_000).for_each(|number| {
        send::<rdkafka::producer::DefaultProducerContext>(&producer, "mock", number % 2, "k", Some(&format!("v{}", number / 2)))
    });
    producer.flush(PATIENCE).unwrap();
    let pipe = Pipe::new(&cluster.bootstrap_servers(), "", &[("a", "mock")]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.values("a", 0), values(0, 500));
    assert_eq!(lake.values("a", 1), values(0, 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_shows_the_newest_records_or_all_and_disturbs_nothing() {
    let broker = Broker::shared();
    let topic = broker.topic("sample", 2, &[]).await;
    broker.produce(&topic, 0, numbered(0, 1_000));
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let sample = async |sample: Sample, enough: usize| {
        let look = move |offsets: &mut Vec<i64>, messages: &[Message<'_>]| {
            offsets.extend(messages.iter().map(|message| message.offset));
            Ok(offsets.len() >= enough)
        };
        let (offsets, waiting) = pipe.client.sample(pipe.routes[0].lanes.clone(), sample, look).await.unwrap();
        assert!(waiting.is_empty(), "{waiting:?}");
        offsets
    };
    assert_eq!(sample(Sample::Newest, 1_001).await, (900..1_000).collect::<Vec<_>>());
    assert_eq!(sample(Sample::All, 1).await[0], 0);
    assert_eq!(sample(Sample::All, 1_001).await, (0..1_000).collect::<Vec<_>>());
    // What said nothing will say nothing.
    broker.produce(&topic, 1, numbered(0, 1));
    assert_eq!(sample(Sample::All, 1_001).await, [0]);
    assert_eq!(sample(Sample::Newest, 1_001).await, [0; 0]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.values("a", 0), values(0, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_lag_apart_are_fed_from_one_read_each_with_what_it_lacks() {
    let broker = Broker::shared();
    let topic = broker.topic("apart", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 1_000));
    let mut lake = Lake::default();
    Pipe::new(&broker.bootstrap(), "", &[("a", &topic)])
        .catch_up(&mut lake)
        .await
        .unwrap();
    broker.produce(&topic, 0, numbered(1_000, 1_500));
    let both = Pipe::new(&broker.bootstrap(), "", &[("a", &topic), ("b", &topic)]);
    both.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.values("a", 0), values(0, 1_500));
    assert_eq!(lake.values("b", 0), values(0, 1_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_gap_stops_and_when_it_is_allowed_it_is_on_record() {
    let broker = Broker::shared();
    let topic = broker.topic("gap", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 100));
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    broker.produce(&topic, 0, numbered(100, 300));
    broker.delete_records(&topic, 0, 250).await;
    let error = failed(pipe.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Data, "retention_gap"));
    assert!(error.what.contains("150 offsets"), "{}", error.what);
    assert_eq!(lake.count("a"), 100, "nothing was passed over");

    let lenient = Pipe::new(&broker.bootstrap(), "on_gap = \"earliest\"", &[("a", &topic)]);
    lenient.catch_up(&mut lake).await.unwrap();
    let lane = lake.mark("a").iter().next().map(|(lane, _)| lane.clone()).unwrap();
    assert_eq!(
        lake.gaps,
        [Gap {
            table: TableId::new("a"),
            lane,
            missing: 100..250
        }]
    );
    assert_eq!(lake.values("a", 0), [values(0, 100), values(250, 300)].concat());

    // Nothing is left behind the gap: it is on record all the same, and the next start finds nothing amiss.
    broker.produce(&topic, 0, numbered(300, 340));
    broker.delete_records(&topic, 0, 340).await;
    lenient.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.gaps[1].missing, 300..340);
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!((lake.gaps.len(), lake.count("a")), (2, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_what_retention_takes_of_a_partition_that_was_empty_is_missed() {
    let broker = Broker::shared();
    let topic = broker.topic("emptied", 2, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    broker.produce(&topic, 1, numbered(0, 100));
    broker.delete_records(&topic, 1, 60).await;
    let error = failed(pipe.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Data, "retention_gap"));
    assert!(error.what.contains("60 offsets"), "{}", error.what);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_table_begins_is_known_from_then_on_whatever_ends_before_its_first_row() {
    let broker = Broker::shared();
    let topic = broker.topic("latest", 2, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let mut pipe = Pipe::new(&broker.bootstrap(), "start = \"latest\"", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.begun.len(), 1, "{:?}", lake.begun);
    broker.produce(&topic, 0, numbered(10, 20));
    broker.produce(&topic, 1, numbered(0, 5));
    // Another process, which remembers nothing.
    pipe = Pipe::new(&broker.bootstrap(), "start = \"latest\"", &[("a", &topic)]);
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.values("a", 0), values(10, 20));
    assert_eq!(lake.values("a", 1), values(0, 5));
    assert_eq!(lake.begun.len(), 1, "it begins once: {:?}", lake.begun);

    // With the first record that there is, where there was none.
    let topic = broker.topic("latest-empty", 2, &[]).await;
    let pipe = || Pipe::new(&broker.bootstrap(), "start = \"latest\"", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe().catch_up(&mut lake).await.unwrap();
    broker.produce(&topic, 0, numbered(0, 10));
    pipe().catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.values("a", 0), values(0, 10));
    assert_eq!(lake.begun.len(), 1, "{:?}", lake.begun);

    // With the first record that a pattern comes to, where there was no topic; alone and in a group.
    for (number, group) in ["", "group = \"latest-none\""].iter().enumerate() {
        let later = format!("{topic}-later-{number}");
        let more = format!("start = \"latest\"\n{group}");
        let pipe = || Pipe::new(&broker.bootstrap(), &more, &[("a", &format!("^{later}"))]);
        let mut lake = Lake::default();
        pipe().catch_up(&mut lake).await.unwrap();
        broker.create_topic(&later, 2, &[]).await;
        broker.produce(&later, 0, numbered(0, 10));
        let pipe = pipe();
        while lake.count("a") == 0 {
            let mut source = pipe.open(&lake).await.unwrap();
            pipe.read(&mut source, &mut lake, |_| false).await.unwrap(); // A group gives its lanes to the second flow.
        }
        assert_eq!(lake.values("a", 0), values(0, 10), "{group}");
        assert_eq!(lake.begun.len(), 1, "{:?}", lake.begun);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_topic_that_is_made_anew_stops_even_when_its_offsets_fit() {
    let broker = Broker::shared();
    let topic = broker.topic("anew", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    broker.delete_topic(&topic).await;
    broker.until_gone(&topic).await;
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 50));
    let error = failed(pipe.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Data, "topic_recreated"), "{error}");
    assert!(error.what.contains(&topic), "{}", error.what);
}

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_topic_that_is_made_anew_while_it_is_read_leaves_nothing_in_the_table_of_the_old_one() {
    made_anew_while_it_is_read(Broker::shared()).await;
}

async fn made_anew_while_it_is_read(broker: &Broker) {
    let topic = broker.topic("swapped", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 100));
    let mut pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    pipe.settings.until_caught_up = false;
    let mut lake = Lake::default();
    let mut source = pipe.open(&lake).await.unwrap();
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 100).await.unwrap();
    // The new one has the offsets at which the old one would go on. A broker that lags behind its controller would put them into the old one.
    broker.delete_topic(&topic).await;
    broker.until_gone(&topic).await;
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, 0, numbered(1_000, 1_500));
    // Whatever is seen of it first.
    match pipe.read(&mut source, &mut lake, |_| false).await {
        Ok(why) => assert!(why.is_some(), "the flow went on with {:?}", lake.rows),
        Err(error) => assert!(matches!(error.kind, Kind::Transient | Kind::Fenced), "{error}"),
    }
    drop(source);
    assert_eq!(lake.values("a", 0), values(0, 100));
    // Of several brokers, one may not have heard of it yet: what a flow reads of that one's topic is confirmed before it is published.
    let is_cluster = broker.bootstrap().contains(',');
    let deadline = std::time::Instant::now() + PATIENCE;
    let error = loop {
        match pipe.open(&lake).await {
            Err(error) if error.kind != Kind::Transient => break error,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            Ok(_) => assert!(
                is_cluster && std::time::Instant::now() < deadline,
                "the new topic is taken for the old one"
            ),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((error.kind, error.code), (Kind::Data, "topic_recreated"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_partitions_and_topics_that_are_added_are_found_and_read_from_their_beginning() {
    let broker = Broker::shared();
    let topic = broker.topic("added", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    // From the end: what was there is of no interest, but all that is added is.
    let mut pipe = Pipe::new(&broker.bootstrap(), "start = \"latest\"", &[("a", &format!("^{topic}.*"))]);
    pipe.settings.until_caught_up = false;
    let mut lake = Lake::default();
    let mut source = pipe.open(&lake).await.unwrap();
    broker.produce(&topic, 0, numbered(10, 20));
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 10).await.unwrap();

    broker.add_partitions(&topic, 2).await;
    broker.produce(&topic, 1, numbered(0, 5));
    let why = pipe
        .read(&mut source, &mut lake, |_| false)
        .await
        .unwrap()
        .expect("the flow is opened again");
    assert!(why.contains(&topic), "{why}");
    drop(source);
    let mut source = pipe.open(&lake).await.unwrap();
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 15).await.unwrap();

    let second = format!("{topic}-second");
    broker.create_topic(&second, 1, &[]).await;
    broker.produce(&second, 0, numbered(20, 23));
    pipe.read(&mut source, &mut lake, |_| false)
        .await
        .unwrap()
        .expect("the flow is opened again");
    drop(source);
    let mut source = pipe.open(&lake).await.unwrap();
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 18).await.unwrap();
    assert_eq!(lake.values("a", 0), [values(10, 20), values(20, 23)].concat());
    assert_eq!(lake.values("a", 1), values(0, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn k8_aborted_and_compacted_records_are_no_rows_and_the_mark_passes_them() {
    let broker = Broker::shared();
    let topic = broker.topic("transactions", 1, &[]).await;
    let producer = broker.producer(&[("transactional.id", &topic)]);
    producer.init_transactions(PATIENCE).unwrap();
    for (round, commit) in [true, false, true, false].into_iter().enumerate() {
        producer.begin_transaction().unwrap();
        for number in round * 10..round * 10 + 10 {
            send(&producer, &topic, 0, "k", Some(&format!("v{number}")));
        }
        producer.flush(PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap()
        } else {
            producer.abort_transaction(PATIENCE).unwrap()
        }
    }
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.values("a", 0), [values(0, 10), values(20, 30)].concat());
    // 40 records and 4 markers: the last of them an abort, behind which there is no record at all.
    assert_eq!(lake.mark("a").iter().next().unwrap().1, Position(43));
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.count("a"), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn k8_a_compacted_topic_is_read_over_its_holes() {
    let broker = Broker::shared();
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "1"),
    ];
    let topic = broker.topic("compacted", 1, &config).await;
    let padding = "x".repeat(1_000);
    let round = |round: usize| (0..100).map(move |key| (format!("k{key}"), Some(format!("{round}-{key}-"))));
    for number in 0..30 {
        broker.produce(
            &topic,
            0,
            round(number).map(|(key, value)| (key, value.map(|value| value + &padding))),
        );
    }
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    // The cleaner works on closed segments, in its own time: read until it has.
    let deadline = std::time::Instant::now() + PATIENCE;
    let lake = loop {
        let mut lake = Lake::default();
        pipe.catch_up(&mut lake).await.unwrap();
        assert_eq!(
            lake.mark("a").iter().next().unwrap().1,
            Position(2_999),
            "the mark is at the end whatever is in between"
        );
        if lake.count("a") < 2_500 {
            break lake;
        }
        assert!(std::time::Instant::now() < deadline, "the broker does not compact");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let last: BTreeMap<_, _> = lake.rows[&TableId::new("a")]
        .iter()
        .map(|row| (row.2.split('-').nth(1).unwrap().to_owned(), &row.2))
        .collect();
    assert_eq!(last.len(), 100, "every key has kept a value");
    assert!(last.values().all(|value| value.starts_with("29-")), "and it is the last one");
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_every_record_is_a_row_a_dead_letter_or_a_tombstone() {
    let broker = Broker::shared();
    let topic = broker.topic("rejects", 1, &[]).await;
    let record = |number: usize| match number % 10 {
        3 => (format!("k{number}"), Some(format!("bad{number}"))),
        7 => (format!("k{number}"), None),
        _ => (format!("k{number}"), Some(format!("v{number}"))),
    };
    broker.produce(&topic, 0, (0..10_000).map(record));
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic), ("b", &topic)]);
    let mut lake = Lake::default();
    // In two parts, the second after a crash that lost what was read behind the letters.
    let mut source = pipe.open(&lake).await.unwrap();
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") > 2_000).await.unwrap();
    drop(source);
    lake.rows.remove(&TableId::new("a"));
    lake.marks.remove(&TableId::new("a"));
    pipe.catch_up(&mut lake).await.unwrap();
    for table in ["a", "b"] {
        assert_eq!(lake.count(table), 8_000);
    }
    let letters: BTreeSet<_> = lake.dead.iter().collect();
    assert_eq!(
        (lake.dead.len(), letters.len()),
        (2 * 1_000, 2 * 1_000),
        "one for each table, and the same at every reading"
    );
    let (lane, offset) = lake.dead[0].rsplit_once('/').expect("an id has an offset");
    let lane = lane.strip_prefix("a/").expect("an id has a table");
    assert_eq!((Lane::new(lane).name(), offset), (format!("{topic}/0").as_str(), "3"));
    assert!(
        Lane::new(lane).incarnation().is_some(),
        "{lane}: another topic of that name has other letters"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn k12_a_fault_that_is_not_one_records_stops_and_passes_none_of_them_over() {
    let broker = Broker::shared();
    let topic = broker.topic("breaker", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 100));
    broker.produce(&topic, 0, (0..5_000).map(|number| (format!("k{number}"), Some("bad"))));
    let mut pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    let error = failed(pipe.catch_up(&mut lake).await);
    assert_eq!((error.kind, error.code), (Kind::Data, "too_many_rejects"));
    assert!(error.what.contains("`a`") && error.what.contains("stop_after"), "{}", error.what);
    assert!(
        lake.dead.is_empty(),
        "{} records were drained into the dead letters",
        lake.dead.len()
    );
    assert!(lake.mark("a").iter().all(|(_, at)| at.0 < 100), "{}", lake.mark("a"));

    pipe.settings.stop_after = 1_000_000;
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!((lake.count("a"), lake.dead.len()), (100, 5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn k17_memory_for_a_part_of_what_was_fetched_is_enough() {
    let broker = Broker::shared();
    let topic = broker.topic("tight", 2, &[]).await;
    let value = |number: usize| (format!("k{number}"), Some(format!("v{number}{}", "-".repeat(1_000))));
    for partition in 0..2 {
        broker.produce(&topic, partition, (0..10_000).map(value));
    }
    let mut pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    pipe.budget = Budget::new(4 << 20);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.count("a"), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn k14_a_decoder_is_told_what_is_too_large() {
    let broker = Broker::shared();
    let large = MEMORY / 8 + 1;
    let topic = broker.topic("large", 1, &[("max.message.bytes", "20000000")]).await;
    broker.produce(&topic, 0, numbered(0, 1));
    let producer = broker.producer(&[("message.max.bytes", "20000000")]);
    send(&producer, &topic, 0, "k", Some(&"v".repeat(large)));
    producer.flush(PATIENCE).unwrap();
    broker.produce(&topic, 0, numbered(1, 2));
    let pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    let mut lake = Lake::default();
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.values("a", 0), values(0, 2));
    let [id] = &lake.dead[..] else { panic!("{:?}", lake.dead) };
    assert!(id.starts_with(&format!("a/{topic}/0@")) && id.ends_with("/1"), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_a_broker_that_is_gone_for_a_while_is_waited_for() {
    let mut broker = Broker::start("");
    let topic = broker.topic("restart", 2, &[]).await;
    broker.produce(&topic, 0, numbered(0, 1_000));
    let mut pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    pipe.settings.until_caught_up = false;
    let mut lake = Lake::default();
    let mut source = pipe.open(&lake).await.unwrap();
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 1_000).await.unwrap();
    broker.kill();
    let told = async {
        while pipe.board.read().get("test").is_none_or(|status| status.reason.is_none()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let quiet = tokio::time::timeout(PATIENCE, async {
        tokio::select! { () = told => {}, flow = source.next() => panic!("the flow ended by {flow:?}") }
    });
    quiet.await.expect("the status says that the brokers are gone");
    let reason = pipe.board.read()["test"].reason.clone().unwrap();
    assert!(reason.contains(&broker.bootstrap()), "{reason}");

    broker.resume();
    broker.produce(&topic, 1, numbered(0, 500));
    pipe.read(&mut source, &mut lake, |lake| lake.count("a") == 1_500).await.unwrap();
    drop(source);
    pipe.settings.until_caught_up = true;
    pipe.catch_up(&mut lake).await.unwrap();
    assert_eq!(lake.count("a"), 1_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_quiet_topic_waits_for_no_other() {
    let broker = Broker::shared();
    let topic = broker.topic("quiet", 4, &[]).await;
    let mut pipe = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    pipe.settings.until_caught_up = false;
    let mut lake = Lake::default();
    let mut source = pipe.open(&lake).await.unwrap();
    let producer = broker.producer(&[("linger.ms", "0")]);
    // A free machine takes some 10 ms. Were there anything to wait for, such as a full answer or the next look, it would be half a second.
    let is_prompt = |waits: &Vec<Duration>| waits[10] < Duration::from_millis(150);
    let mut rounds: Vec<Vec<Duration>> = Vec::new();
    // A busy machine may hold up one round, and hardly all of them.
    while rounds.len() < 4 && !rounds.iter().any(is_prompt) {
        let mut waits = Vec::new();
        for number in 0..20 {
            tokio::time::sleep(Duration::from_millis(137)).await;
            send(&producer, &topic, number % 4, "k", Some("v"));
            producer.flush(PATIENCE).unwrap();
            let produced = std::time::Instant::now();
            let count = lake.count("a") + 1;
            pipe.read(&mut source, &mut lake, |lake| lake.count("a") == count).await.unwrap();
            waits.push(produced.elapsed());
        }
        waits.sort();
        rounds.push(waits);
    }
    assert!(rounds.iter().any(is_prompt), "{rounds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_is_told_of_offsets_only_after_the_tables_have_them() {
    let broker = Broker::shared();
    let topic = broker.topic("released", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 100));
    let pipe = Pipe::new(&broker.bootstrap(), "options = { \"client.id\" = \"released\" }", &[("a", &topic)]);
    let mut lake = Lake::default();
    let mut source = pipe.open(&lake).await.unwrap();
    pipe.read(&mut source, &mut lake, |_| false).await.unwrap();
    assert_eq!(
        group_offset(broker, "alluvium-test", &topic).await,
        None,
        "nothing is committed by the reading itself"
    );
    source.release(&lake.mark("a")).await.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while group_offset(broker, "alluvium-test", &topic).await != Some(100) {
        assert!(std::time::Instant::now() < deadline, "the offset is not committed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the brokers remember of a group for partition 0 of a topic.
async fn group_offset(broker: &Broker, group: &str, topic: &str) -> Option<i64> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = broker.client().set("group.id", group).create().expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition(topic, 0);
    // The first group of a broker has no coordinator for a while.
    let deadline = std::time::Instant::now() + PATIENCE;
    let offsets = loop {
        match consumer.committed_offsets(list.clone(), PATIENCE) {
            Ok(offsets) => break offsets,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    offsets.elements()[0].offset().to_raw().filter(|offset| *offset >= 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_or_is_missing_is_named_with_what_to_do() {
    let broker = Broker::shared();
    let topic = broker.topic("named", 1, &[]).await;
    let lake = Lake::default();

    let nobody = Pipe::new("localhost:1", "", &[("a", &topic)]);
    let error = failed(nobody.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Transient, "broker_unreachable"), "{error}");
    assert!(
        error.what.contains("localhost:1") && error.what.contains("kafka.brokers"),
        "{error}"
    );

    let missing = Pipe::new(&broker.bootstrap(), "", &[("a", "no-such-topic")]);
    let error = failed(missing.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Config, "topic_missing"), "{error}");
    assert!(error.what.contains("`no-such-topic`"), "{error}");

    let plain = Pipe::new(&broker.bootstrap(), "tls = {}", &[("a", &topic)]);
    unreachable(&plain, "leave out `kafka.tls`").await;

    let unknown = failed(Pipe::try_new(
        &broker.bootstrap(),
        "options = { \"no.such.property\" = \"1\" }",
        &[("a", &topic)],
    ));
    assert_eq!((unknown.kind, unknown.code), (Kind::Config, "option_refused"), "{unknown}");
    assert!(unknown.what.contains("no.such.property"), "{unknown}");

    let pattern = Pipe::new(&broker.bootstrap(), "", &[("a", "^no-topic-is-called-like-this.*")]);
    let mut none = Lake::default();
    pipe_ends(&pattern, &mut none).await;
    assert_eq!(none.count("a"), 0, "a pattern may match nothing yet");
}

/// Brokers that hang up may come to their senses; meanwhile the message says what they may have expected. A busy broker may hang up so late
/// that it tells nothing, and the client repeats what it said about it after half a minute.
async fn unreachable(pipe: &Pipe, hint: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let error = unanswered(pipe).await;
        if error.what.contains(hint) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{hint}: {error}");
    }
}

async fn unanswered(pipe: &Pipe) -> Error {
    let error = failed(pipe.open(&Lake::default()).await);
    assert_eq!(
        (error.kind, error.code, error.exit_code()),
        (Kind::Transient, "broker_unreachable", 69),
        "{error}"
    );
    error
}

async fn pipe_ends(pipe: &Pipe, lake: &mut Lake) {
    pipe.catch_up(lake).await.expect("nothing to read is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn k21_a_wrong_password_is_the_operators_to_correct_and_a_right_one_reads() {
    let users = "listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                 username=\"admin\" password=\"admin\" user_admin=\"admin\" user_reader=\"right\";\n\
                 sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n";
    let broker = Broker::start_secured(Door::sasl(&[]), users);
    let topic = broker.topic("secret", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let folder = tempfile::tempdir().unwrap();
    let sasl = |password: &str| {
        let file = folder.path().join(password);
        std::fs::write(&file, password).unwrap();
        let password = format!("{{ file = \"{}\" }}", file.display());
        format!("sasl = {{ mechanism = \"PLAIN\", username = \"reader\", password = {password} }}")
    };

    // Where the machine stalls, once more.
    let mut soonest = Duration::MAX;
    for _ in 0..3 {
        let wrong = Pipe::new(&broker.bootstrap(), &sasl("wrong"), &[("a", &topic)]);
        let began = std::time::Instant::now();
        let error = failed(wrong.open(&Lake::default()).await);
        soonest = soonest.min(began.elapsed());
        assert_eq!((error.kind, error.code), (Kind::Config, "broker_denied"), "{error}");
        assert!(error.what.contains("kafka.sasl"), "{error}");
        if soonest < Duration::from_secs(8) {
            break;
        }
    }
    assert!(
        soonest < Duration::from_secs(10),
        "a refused login is told before all the waiting is over"
    );

    let stranger = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    unreachable(&stranger, "set `kafka.sasl`").await;
    let needless = Pipe::new(&Broker::shared().bootstrap(), &sasl("right"), &[("a", &topic)]);
    let error = failed(needless.open(&Lake::default()).await);
    assert_eq!((error.code, error.exit_code()), ("broker_denied", 77), "{error}");
    assert!(error.what.contains("leave out `kafka.sasl`"), "{error}");

    let mut lake = Lake::default();
    Pipe::new(&broker.bootstrap(), &sasl("right"), &[("a", &topic)])
        .catch_up(&mut lake)
        .await
        .unwrap();
    assert_eq!(lake.values("a", 0), values(0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn x3_a_broker_that_does_not_prove_who_it_is_is_not_talked_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (store, ca, stranger) = (file("broker.p12"), file("ca.pem"), file("stranger.pem"));
    let keytool = |arguments: &[&str]| {
        let output = std::process::Command::new("keytool")
            .args(arguments)
            .output()
            .expect("keytool comes with Java");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    for (store, pem) in [(&store, &ca), (&file("stranger.p12"), &stranger)] {
        let keys = [
            "-keystore",
            store,
            "-storetype",
            "PKCS12",
            "-storepass",
            "changeit",
            "-alias",
            "broker",
        ];
        let names = [
            "-genkeypair",
            "-keyalg",
            "EC",
            "-dname",
            "CN=localhost",
            "-ext",
            "san=dns:localhost",
            "-validity",
            "2",
        ];
        keytool(&[&names[..], &keys[..]].concat());
        keytool(&[&["-exportcert", "-rfc", "-file", pem][..], &keys[..]].concat());
    }
    let listener = format!(
        "ssl.keystore.location={store}\nssl.keystore.password=changeit\nssl.keystore.type=PKCS12\n\
         ssl.truststore.location={ca}\nssl.truststore.type=PEM\n"
    );
    let door = Door {
        protocol: "SSL",
        login: &[("security.protocol", "ssl"), ("ssl.ca.location", &ca)],
        scram: &[],
    };
    let broker = Broker::start_secured(door, &listener);
    let topic = broker.topic("tls", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));

    let fooled = Pipe::new(&broker.bootstrap(), &format!("tls = {{ ca = \"{stranger}\" }}"), &[("a", &topic)]);
    let error = failed(fooled.open(&Lake::default()).await);
    assert_eq!((error.kind, error.code), (Kind::Config, "broker_tls"), "{error}");
    assert!(error.what.contains("kafka.tls.ca"), "{error}");

    // The certificate is for `localhost`.
    let elsewhere = broker.bootstrap().replace("localhost", "127.0.0.1");
    let misled = Pipe::new(&elsewhere, &format!("tls = {{ ca = \"{ca}\" }}"), &[("a", &topic)]);
    let error = failed(misled.open(&Lake::default()).await);
    assert_eq!((error.kind, error.code), (Kind::Config, "broker_tls"), "{error}");
    assert!(error.what.contains("must be for the host"), "{error}");

    let in_the_clear = Pipe::new(&broker.bootstrap(), "", &[("a", &topic)]);
    unreachable(&in_the_clear, "kafka.tls = {}").await;
    let error = unanswered(&in_the_clear).await; // The client does not repeat at once what has not changed.
    assert!(error.what.contains("kafka.tls = {}"), "{error}");

    let mut lake = Lake::default();
    Pipe::new(&broker.bootstrap(), &format!("tls = {{ ca = \"{ca}\" }}"), &[("a", &topic)])
        .catch_up(&mut lake)
        .await
        .unwrap();
    assert_eq!(lake.values("a", 0), values(0, 10));
}

/// Reads for one member of a group until it is told to stop; opens again whenever its lanes change. Both members write one lake, as two
/// instances write one table: each commits its own lanes.
async fn member(
    pipe: Arc<Pipe>,
    lake: Arc<tokio::sync::Mutex<Lake>>,
    stop: Arc<tokio::sync::Notify>,
    lanes: Arc<std::sync::Mutex<Vec<usize>>>,
) {
    loop {
        let mut source = pipe.open_at_last(&*lake.lock().await).await;
        lanes.lock().unwrap().push(pipe.board.read()["test"].lanes.len());
        let mut rows = Vec::new();
        loop {
            let flow = tokio::select! {
                flow = source.next() => flow.expect("the flow goes on"),
                () = stop.notified() => return,
            };
            match flow {
                Some(Flow::Rows(batch)) => rows.extend(read_rows(&batch.rows)),
                Some(Flow::Mark(mark)) => {
                    let mut lake = lake.lock().await;
                    let table = TableId::new("a");
                    let holds = lake.marks.entry(table.clone()).or_default();
                    // The fence of the log: whoever comes too late with a lane that moved on commits nothing.
                    assert!(
                        mark.iter().all(|(lane, at)| holds.get(lane).is_none_or(|held| held <= at)),
                        "{holds} before {mark}"
                    );
                    *holds = std::mem::take(holds).join(&mark);
                    lake.rows.entry(table).or_default().append(&mut rows);
                }
                Some(Flow::Reopen(_)) => break,
                Some(other @ (Flow::Gap(_) | Flow::Begin { .. } | Flow::Copied { .. })) => panic!("{other:?}"),
                None => panic!("the flow ended"),
            }
        }
    }
}

async fn two_members_share(strategy: &str) {
    let broker = Broker::shared();
    let topic = broker.topic("shared", 4, &[]).await;
    let more = format!(
        "group = \"{topic}\"\noptions = {{ \"partition.assignment.strategy\" = \"{strategy}\", \"session.timeout.ms\" = \"20000\" }}"
    );
    let lake = Arc::new(tokio::sync::Mutex::new(Lake::default()));
    let start = || {
        let mut pipe = Pipe::new(&broker.bootstrap(), &more, &[("a", &topic)]);
        pipe.settings.until_caught_up = false;
        let (stop, lanes) = (Arc::new(tokio::sync::Notify::new()), Arc::new(std::sync::Mutex::new(Vec::new())));
        let task = tokio::spawn(member(Arc::new(pipe), Arc::clone(&lake), Arc::clone(&stop), Arc::clone(&lanes)));
        (task, stop, lanes)
    };
    let produce = |from: usize| (0..4).for_each(|partition| broker.produce(&topic, partition, numbered(from, from + 1_000)));
    let reached = async |count: usize| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while lake.lock().await.count("a") < count {
            assert!(
                std::time::Instant::now() < deadline,
                "{} of {count} rows",
                lake.lock().await.count("a")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let until = async |lanes: &std::sync::Mutex<Vec<usize>>, count: usize| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while lanes.lock().unwrap().last() != Some(&count) {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?} lanes and not {count}",
                lanes.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    produce(0);
    let first = start();
    reached(4_000).await;
    let second = start();
    until(&second.2, 2).await;
    until(&first.2, 2).await;
    produce(1_000);
    reached(8_000).await;
    // One goes; the other takes over.
    first.1.notify_one();
    first.0.await.unwrap();
    produce(2_000);
    reached(12_000).await;
    until(&second.2, 4).await;
    second.1.notify_one();
    second.0.await.unwrap();
    let lake = lake.lock().await;
    for partition in 0..4 {
        assert_eq!(lake.values("a", partition), values(0, 3_000), "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_two_members_share_the_lanes_and_nothing_is_lost_or_doubled_by_cooperative_rebalances() {
    two_members_share("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_two_members_share_the_lanes_and_nothing_is_lost_or_doubled_by_eager_rebalances() {
    two_members_share("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k19_a_second_instance_with_the_same_name_expels_the_first_which_says_so_and_stops() {
    let broker = Broker::shared();
    let topic = broker.topic("twins", 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 10));
    let more = format!("group = \"{topic}\"\noptions = {{ \"group.instance.id\" = \"twin\", \"session.timeout.ms\" = \"30000\" }}");
    let pipe = || {
        let mut pipe = Pipe::new(&broker.bootstrap(), &more, &[("a", &topic)]);
        pipe.settings.until_caught_up = false;
        pipe
    };
    let (first, second) = (pipe(), pipe());
    let mut lake = Lake::default();
    let mut source = joined(&first, &mut lake).await;
    first.read(&mut source, &mut lake, |lake| lake.count("a") == 10).await.unwrap();
    let mut twin_lake = Lake::default();
    let mut twin = joined(&second, &mut twin_lake).await;
    second.read(&mut twin, &mut twin_lake, |lake| lake.count("a") == 10).await.unwrap();

    broker.produce(&topic, 0, numbered(10, 20));
    let error = failed(first.read(&mut source, &mut lake, |_| false).await);
    assert_eq!(error.kind, Kind::Fenced, "{error}");
    drop(source);
    let error = failed(first.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Config, "member_fenced"), "{error}");
    second.read(&mut twin, &mut twin_lake, |lake| lake.count("a") == 20).await.unwrap();
}

/// A flow of a new member: lanes that come while it joins make it open again, for their last owner may have published meanwhile.
async fn joined(pipe: &Pipe, lake: &mut Lake) -> KafkaSource {
    let mut source = pipe.open_at_last(lake).await;
    let why = pipe.read(&mut source, lake, |_| false).await.expect("the flow goes on");
    assert!(why.is_some(), "the lanes that came are read from the tables as they are after that");
    drop(source);
    pipe.open_at_last(lake).await
}
