//! The list of what a source promises, kept by the Postgres source on a real server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use alluvium::budget::Budget;
use alluvium::position::{Lane, Position};
use alluvium::reject::delivered::Delivered;
use alluvium::sources::Resume;
use alluvium::sources::postgres::catalog::{self, PgTable};
use alluvium::sources::postgres::changes::Known;
use alluvium::sources::postgres::connection::control;
use alluvium::sources::postgres::followed::Followed;
use alluvium::sources::postgres::learned::Learned;
use alluvium::sources::postgres::types::Types;
use alluvium::sources::postgres::values::Specials;
use alluvium::sources::postgres::{Feed, Holds, PostgresSource, Settings};
use alluvium::status::Board;
use alluvium::table::{Limits, TableId};

use crate::conformance::{SourceUnderTest, the_list_of_sources};
use crate::support::postgres::{Options, PostgresServer, wait_until};

/// A row of each transaction, in the table `even` or `odd`.
const KEYS: [i64; 3] = [2, 1, 4];

struct InPostgres<'s> {
    server: &'s PostgresServer,
    spool: tempfile::TempDir,
    /// Where the slot was made. There the tables were empty: they hold nothing, and need no copy.
    made: u64,
    /// Where each transaction ends.
    ends: Vec<u64>,
}

fn table_of(key: i64) -> TableId {
    TableId::new(["even", "odd"][key as usize % 2])
}

impl<'s> InPostgres<'s> {
    async fn new(server: &'s PostgresServer) -> Self {
        let sql = "CREATE TABLE even (key bigint PRIMARY KEY, value bigint); CREATE TABLE odd (key bigint PRIMARY KEY, value bigint); \
                   CREATE PUBLICATION p FOR TABLE even, odd";
        server.sql("postgres", sql).await;
        server
            .rows("postgres", "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
            .await;
        let made = server.confirmed("s").await.expect("the slot");
        for key in KEYS {
            server
                .sql("postgres", &format!("INSERT INTO {} VALUES ({key}, 0)", table_of(key)))
                .await;
        }
        // The messages of commits say where these end.
        let ends = "SELECT lsn - '0/0'::pg_lsn FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'proto_version', '1', \
                    'publication_names', 'p') WHERE get_byte(data, 0) = ascii('C')";
        let ends = server.rows("postgres", ends).await.into_iter().flatten().flatten();
        Self {
            server,
            spool: tempfile::tempdir().expect("a folder"),
            made,
            ends: ends.map(|end| end.parse().expect("a number")).collect(),
        }
    }

    fn feed(&self, source: PgTable, types: &Types, resume: &Resume) -> Feed {
        let id = TableId::new(source.name.as_str());
        let held = resume.get(&id).and_then(|marks| marks.get(&self.lane()));
        let names: Vec<String> = source.columns.iter().map(|column| column.name.clone()).collect();
        Feed {
            followed: Followed::new(id, &source, types, &[], false, Vec::new()).unwrap(),
            source,
            holds: Holds::UpTo(held.map_or(self.made, |at| at.0)),
            known: Known {
                all: BTreeSet::from_iter(names.clone()),
                same: names,
            },
            marks: Vec::new(),
        }
    }
}

impl SourceUnderTest for InPostgres<'_> {
    type Source = PostgresSource;

    async fn open(&self, resume: Resume) -> PostgresSource {
        let address = self.server.address("postgres");
        wait_until("the slot is free", async || self.server.walsender("s").await.is_empty()).await;
        let control = control(&address).await.unwrap();
        let types = catalog::types(&control).await.unwrap();
        let tables = catalog::tables(&control, "p").await.unwrap();
        let feeds = tables.into_iter().map(|source| self.feed(source, &types, &resume)).collect();
        let settings = Settings {
            pipeline: "bank".into(),
            address,
            lane: self.lane(),
            slot: "s".to_owned(),
            publication: "p".to_owned(),
            published: BTreeMap::new(),
            binary: true,
            specials: Specials::Reject,
            learned: Learned::default(),
            copy_connections: 1,
            two_phase: false,
            publisher: None,
            refused: BTreeSet::new(),
            // Nothing is looked at again.
            discovery: Duration::from_secs(3600),
            board: Board::default(),
            limits: Limits::default(),
            until_caught_up: true,
            letters: TableId::new("letters"),
            delivered: Arc::new(Delivered::default()),
            spool: self.spool.path().to_owned(),
        };
        PostgresSource::open(settings, control, types, feeds, &Budget::new(64 << 20))
            .await
            .unwrap()
    }

    fn lane(&self) -> Lane {
        Lane::new("s@1")
    }

    fn expected(&self) -> Vec<(Position, TableId, i64)> {
        let each = self.ends.iter().zip(KEYS);
        each.map(|(end, key)| (Position(*end), table_of(key), key)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_source_conforms() {
    let server = PostgresServer::start(Options::default());
    let source = InPostgres::new(&server).await;
    assert_eq!(source.ends.len(), KEYS.len());
    the_list_of_sources(&source).await;
}
