//! pgbench, a real client: its four tables always agree on one sum, at every moment of the database.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;

use alluvium::log::{Log, When, store};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::query::{Named, query};
use tokio::process::{Child, Command};
use url::Url;

use super::bank::rows;
use super::postgres::PostgresServer;
use super::program::Site;

pub const TABLES: [&str; 4] = ["pgbench_accounts", "pgbench_branches", "pgbench_history", "pgbench_tellers"];
/// All sums in one row, and how many transactions there were.
const SUMS: &str = "SELECT (SELECT coalesce(sum(abalance), 0) FROM public.pgbench_accounts) AS a, \
                    (SELECT coalesce(sum(bbalance), 0) FROM public.pgbench_branches) AS b, \
                    (SELECT coalesce(sum(delta), 0) FROM public.pgbench_history) AS h, \
                    (SELECT coalesce(sum(tbalance), 0) FROM public.pgbench_tellers) AS t, \
                    (SELECT count(*) FROM public.pgbench_history) AS n";
/// All rows of a table, in an order that is the same on both sides; a time in microseconds. Of the accounts those of one branch.
const ROWS: [&str; 3] = [
    "SELECT bid, bbalance, filler FROM public.pgbench_branches ORDER BY bid",
    "SELECT tid, bid, tbalance, filler FROM public.pgbench_tellers ORDER BY tid",
    "SELECT tid, bid, aid, delta, CAST(round(date_part('epoch', mtime) * 1000000) AS bigint) AS us, filler FROM public.pgbench_history \
     ORDER BY tid, bid, aid, delta, us",
];

/// Updates of one transaction of [`Bench::update`]: small, and so many that each is no measure of its own.
const UPDATES_EACH: u32 = 100;

/// pgbench's tables in a database of their own, and the pipeline that follows them.
pub struct Bench<'s> {
    pub server: &'s PostgresServer,
    pub database: String,
    pub site: Site,
    pub scale: u32,
    /// Where the pipeline finds the server: something may stand in between.
    pub port: u16,
}

