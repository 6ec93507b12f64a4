//! A pipeline that reads Postgres, opened from the log: which tables it follows, its Delta tables, and the slot where they stand.

mod as_text;
mod columns;
mod feeds;
mod gone;
mod holds;
mod left_out;
mod look;
mod missing;
mod opening;
mod relations;
mod told;
mod unmatched;
mod unpublished;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use columns::Origins;
pub use feeds::{PostgresFeed, PostgresFeeds};
use holds::holds;
use left_out::LeftOut;
pub use look::Found;
use relations::Relations;

use super::assembly::{DEAD_LETTERS_SHARE, STAGED_SHARE};
use super::letters::Behind;
use super::resolve::{Resolved, layout, merge};
use super::tables::Tables;
use super::{Open, Opened};
use crate::budget::Budget;
use crate::config::{self, SpecialValues, TableMode};
use crate::error::{Error, Kind, Result};
use crate::log::Log;
use crate::position::{Checkpoint, Lane, Position};
use crate::sinks::Sink;
use crate::sinks::delta::DeltaSink;
use crate::sources::postgres::catalog::{self, PgTable};
use crate::sources::postgres::connection::{self, Address, Control, Tls};
use crate::sources::postgres::followed::{Followed, Metadata};
use crate::sources::postgres::learned::Learned;
use crate::sources::postgres::publishing::Publisher;
use crate::sources::postgres::slot::{self, Slot};
use crate::sources::postgres::timeline::{self, System};
use crate::sources::postgres::types::Types;
use crate::sources::postgres::values::Specials;
use crate::sources::postgres::{Feed, PostgresSource, Settings};
use crate::sources::postgres::{publication, set_back};
use crate::status::Board;
use crate::table::{Lanes, Limits, Mode, Table, TableId};

/// A mark that moved without rows is published at the latest after this time: until then the server keeps the WAL behind it.
const IDLE_POSTGRES: Duration = Duration::from_secs(30);

/// Opens a pipeline that reads Postgres and writes Delta tables.
pub struct PostgresToDelta {
    resolved: Resolved,
    feeds: PostgresFeeds,
    address: Address,
    tables: Tables,
    budget: Budget,
    board: Board,
    until_caught_up: bool,
    /// None where nothing is to be made on the server.
    publisher: Option<Publisher>,
    /// Tables that could not be published when that was last tried.
    unpublished: BTreeSet<TableId>,
    /// Tables that stopped because the publication leaves out changes of them. They are copied again when it tells all.
    untold: BTreeSet<TableId>,
    /// Tables that what the server sends no longer fits, and what they hold.
    left_out: BTreeSet<TableId>,
    held: Vec<LeftOut>,
    /// Those of them whose source is there.
    waiting: BTreeSet<TableId>,
    /// Those of them that the server keeps WAL for, as was said.
    kept_for: BTreeSet<TableId>,
    /// Tables whose source is gone, as was said.
    gone: BTreeSet<String>,
    /// Those that have a section of their own and that the publication does not have.
    missing: BTreeSet<TableId>,
    /// Each name of `follow` is that of a table, or was once.
    is_matched: bool,
    /// Columns that only the server can print, as was said.
    as_text: Vec<String>,
    /// How many tables there are beside these.
    open: usize,
    /// Why further tables cannot be opened. The server was asked once for all of them, and each stops by an error of its own.
    refused: Vec<Error>,
    learned: Learned,
}

/// A table of the database, and the Delta table that it becomes.
struct Fed {
    source: PgTable,
    followed: Followed,
    table: Table,
}

