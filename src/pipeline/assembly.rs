//! A pipeline of the configuration, opened from the log: its Delta tables, and Kafka where they stand.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::available_parallelism;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use tracing::{info, warn};

use super::doubling::{Marks, must_be_new};
use super::letters::Behind;
use super::resolve::{Feed, KafkaFeeds, Resolved};
use super::tables::Tables;
use super::{Open, Opened};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::position::Checkpoint;
use crate::reject::delivered::Delivered;
use crate::sinks::Sink;
use crate::sinks::delta::DeltaSink;
use crate::sources::Resume;
use crate::sources::decode::{self, DecodeSpec, Message, NewColumns};
use crate::sources::kafka::options;
use crate::sources::kafka::{self, KafkaClient, KafkaSource, MakeDecoder, Policy, Route, Sample};
use crate::status::Board;
use crate::table::{Lanes, Table, TableId};

/// Of a pipeline's memory, this part is for staged rows of all its tables; the rest is for rows on their way to them.
pub(super) const STAGED_SHARE: usize = 2;
/// Dead letters are few: they get this part of the memory, beside the tables.
pub(super) const DEAD_LETTERS_SHARE: usize = 16;

/// A table cannot be made yet: its columns come from messages, and none has any.
pub const NO_COLUMNS_YET: &str = "no_columns_yet";

/// What we are to the consumer group, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Joins,
    /// A look must not make a group share its lanes out anew.
    Looks,
}

/// Opens a pipeline that reads Kafka and writes Delta tables.
pub struct KafkaToDelta {
    resolved: Resolved,
    feeds: KafkaFeeds,
    client: Arc<KafkaClient>,
    budget: Budget,
    board: Board,
    threads: usize,
    until_caught_up: bool,
    membership: Membership,
    tables: Tables,
    /// Tables that what the source sends no longer fits, and what they hold.
    left_out: BTreeSet<TableId>,
    held: Vec<(Lanes, Checkpoint)>,
}

impl KafkaToDelta {
    /// Makes the client of the brokers, which lives as long as they answer. It connects in the background.
    pub fn new(resolved: Resolved, feeds: KafkaFeeds, budget: Budget, board: Board, until_caught_up: bool) -> Result<Self> {
        Self::with(resolved, feeds, budget, board, until_caught_up, Membership::Joins)
    }

    /// One for who only looks.
    pub fn looking(resolved: Resolved, feeds: KafkaFeeds, budget: Budget, board: Board) -> Result<Self> {
        Self::with(resolved, feeds, budget, board, false, Membership::Looks)
    }