impl<'s> Bench<'s> {
    /// `scale`: 100,000 accounts each.
    pub async fn new(server: &'s PostgresServer, name: &str, scale: u32) -> Bench<'s> {
        let database = server.database(name).await;
        let bench = Bench {
            server,
            database,
            site: Site::new(),
            scale,
            port: server.port(),
        };
        let made = bench
            .pgbench(&["-i", "-q", "-s", &scale.to_string()])
            .wait()
            .await
            .expect("pgbench runs");
        assert!(made.success(), "pgbench could not make its tables");
        bench
    }

    /// Starts pgbench with these arguments.
    pub fn pgbench(&self, arguments: &[&str]) -> Child {
        Command::new(self.server.programs().join("pgbench"))
            .args([
                "-h",
                self.server.host(),
                "-p",
                &self.server.port().to_string(),
                "-U",
                self.server.user(),
            ])
            .args(arguments)
            .arg(&self.database)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("pgbench is installed")
    }

    /// Puts the accounts into a random order, in which [`Bench::update`] takes them.
    pub async fn choose(&self) {
        let sql = "CREATE TABLE chosen AS SELECT aid, row_number() OVER () AS place \
                   FROM (SELECT aid FROM pgbench_accounts ORDER BY random()) a";
        self.server.sql(&self.database, sql).await;
        let sql = "CREATE INDEX ON chosen (place); ANALYZE chosen";
        self.server.sql(&self.database, sql).await;
    }

    /// Updates so many accounts, each once, in small transactions.
    pub async fn update(&self, updates: u32) {
        let client = self.server.client(&self.database).await;
        let sql =
            "UPDATE pgbench_accounts a SET abalance = abalance + 1 FROM chosen c WHERE a.aid = c.aid AND c.place > $1 AND c.place <= $2";
        let update = client.prepare(sql).await.expect("a statement");
        for first in (0..updates).step_by(UPDATES_EACH as usize) {
            let bounds = (i64::from(first), i64::from(first + UPDATES_EACH));
            client.execute(&update, &[&bounds.0, &bounds.1]).await.expect("an update");
        }
    }

    /// Bytes of an account as text.
    pub async fn row_bytes(&self) -> f64 {
        let sql = "SELECT avg(length(a::text)) FROM (SELECT * FROM pgbench_accounts LIMIT 10000) a";
        self.server.value(&self.database, sql).await.parse().expect("a number")
    }

    pub fn slot(&self) -> String {
        format!("slot_{}", self.database)
    }

    /// Follows all tables by a pattern.
    pub fn configure(&self, name: &str) -> std::path::PathBuf {
        self.configure_with(name, "", "interval = \"200 ms\"")
    }

    /// With further options of the process, and others of `commit`.
    pub fn configure_with(&self, name: &str, process: &str, commit: &str) -> std::path::PathBuf {
        let url = format!(
            "postgresql://{}@{}:{}/{}",
            self.server.user(),
            self.server.host(),
            self.port,
            self.database
        );
        let text = format!(
            "lake = \"lake\"\n{process}\nhttp = {{ address = \"\" }}\n[pipelines.bench.postgres]\nurl = \"{url}\"\nslot = \"{}\"\n\
             create = true\nfollow = [\"public.pgbench_*\"]\n[pipelines.bench.commit]\n{commit}\n",
            self.slot()
        );
        self.site.configure(name, &text)
    }

    /// What the slot was told that is safe.
    pub async fn confirmed(&self) -> Option<u64> {
        self.server.confirmed(&self.slot()).await
    }

    /// The lowest position that all tables hold; None while one holds nothing.
    pub async fn held(&self) -> Option<u64> {
        self.each_held().await.into_iter().min().flatten()
    }

    /// The position that each table holds; None where it holds nothing.
    pub async fn each_held(&self) -> Vec<Option<u64>> {
        let (slot, mut each) = (self.slot(), Vec::new());
        for table in self.tables() {
            let log = Log::open(&table.url, Arc::clone(&table.store), "bench").await.expect("a log");
            let marks = log.map(|log| log.checkpoint()).unwrap_or_default();
            each.push(marks.named(&slot).map(|(_, at)| at.0));
        }
        each
    }

    pub fn tables(&self) -> Vec<Named> {
        let named = |table: &&str| {
            let folder = self.site.table("public").join(table);
            let url = Url::from_directory_path(folder).expect("an absolute path");
            Named {
                name: format!("public.{table}"),
                store: store::open(&url, &Default::default()).expect("a store"),
                url,
            }
        };
        TABLES.iter().map(named).collect()
    }

    /// Every position at which a table has a version, and the one where all tables have been copied.
    async fn marks(&self) -> (BTreeSet<u64>, u64) {
        let (mut marks, mut copied) = (BTreeSet::new(), 0);
        for table in self.tables() {
            let log = Log::open(&table.url, Arc::clone(&table.store), "")
                .await
                .expect("a log")
                .expect("a table");
            let history = log.history(usize::MAX).await.expect("a history");
            let said = history.iter().filter_map(|entry| entry.said.as_ref());
            let own: BTreeSet<u64> = said.flat_map(|said| said.positions.values().map(|(_, to)| *to)).collect();
            copied = copied.max(*own.first().expect("a copy"));
            marks.extend(own);
        }
        (marks, copied)
    }

    /// At each mark of any version, once all tables are there, the four sums are one, and at the end every table equals the server's.
    /// Returns how many marks there were.
    pub async fn verdict(&self) -> usize {
        let (tables, (marks, copied)) = (self.tables(), self.marks().await);
        let mut transactions = 0;
        for &mark in &marks {
            let mut at = Checkpoint::default();
            at.set(Lane::new(self.slot()), Position(mark));
            if mark < copied {
                let answer = query(SUMS, &tables, &When::Mark(at)).await;
                assert!(answer.is_err(), "at {mark} there is an answer, and a table was copied at {copied}");
                continue;
            }
            let row = &asked(SUMS, &tables, &When::Mark(at)).await[0];
            assert!(
                row[..4].iter().all(|sum| *sum == row[0]),
                "at {mark} the sums differ: {row:?} (copied at {copied})"
            );
            let so_far: u64 = row[4].parse().expect("a number");
            assert!(
                so_far >= transactions,
                "at {mark} there are {so_far} transactions, and before there were {transactions}"
            );
            transactions = so_far;
        }
        let of_branch = |bid: u32| format!("SELECT aid, bid, abalance, filler FROM public.pgbench_accounts WHERE bid = {bid} ORDER BY aid");
        for sql in ROWS.map(str::to_owned).into_iter().chain((1..=self.scale).map(of_branch)) {
            let here = asked(&sql, &tables, &When::Latest).await;
            let there = self.server.rows(&self.database, &sql).await.into_iter();
            let cells = |row: Vec<Option<String>>| row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".to_owned())).collect();
            let there: Vec<Vec<String>> = there.map(cells).collect();
            assert_eq!(here.len(), there.len(), "{sql}");
            assert!(here == there, "these differ from the server's: {sql}");
        }
        // And no others.
        let counts = TABLES.map(|table| format!("(SELECT count(*) FROM public.{table}) AS {table}"));
        let sql = format!("SELECT {}", counts.join(", "));
        let there: Vec<String> = self.server.rows(&self.database, &sql).await[0].iter().flatten().cloned().collect();
        assert_eq!(asked(&sql, &tables, &When::Latest).await, [there]);
        marks.len()
    }
}

/// What the lake answers, as text.
async fn asked(sql: &str, tables: &[Named], when: &When) -> Vec<Vec<String>> {
    let answer = query(sql, tables, when).await.expect("a query");
    rows(&answer.collect().await.expect("rows"))
}