impl PostgresToDelta {
    pub fn new(resolved: Resolved, feeds: PostgresFeeds, budget: Budget, board: Board, until_caught_up: bool) -> Result<Self> {
        let address = address(&feeds.postgres, &resolved.name)?;
        if feeds.postgres.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) {
            warn!(pipeline = %resolved.name, "`tls.insecure_skip_verify` is set: the server is believed whatever its certificate says");
        }
        let publication = feeds.postgres.publication_name(&resolved.name);
        let publish = || Publisher::new(&publication, feeds.selection(), feeds.postgres.discovery.0);
        Ok(Self {
            tables: Tables::new(&resolved),
            publisher: feeds.postgres.create.then(publish),
            unpublished: BTreeSet::new(),
            resolved,
            feeds,
            address,
            budget,
            board,
            until_caught_up,
            untold: BTreeSet::new(),
            left_out: BTreeSet::new(),
            held: Vec::new(),
            waiting: BTreeSet::new(),
            kept_for: BTreeSet::new(),
            gone: BTreeSet::new(),
            missing: BTreeSet::new(),
            is_matched: false,
            as_text: Vec::new(),
            open: 0,
            refused: Vec::new(),
            learned: Learned::default(),
        })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    fn publication_name(&self) -> String {
        self.feeds.postgres.publication_name(&self.resolved.name)
    }

    /// The tables that the configuration asks for, given those of the publication.
    fn fed(&mut self, feeds: Vec<(PostgresFeed, PgTable)>, types: &Types, lane: &Lane) -> Result<Vec<Fed>> {
        let (fed, refused): (Vec<_>, Vec<_>) = feeds
            .into_iter()
            .map(|(feed, source)| self.fed_by(&feed, source, types, lane))
            .partition(Result::is_ok);
        self.refuse(refused.into_iter().filter_map(Result::err).collect())?;
        Ok(fed.into_iter().flatten().collect())
    }

    /// Fails with the first of these. If each stops one table, the others are told one by one, without the server.
    fn refuse(&mut self, mut refused: Vec<Error>) -> Result<()> {
        if let Some(at) = refused.iter().position(|error| error.table.is_none()) {
            return Err(refused.swap_remove(at));
        }
        refused.reverse();
        let first = refused.pop();
        self.refused = refused;
        first.map_or(Ok(()), Err)
    }

    fn fed_by(&self, feed: &PostgresFeed, source: PgTable, types: &Types, lane: &Lane) -> Result<Fed> {
        // The source's marks say when: a table publishes at each, so that all show the same moment.
        let limits = Limits {
            interval: Duration::ZERO,
            ..self.feeds.limits()
        };
        let widens = feed.options.type_widening.unwrap_or(self.feeds.type_widening);
        let lies_alone = self.feeds.lies_alone(feed);
        let fed = lies_alone.and_then(|()| fed(feed, source, types, lane, limits, widens));
        fed.map_err(|error| self.of_table(error, &feed.id))
    }

    /// What is wrong with one of the tables that a pattern names stops this one, and so does what the server has made of any table.
    fn of_table(&self, error: Error, id: &TableId) -> Error {
        match error.kind {
            // A key that nobody chose is the server's, and so is what became of it.
            Kind::Config if error.code == "schema_mismatch" || error.code == "mode_mismatch" && !self.feeds.chooses_key(id) => {
                let what = format!("{id} has changed on the server: {error}");
                Error::data("schema_changed", what).of(id)
            }
            Kind::Config | Kind::Data if !self.feeds.is_named(id) => error.alone(id),
            _ => error.of(id),
        }
    }
}