    fn with(
        resolved: Resolved,
        feeds: KafkaFeeds,
        budget: Budget,
        board: Board,
        until_caught_up: bool,
        membership: Membership,
    ) -> Result<Self> {
        let threads = available_parallelism().map_or(1, usize::from);
        let (kafka, name) = (&feeds.kafka, &resolved.name);
        if kafka.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) {
            warn!(pipeline = %name, "`tls.insecure_skip_verify` is set: a broker is believed whatever its certificate says");
        }
        Ok(Self {
            client: client(&feeds, name, &budget, threads, membership)?,
            membership,
            feeds,
            budget,
            board,
            threads,
            until_caught_up,
            tables: Tables::new(&resolved),
            left_out: BTreeSet::new(),
            held: Vec::new(),
            resolved,
        })
    }

    /// The table and its decoding. Columns come from the schema file, or else from the table that is there, or else from the messages.
    pub async fn complete(&self, feed: &Feed, store: &Arc<dyn ObjectStore>) -> Result<(Table, DecodeSpec)> {
        if let Some(columns) = &feed.columns {
            return feed.complete(columns, NewColumns::Ignore);
        }
        if let Some(log) = Log::open(&feed.location, Arc::clone(store), &self.resolved.name).await? {
            return feed.complete(&feed.columns_of_table(&log.snapshot().schema), NewColumns::Add);
        }
        let id = &feed.id;
        let (Seen { columns, rows, unreadable }, waiting) = self.look(feed).await?;
        let completed = match columns {
            Some(columns) => columns.and_then(|columns| feed.complete(&columns, NewColumns::Add)),
            None if rows => {
                let schema = "set `schema` to an Avro schema (.avsc) or a JSON Schema (.json)";
                let what = match unreadable {
                    None => format!("the newest of them do not carry their schema: {schema}"),
                    Some(why) => format!("the newest of them tell no columns. One of them: {why}. If others carry no schema, {schema}"),
                };
                Err(Error::config("no_columns", what))
            }
            None if self.until_caught_up && !waiting.is_empty() => {
                let what = format!("No record that can be read says what the columns of table `{id}` are");
                return Err(kafka::partitions_waiting(&what, &waiting));
            }
            None => {
                let what = "come from its messages, and there is none yet that has any: it is made when one is there; or set `schema`";
                return Err(Error::transient(NO_COLUMNS_YET, format!("the columns of table `{id}` {what}")));
            }
        };
        // What one topic's records say of their rows stops the table that they would make, and no other.
        completed.map_err(|error| {
            let what = format!("table `{id}` cannot be made of the messages of {}", feed.lanes);
            Error::new(error.kind, error.code, what).because(error).alone(id)
        })
    }

    /// Looks among the messages for columns: the newest ones say it, unless there are no rows among them. Also tells which partitions wait,
    /// and could not be looked at.
    async fn look(&self, feed: &Feed) -> Result<(Seen, Vec<String>)> {
        let format = feed.format();
        let look = move |seen: &mut Seen, messages: &[Message<'_>]| {
            seen.columns = decode::discover(format, messages).transpose();
            let among = decode::rows_among(messages);
            seen.rows |= among.rows;
            seen.unreadable = seen.unreadable.take().or(among.unreadable);
            Ok(seen.columns.is_some())
        };
        let (newest, waiting): (Seen, _) = self.client.sample(feed.lanes.clone(), Sample::Newest, look).await?;
        match newest.columns.is_some() || newest.rows {
            true => Ok((newest, waiting)),
            false => self.client.sample(feed.lanes.clone(), Sample::All, look).await,
        }
    }

    /// Kafka, behind what the tables hold: `marks`, of each all pipelines'.
    pub async fn source(&self, fed: &[(Table, DecodeSpec)], marks: &[Marks], delivered: Delivered) -> Result<KafkaSource> {
        let name = &*self.resolved.name;
        let own = |marks: &Marks| marks.get(name).cloned().unwrap_or_default();
        let resume: Resume = fed
            .iter()
            .zip(marks)
            .map(|((table, _), marks)| (table.id.clone(), own(marks)))
            .collect();
        let kafka = &self.feeds.kafka;
        let settings = kafka::Settings {
            pipeline: self.resolved.name.to_string(),
            policy: Policy {
                start: kafka.start,
                on_gap: kafka.on_gap,
            },
            until_caught_up: self.until_caught_up,
            dead_letters: self.resolved.dead_letters.id.clone(),
            delivered: Arc::new(delivered),
            stop_after: self.resolved.stop_after,
            threads: self.threads,
        };
        let source = KafkaSource::open(&self.client, &routes(fed), &resume, &settings, &self.budget, &self.board).await?;
        for (route, ((table, _), marks)) in fed.iter().zip(marks).enumerate() {
            must_be_new(name, table, source.begins(route, &table.id), marks).map_err(|error| error.alone(&table.id))?;
        }
        Ok(source)
    }

    /// Fails where a run would not be let read one of the topics.
    pub async fn must_be_readable(&self) -> Result<()> {
        let lanes = self.feeds.feeds.iter().map(|feed| feed.lanes.clone()).collect();
        self.client.must_be_readable(lanes).await
    }

    /// What is to be said of a group before a run joins it; an error where it would not let a run in.
    pub async fn look_at_group(&self, group: &str) -> Result<String> {
        self.client.look_at_group(group).await
    }
}

fn client(feeds: &KafkaFeeds, pipeline: &str, budget: &Budget, threads: usize, membership: Membership) -> Result<Arc<KafkaClient>> {
    let kafka = &feeds.kafka;
    let properties = options::properties(kafka, pipeline, budget.limit(), threads)?;
    let joins = membership == Membership::Joins && kafka.group.is_some();
    KafkaClient::new(pipeline, &properties, joins, kafka.discovery.0)
}

/// What messages say of a table that there is not yet.
#[derive(Default)]
struct Seen {
    /// What the first schema among them makes of a table.
    columns: Option<Result<SchemaRef>>,
    /// Whether there are rows among them.
    rows: bool,
    /// Why one of them cannot be read, if that is so.
    unreadable: Option<String>,
}

impl Open for KafkaToDelta {
    type Source = KafkaSource;
    type Sink = DeltaSink;

