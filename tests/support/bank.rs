//! A database of a test's own, the pipeline that follows it, and both sides read as text.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use alluvium::log::{Log, When, store};
use alluvium::query::{Named, query};
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use url::Url;

use super::postgres::{PostgresServer, wait_until};
use super::program::{Exit, Program, Site};
use super::proxy::Proxy;

/// What a run of the program may take that ends by itself: a second on a free machine.
const RUN_MAX: Duration = Duration::from_secs(120);

/// A database and its lake.
pub struct Bank<'s> {
    pub server: &'s PostgresServer,
    pub database: String,
    pub site: Site,
    pub config: PathBuf,
}

impl<'s> Bank<'s> {
    /// Runs `sql` in a new database; `lines` are the pipeline's options behind the connection, `{table}` sections included.
    pub async fn new(server: &'s PostgresServer, name: &str, sql: &str, lines: &str) -> Bank<'s> {
        let database = server.database(name).await;
        server.sql(&database, sql).await;
        Self::of(server, database, lines)
    }

    /// Of a database that is there.
    pub fn of(server: &'s PostgresServer, database: String, lines: &str) -> Bank<'s> {
        let site = Site::new();
        let config = configure(server, &database, &site, lines);
        Bank {
            server,
            database,
            site,
            config,
        }
    }

    /// Takes it from its server, which stops, or is another one from now on.
    pub fn parts(self) -> (String, Site) {
        (self.database, self.site)
    }

    /// The same database and lake, on this server.
    pub fn on(server: &'s PostgresServer, (database, site): (String, Site)) -> Bank<'s> {
        let config = site.path("bank.toml");
        Bank {
            server,
            database,
            site,
            config,
        }
    }

    /// The same database and lake with other options.
    pub fn reconfigure(&mut self, lines: &str) {
        self.config = configure(self.server, &self.database, &self.site, lines);
    }

    /// And with another `http`.
    pub fn reconfigure_with(&mut self, http: &str, lines: &str) {
        self.reconfigure(lines);
        self.edit("http = { address = \"\" }", http);
    }

    /// Has the configuration say something else.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        assert!(text.contains(from), "{from} is not in the configuration: {text}");
        std::fs::write(&self.config, text.replace(from, to)).expect("the configuration");
    }

    /// From here on a proxy stands before the server.
    pub async fn behind_proxy(&self) -> Proxy {
        let proxy = Proxy::before(self.server.port()).await;
        self.behind(proxy.port());
        proxy
    }

    /// From here on the server is reached by this port.
    pub fn behind(&self, port: u16) {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        let text = text.replace(&format!(":{}/", self.server.port()), &format!(":{port}/"));
        std::fs::write(&self.config, text).expect("the configuration");
    }

    pub fn slot(&self) -> String {
        format!("slot_{}", self.database)
    }

    pub async fn sql(&self, sql: &str) {
        self.server.sql(&self.database, sql).await;
    }

    pub async fn value(&self, sql: &str) -> String {
        self.server.value(&self.database, sql).await
    }

    /// Runs until all that is there is in the tables.
    pub async fn catch_up(&self) {
        self.site.catch_up(&self.config).await;
    }

    /// Waits until the slot was told that all is safe that the WAL holds now.
    pub async fn until_released(&self) {
        let end = self.value("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").await;
        let end: u64 = end.parse().expect("a number");
        let slot = self.slot();
        wait_until("the slot comes to the end of the WAL", async || {
            self.server.confirmed(&slot).await >= Some(end)
        })
        .await;
    }

    /// Runs until it ends by itself, as it must not do well; what it said.
    pub async fn refused(&self) -> (i32, String) {
        let mut program = self.start();
        let exit: Exit = program.wait(RUN_MAX).await;
        (exit.status.code().unwrap_or(-1), program.log_text())
    }

    /// What `alluvium check` says, with its exit code.
    pub async fn check(&self) -> (i32, String) {
        let config = self.config.to_str().expect("a path in UTF-8");
        let mut program = self.site.start("check", &["check", "--config", config]);
        let exit = program.wait(RUN_MAX).await;
        (exit.status.code().unwrap_or(-1), program.log_text())
    }

    /// Asks for another copy of a table; the exit code.
    pub async fn resnapshot(&self, table: &str) -> Option<i32> {
        let config = self.config.to_str().expect("a path in UTF-8");
        let mut asked = self.site.start("ask", &["resnapshot", "--config", config, table]);
        asked.wait(RUN_MAX).await.status.code()
    }

    /// Starts a run that ends when it has caught up.
    pub fn start(&self) -> Program {
        let config = self.config.to_str().expect("a path in UTF-8");
        self.site.start("program", &["run", "--until-caught-up", "--config", config])
    }

    /// A Delta table: `public.orders` for one that is followed by pattern.
    pub fn table(&self, name: &str) -> Named {
        table(&self.site, name)
    }

    /// The rows of a Delta table, sorted as text; null is `NULL`.
    pub async fn here(&self, sql: &str, tables: &[&str]) -> Vec<Vec<String>> {
        read(&self.site, sql, tables).await
    }

    /// The rows of the server, sorted as text.
    pub async fn there(&self, sql: &str) -> Vec<Vec<String>> {
        let null = || "NULL".to_owned();
        let row = |row: Vec<Option<String>>| row.into_iter().map(|cell| cell.unwrap_or_else(null)).collect();
        let mut rows: Vec<Vec<String>> = self.server.rows(&self.database, sql).await.into_iter().map(row).collect();
        rows.sort();
        rows
    }

    /// Both sides give the same answer.
    pub async fn agrees(&self, sql: &str, tables: &[&str]) {
        let (here, there) = (self.here(sql, tables).await, self.there(sql).await);
        assert!(here == there, "{sql}\nin the lake: {here:#?}\non the server: {there:#?}");
    }

    /// How many versions a table has.
    pub async fn versions(&self, name: &str) -> u64 {
        let table = self.table(name);
        let log = Log::open(&table.url, Arc::clone(&table.store), "")
            .await
            .expect("a log")
            .expect("a table");
        log.snapshot().version
    }

    /// How often a table that was there was told to be copied again. Other versions come and go with the time: a mark alone is one.
    pub fn copied_again(&self, name: &str) -> usize {
        let logs = self.site.table(&name.replace('.', "/")).join("_delta_log");
        let commits = std::fs::read_dir(logs).expect("a log").flatten().map(|entry| entry.path());
        let commits = commits.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
        let again = |path: &PathBuf| std::fs::read_to_string(path).expect("a commit").contains("\"RESNAPSHOT\"");
        commits.filter(again).count()
    }
}

fn configure(server: &PostgresServer, database: &str, site: &Site, lines: &str) -> PathBuf {
    let text = format!(
        "lake = \"lake\"\nhttp = {{ address = \"\" }}\n[pipelines.bank.commit]\ninterval = \"100 ms\"\nidle = \"1 s\"\n[pipelines.bank.postgres]\n\
         url = \"postgresql://{}@{}:{}/{database}\"\nslot = \"slot_{database}\"\npublication = \"pub_{database}\"\n{lines}",
        server.user(),
        server.host(),
        server.port(),
    );
    site.configure("bank", &text)
}

/// A Delta table of a site: `public.orders` lies in a folder of its schema.
fn table(site: &Site, name: &str) -> Named {
    let folder = site.table(&name.replace('.', "/"));
    let url = Url::from_directory_path(folder).expect("an absolute path");
    Named {
        name: name.to_owned(),
        store: store::open(&url, &Default::default()).expect("a store"),
        url,
    }
}

/// The rows of Delta tables of a site, sorted as text; null is `NULL`.
pub async fn read(site: &Site, sql: &str, tables: &[&str]) -> Vec<Vec<String>> {
    let tables: Vec<Named> = tables.iter().map(|name| table(site, name)).collect();
    for table in &tables {
        let log = Log::open(&table.url, Arc::clone(&table.store), "").await.expect("a log");
        if log.is_none() {
            return Vec::new(); // Its copy is not there yet.
        }
    }
    let frame = query(sql, &tables, &When::Latest).await.expect("a query");
    let mut rows = rows(&frame.collect().await.expect("rows"));
    rows.sort();
    rows
}

/// Rows as text.
pub fn rows(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).expect("text"))
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()));
    }
    rows
}