fn fed(feed: &PostgresFeed, source: PgTable, types: &Types, lane: &Lane, limits: Limits, type_widening: bool) -> Result<Fed> {
    let options = &feed.options;
    let key = if options.key.is_empty() { source.key() } else { &options.key };
    let append = match options.mode {
        Some(mode) => mode == TableMode::Append,
        None => key.is_empty(),
    };
    let metadata = options.metadata.iter().map(|name| Metadata::named(name)).collect::<Result<_>>()?;
    let mode = if append {
        Mode::Append
    } else {
        Mode::Upsert {
            key: key.to_vec(),
            merge: merge(options),
        }
    };
    let followed = Followed::new(feed.id.clone(), &source, types, &options.key, append, metadata)?.partitioned_by(&options.partition_by);
    if followed.arrow_schema().fields().is_empty() {
        let what = format!("`{}` has no columns that are published, and a Delta table needs one", feed.id);
        return Err(Error::config("no_columns", what));
    }
    let mut properties = options.properties.clone();
    properties.extend([Origins::of(&source).property()?]);
    let table = Table {
        id: feed.id.clone(),
        location: feed.location.clone(),
        mode,
        schema: followed.arrow_schema(),
        partition_by: options.partition_by.clone(),
        layout: layout(options),
        lanes: Lanes::Slot(lane.clone()),
        limits,
        properties,
        comment: options.comment.clone(),
        type_widening,
        on_unknown_row: options.on_unknown_row,
    };
    Ok(Fed { source, followed, table })
}

impl Open for PostgresToDelta {
    type Source = PostgresSource;
    type Sink = DeltaSink;

