//! The Kafka source against a real broker: nothing is lost, doubled or passed over in silence, whatever happens to the topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alluvium::batch::{Flow, Gap};
use alluvium::budget::Budget;
use alluvium::config::Kafka;
use alluvium::error::{Error, Kind, Result};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::reject::Reject;
use alluvium::sources::decode::{Decoded, Decoder, Message};
use alluvium::sources::kafka::{KafkaClient, KafkaSource, Policy, Route, Settings, options};
use alluvium::sources::{Resume, Source};
use alluvium::status::Board;
use alluvium::table::{Lanes, TableId};
use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use rdkafka::producer::Producer;

use crate::support::kafka::{Broker, send};

const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY: usize = 64 << 20;

/// Decodes text to (partition, offset, value): the coordinates tell what came and in which order. `bad…` cannot be read.
struct Text(SchemaRef);

impl Text {
    fn make() -> Result<Box<dyn Decoder>> {
        let column = |name: &str, kind| Field::new(name, kind, false);
        let columns = vec![
            column("partition", DataType::Int32),
            column("offset", DataType::Int64),
            column("value", DataType::Utf8),
        ];
        Ok(Box::new(Text(Arc::new(Schema::new(columns)))))
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
                Some(value) if value.starts_with("bad") => {
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
        })
    }
}

/// Tables as a pipeline would keep them: rows and marks, published together.
#[derive(Default)]
struct Lake {
    rows: BTreeMap<TableId, Vec<(i32, i64, String)>>,
    marks: Resume,
    gaps: Vec<Gap>,
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
        let secret = |secret: &alluvium::config::Secret| match secret {
            alluvium::config::Secret::Env(text) => Ok(text.clone()),
            alluvium::config::Secret::File(_) => panic!("the tests keep no secrets in files"),
        };
        let properties = options::properties(&kafka, "test", MEMORY, 2, secret)?;
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
        KafkaSource::open(&self.client, &self.routes, &lake.marks, &self.settings, &self.budget, &self.board).await
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
                Some(Flow::Rows(batch)) if batch.table == self.settings.dead_letters => {
                    let ids = batch.rows.column(0).as_string::<i32>();
                    dead.extend(ids.iter().flatten().map(str::to_owned));
                }
                Some(Flow::Rows(batch)) => {
                    assert_eq!(batch.ops.len(), batch.rows.num_rows());
                    assert!(batch.permit.is_some(), "rows carry their memory");
                    staged.entry(batch.table.clone()).or_default().extend(read_rows(&batch.rows));
                }
                Some(Flow::Mark(mark)) => {
                    assert!(mark.covers(&last), "a mark goes back: {last} to {mark}");
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
                    lake.marks.insert(self.settings.dead_letters.clone(), mark);
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
    tokio::time::sleep(Duration::from_secs(1)).await;
    broker.create_topic(&topic, 1, &[]).await;
    broker.produce(&topic, 0, numbered(0, 50));
    let error = failed(pipe.open(&lake).await);
    assert_eq!((error.kind, error.code), (Kind::Data, "topic_recreated"), "{error}");
    assert!(error.what.contains(&topic), "{}", error.what);
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
    assert_eq!(lake.values("a", 0), values(10, 20));
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