    async fn open(&mut self) -> Result<Opened<KafkaSource, DeltaSink>> {
        if self.client.is_worn_out() {
            self.renew_client().await?;
        }
        let opened = self.open_tables().await;
        let is_silent = matches!(&opened, Err(error) if error.code == "broker_unreachable");
        self.client.heard(!is_silent);
        opened
    }

    fn leave_out(&mut self, table: &TableId) -> bool {
        let (this, others): (Vec<&Feed>, Vec<&Feed>) = self.feeds.feeds.iter().partition(|feed| feed.id == *table);
        let remain = others.iter().any(|feed| !self.left_out.contains(&feed.id));
        !this.is_empty() && remain && self.left_out.insert(table.clone())
    }

    fn left_out(&self) -> Vec<(Lanes, Checkpoint)> {
        self.held.clone()
    }
}

impl KafkaToDelta {
    /// Tries with another client. Once the brokers answer it, it takes the place of the one that there is, and knows what that does: until
    /// then a member of a group stays one, and there are never more than the two.
    async fn renew_client(&mut self) -> Result<()> {
        warn!(pipeline = %self.resolved.name, "the brokers have not answered for long: trying with a new client");
        let lanes = self.feeds.feeds.iter().map(|feed| feed.lanes.clone()).collect();
        let fresh = client(&self.feeds, &self.resolved.name, &self.budget, self.threads, self.membership)?;
        if let Err(error) = fresh.reach(lanes).await {
            fresh.shut().await?;
            return Err(error);
        }
        let worn_out = std::mem::replace(&mut self.client, Arc::clone(&fresh));
        fresh.take_over(worn_out).await
    }

    async fn open_tables(&mut self) -> Result<Opened<KafkaSource, DeltaSink>> {
        let limit = self.budget.limit();
        let feeds = self.feeds.feeds.clone();
        let share = limit / STAGED_SHARE / feeds.len().max(1);
        let (mut sinks, mut fed, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        let (mut awaited, mut why) = (Vec::new(), None);
        self.held.clear();
        for feed in &feeds {
            let store = self.tables.store(&feed.location).await?;
            if self.left_out.contains(&feed.id) {
                let log = Log::open(&feed.location, store, &self.resolved.name).await?;
                self.held
                    .push((feed.lanes.clone(), log.map(|log| log.checkpoint()).unwrap_or_default()));
                continue;
            }
            let (table, spec) = match self.complete(feed, &store).await {
                Err(error) if error.code == NO_COLUMNS_YET => {
                    info!(pipeline = %self.resolved.name, table = %feed.id, "no record says its columns yet: it is made when one does");
                    awaited.push((feed.id.clone(), feed.lanes.clone()));
                    why = Some(error);
                    continue;
                }
                completed => completed?,
            };
            let sink = self.tables.sink(&table, store, share).await?;
            marks.push(sink.log().snapshot().marks.clone());
            sinks.push((Arc::new(table.clone()), sink));
            fed.push((table, spec));
        }
        self.client.await_records(awaited, self.feeds.kafka.start);
        // A catch-up has nothing to do then, be it for all tables or for some.
        if let Some(error) = why.filter(|_| fed.is_empty() && !self.until_caught_up) {
            return Err(error);
        }
        let letters = self.resolved.dead_letters.clone();
        let store = self.tables.store(&letters.location).await?;
        let letters_sink = self.tables.sink(&letters, store, limit / DEAD_LETTERS_SHARE).await?;
        let held = sinks
            .iter()
            .map(|(table, sink): &(Arc<Table>, DeltaSink)| (table.as_ref(), sink.checkpoint()));
        let behind = Behind::of(letters_sink.checkpoint(), held);
        let delivered = behind.delivered(letters_sink.log(), &self.resolved.name).await?;
        let source = self.source(&fed, &marks, delivered).await?;
        Ok(Opened {
            source,
            tables: sinks,
            letters: Some((Arc::new(letters), letters_sink)),
        })
    }
}

/// What feeds each table. Tables whose messages mean the same share the work of reading them.
fn routes(fed: &[(Table, DecodeSpec)]) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::with_capacity(fed.len());
    for (index, (table, spec)) in fed.iter().enumerate() {
        let same = fed[..index].iter().position(|(_, other)| other == spec);
        let decoder: MakeDecoder = match same {
            Some(other) => Arc::clone(&routes[other].decoder),
            None => {
                let spec = spec.clone();
                Arc::new(move |terms| decode::decoder_under(&spec, terms))
            }
        };
        routes.push(Route {
            table: table.id.clone(),
            lanes: table.lanes.clone(),
            decoder,
        });
    }
    routes
}