    async fn open(&mut self) -> Result<Opened<PostgresSource, DeltaSink>> {
        if let Some(refused) = self.refused.pop() {
            return Err(refused);
        }
        let (pipeline, postgres) = (Arc::clone(&self.resolved.name), self.feeds.postgres.clone());
        let (slot_name, publication) = (postgres.slot_name(&pipeline), self.publication_name());
        let control = connection::control(&self.address).await?;
        // Before it is read what the tables hold: what another process tells the slot meanwhile, they hold by then.
        let found = slot::find(&control, &slot_name).await?;
        let confirmed = found.as_ref().map_or(0, |slot| slot.confirmed);
        if let Some(found) = &found {
            slot::must_be_free(found, &self.address.database).inspect_err(|_| self.learned.lose_slot())?;
        }
        // In this order: of one that is promoted in between, the timeline is not known. In the other one it would be that of before.
        let is_standby = catalog::is_standby(&control).await?;
        let system = System::of(&self.address).await?;
        let lane = Lane::new(format!("{slot_name}@{}", system.identifier));
        // What is known of the database as a whole is kept beside the dead letters. Before the catalog is read: a table that another process finds
        // there in between is not one that has gone.
        let letters = self.resolved.dead_letters.clone();
        let letters_store = self.tables.store(&letters.location).await?;
        let of_database = Log::open(&letters.location, Arc::clone(&letters_store), &pipeline).await?;
        let mut relations = Relations::of(&of_database.map(|log| log.checkpoint()).unwrap_or_default());
        let unpublished = match self.publish(&control).await {
            Err(nothing) if nothing.code == "not_published" => {
                return Err(self.nothing_yet(&control, &[], &relations.gone(&lane), nothing).await);
            }
            unpublished => unpublished?,
        };
        let published = catalog::tables(&control, &publication).await?;
        if published.is_empty() && !publication::exists(&control, &publication).await? {
            if self.publisher.is_some() {
                let what = format!("the publication `{publication}` was dropped just now: it is made anew");
                return Err(Error::transient("publication_missing", what));
            }
            let what = format!(
                "there is no publication `{publication}` in the database `{}`: CREATE PUBLICATION {} FOR TABLE …, or set `create = true`",
                self.address.database,
                connection::identifier(&publication)
            );
            return Err(Error::config("publication_missing", what));
        }
        if published.iter().all(|table| table.untold.is_empty()) {
            let told = std::mem::take(&mut self.untold);
            self.go_on_with(told);
        }
        let types = catalog::types(&control).await?;
        let mut stopped = unpublished.errors;
        stopped.extend(self.stop_missing(&published, &relations, &lane)?);
        let feeds = self.without_left_out(&published, &lane).await?;
        self.open = feeds.len() + stopped.len();
        self.refuse(stopped)?;
        if feeds.is_empty() {
            let nothing = self.nothing_to_follow(&publication).error();
            return Err(self.nothing_yet(&control, &published, &relations.gone(&lane), nothing).await);
        }
        let fed = self.fed(feeds, &types, &lane)?;

        let limit = self.budget.limit();
        let share = limit / STAGED_SHARE / fed.len().max(1);
        let (mut sinks, mut feeds, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for fed in fed {
            match self.open_table(fed, &lane, &types, &mut relations, share).await {
                Ok((table, sink, feed)) => {
                    sinks.push((table, sink));
                    feeds.push(feed);
                }
                Err(error) if error.table.is_some() => refused.push(error),
                Err(error) => return Err(error),
            }
        }
        refused.extend(self.denied(&control, &publication, &feeds).await?);
        self.refuse(refused)?;
        if let Some(lowest) = feeds.iter().filter_map(Feed::held).min() {
            let logs: Vec<&Log> = sinks.iter().map(|(_, sink)| sink.log()).collect();
            for (feed, log) in feeds.iter_mut().zip(logs).filter(|(feed, _)| feed.held() > Some(lowest)) {
                // Tables publish the same marks, each at its own pace: those that are behind come to the same moments only where they are
                // published at the same marks as those that are ahead.
                feed.marks = log.positions_behind(&lane, Position(lowest)).await?;
            }
        }
        self.leave_gone(&mut relations, &lane);
        self.must_match(&control, &published).await?;
        let mut of_database = Log::open_or_create(&letters.location, Arc::clone(&letters_store), &letters, &pipeline).await?;
        if let Some(new) = relations.unkept(&of_database.checkpoint())? {
            of_database.set(&new, "RELATIONS").await?;
        }
        let found = slot::find(&control, &slot_name).await?;
        self.keep_server(is_standby, &system, &lane, found.as_ref(), &feeds, &mut of_database)
            .await?;
        let letters_sink = self.tables.sink(&letters, letters_store, limit / DEAD_LETTERS_SHARE).await?;
        holds(letters_sink.checkpoint(), &lane, &letters)?;
        let held = sinks.iter().zip(&feeds).filter(|(_, feed)| feed.held().is_some());
        let held = held.map(|((table, sink), _): (&(Arc<Table>, DeltaSink), _)| (table.as_ref(), sink.checkpoint()));
        let mut behind = Behind::of(letters_sink.checkpoint(), held);
        for feed in feeds.iter().filter(|feed| feed.held().is_none()) {
            behind.copied(&feed.followed.id, &lane);
        }
        let delivered = behind.delivered(letters_sink.log(), &pipeline).await?;

        let slot = self.slot(&control, &slot_name, &feeds).await?;
        let two_phase = slot::two_phase(&slot, postgres.two_phase, catalog::server_version(&control).await?)?;
        let held: Vec<_> = feeds.iter().filter_map(Feed::held_by).collect();
        let slot = Slot { confirmed, ..slot };
        slot::check(&slot, &self.address.database, &held, catalog::end_of_wal(&control).await?)?;
        let as_text = as_text::of_followed(feeds.iter().map(|feed| &feed.followed));
        if let Some(advice) = as_text::advice(&as_text).filter(|_| as_text != self.as_text) {
            warn!(pipeline = %pipeline, "{advice}");
        }
        let binary = as_text.is_empty() && !self.learned.as_text();
        self.as_text = as_text;
        let settings = Settings {
            pipeline,
            address: self.address.clone(),
            lane,
            slot: slot_name,
            publication,
            binary,
            learned: self.learned.clone(),
            specials: match postgres.special_values {
                SpecialValues::DeadLetter => Specials::Reject,
                SpecialValues::Null => Specials::Null,
            },
            published: published
                .iter()
                .map(|table| ((table.schema.clone(), table.name.clone()), table.shown()))
                .collect(),
            copy_connections: postgres.copy_connections as usize,
            two_phase,
            publisher: self.publisher.clone(),
            refused: unpublished.sources,
            discovery: postgres.discovery.0,
            board: self.board.clone(),
            limits: self.feeds.limits(),
            until_caught_up: self.until_caught_up,
            letters: letters.id.clone(),
            delivered: Arc::new(delivered),
            spool: self.resolved.state.join("spool"),
        };
        let source = PostgresSource::open(settings, control, types, feeds, &self.budget).await?;
        Ok(Opened {
            source,
            tables: sinks,
            letters: Some((Arc::new(letters), letters_sink)),
        })
    }

    fn leave_out(&mut self, table: &TableId) -> bool {
        let leaves_out = *table != self.resolved.dead_letters.id && self.open != 1 && self.left_out.insert(table.clone());
        if leaves_out {
            self.open = self.open.saturating_sub(1);
        }
        leaves_out
    }

    fn left_out(&self) -> Vec<(Lanes, Checkpoint)> {
        self.held.iter().map(LeftOut::lanes).collect()
    }
}

impl PostgresToDelta {
    /// Whether the server has what the tables hold; from now on they hold what it has. The dead-letter table keeps this for all of them.
    async fn keep_server(
        &self,
        is_standby: bool,
        system: &System,
        slot: &Lane,
        found: Option<&Slot>,
        feeds: &[Feed],
        log: &mut Log,
    ) -> Result<()> {
        let (kept, timeline, restart) = (log.checkpoint(), timeline::lane(slot), set_back::lane(slot));
        let left_out = self.held.iter().filter_map(LeftOut::held_by);
        let held: Vec<_> = feeds.iter().filter_map(Feed::held_by).chain(left_out).collect();
        system.check(kept.get(&timeline), held.iter().copied())?;
        let mut now = Checkpoint::default();
        now.set(timeline.clone(), if is_standby { timeline::UNKNOWN } else { system.timeline() });
        // One that another process reads is that one's to keep.
        if found.is_none_or(|slot| slot.active_pid.is_none()) {
            now.set(restart, Position(found.and_then(|slot| slot.restart).unwrap_or(0)));
        }
        if let Some(found) = found {
            set_back::check(found, system.seen(&kept, slot), held)?;
        }
        let new = now.only(|lane| kept.get(lane) != now.get(lane));
        if !new.is_empty() {
            log.set(&new, "SERVER").await?;
        }
        Ok(())
    }

    /// The slot, made where that is asked for and nothing was read through it yet.
    async fn slot(&self, control: &Control, name: &str, feeds: &[Feed]) -> Result<Slot> {
        if let Some(slot) = slot::find_made(control, name).await? {
            return Ok(slot);
        }
        let (version, is_standby) = (catalog::server_version(control).await?, catalog::is_standby(control).await?);
        let knows_failover = slot::knows_failover(version, is_standby);
        let held: Vec<_> = feeds.iter().filter_map(Feed::held_by).collect();
        if !held.is_empty() || !self.feeds.postgres.create {
            return Err(slot::missing(name, &held, knows_failover));
        }
        info!(pipeline = %self.resolved.name, slot = name, "making the replication slot: the server waits for transactions that are under way (pg_stat_activity, pg_prepared_xacts)");
        slot::create(control, name, self.feeds.postgres.two_phase, knows_failover).await?;
        info!(pipeline = %self.resolved.name, slot = name, "made the replication slot");
        let made = slot::find(control, name).await?;
        made.ok_or_else(|| Error::transient("slot_missing", format!("the replication slot `{name}` was made, and is gone")))
    }
}

fn address(postgres: &config::Postgres, pipeline: &str) -> Result<Address> {
    let database = postgres.database().map_err(|what| Error::config("bad_url", what))?;
    let tls = postgres.tls.as_ref().map(|tls| Tls {
        ca: tls.ca.clone(),
        certificate: tls.certificate.clone().zip(tls.key.clone()),
        insecure_skip_verify: tls.insecure_skip_verify,
    });
    Ok(Address {
        port: database.port,
        password: postgres.password.clone(),
        tls,
        application_name: format!("alluvium {pipeline}"),
        ..Address::new(database.host, database.user, database.name)
    })
}
