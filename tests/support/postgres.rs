//! A real PostgreSQL server of the test's own, as users run it: Debian's packages, or what `scripts/fetch-postgres.sh` fetched.
//!
//! A test that needs a server and cannot have it fails; it is never skipped. [`PostgresServer::shared`] is one server for the whole run, where
//! each test makes a database of its own (slots are shared by all databases: name them after the test); a test that stops, crashes or
//! configures a server starts one with [`PostgresServer::start`].
//!
//! Connections over the unix socket are always trusted: that is how the helpers here get in, whatever a test asks of TCP connections.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use alluvium::sources::postgres::connection::{Address, Control, control};

use super::certificates::Certificates;
use super::kafka::{free_port, pause};
use super::proxy::Proxy;
use super::python::cache;

/// A start takes 0.3 s on two free cores, and recovery after a crash as long; a loaded machine takes many times as long.
const START_MAX: Duration = Duration::from_secs(60);
/// A stop takes as long; one that a client holds back takes for ever.
const STOP_MAX: Duration = Duration::from_secs(60);
/// What `wait_until` grants: things that take a second on a free machine. On two busy cores a start of the program alone takes some ten.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Waits for its standard input to end, and then ends the server as a crash does and removes its folder: so nothing outlives the tests,
/// however they end. A signal on the way is the server's own, and leaves the folder.
const KEEPER: &str = r#"exec 3<&0
"$@" </dev/null 3<&- & server=$!
(cat >/dev/null; : >"$FOLDER/abandoned"; kill -QUIT $server) 2>/dev/null <&3 & watch=$!
wait $server; kill $watch 2>/dev/null; [ ! -e "$FOLDER/abandoned" ] || rm -rf "$FOLDER""#;

/// How a server is started.
#[derive(Clone, Default)]
pub struct Options {
    /// `-c` settings, over those of [`SETTINGS`].
    settings: Vec<(String, String)>,
    /// The superuser's password; TCP connections are trusted without one.
    password: Option<String>,
    tls: bool,
    /// The whole of pg_hba.conf for TCP connections.
    hba: Option<String>,
    /// Beside those of the machine.
    locales: Vec<String>,
    server: Option<Installation>,
}

impl Options {
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
    /// TCP connections need this password, by SCRAM.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }
    /// The server has a certificate for `localhost` (not for 127.0.0.1), and refuses TCP connections without TLS.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
    /// These lines decide who may come in over TCP.
    pub fn hba(mut self, lines: &str) -> Self {
        self.hba = Some(lines.to_owned());
        self
    }
    /// A WAL as servers have that are tuned for writes, for benches. That of [`SETTINGS`] is so short that one checkpoint follows the other,
    /// and the first change of a page behind each writes the whole page: of small updates of random rows nearly all WAL is such pages then,
    /// ten times the rest. The server's process that decodes has to read over them, and sends little more than half as many changes in the
    /// same CPU time.
    pub fn for_writes(self) -> Self {
        self.set("max_wal_size", "16GB").set("checkpoint_timeout", "1h")
    }
    /// The server knows these locales, whether the machine does or not: `ja_JP.UTF-8`. It takes a second or two to make one.
    pub fn locales(mut self, names: &[&str]) -> Self {
        self.locales = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }
    /// This server instead of the default one.
    pub fn on(mut self, server: &Installation) -> Self {
        self.server = Some(server.clone());
        self
    }

    fn hba_lines(&self) -> String {
        let kind = if self.tls { "hostssl" } else { "host" };
        let method = if self.password.is_some() { "scram-sha-256" } else { "trust" };
        let tcp = self
            .hba
            .clone()
            .unwrap_or_else(|| format!("{kind} all all 127.0.0.1/32 {method}\n"));
        format!("local all all trust\nlocal replication all trust\n{tcp}\n")
    }
}

/// Small and quick, and with room for the slots of many tests. Nothing here survives a power cut; it survives a crash of the server.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("max_wal_senders", "60"),
    ("max_replication_slots", "400"),
    ("max_prepared_transactions", "20"),
    ("max_connections", "100"),
    ("shared_buffers", "32MB"),
    ("max_wal_size", "256MB"),
    ("fsync", "off"),
    ("log_min_messages", "info"),
    ("log_line_prefix", "%m [%p] %a "),
    // What a session shows must not depend on these: they are unlike what most servers have.
    ("timezone", "Asia/Kathmandu"),
    ("datestyle", "German, DMY"),
    ("intervalstyle", "sql_standard"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "0"),
];

/// A running server. It ends, with all that it wrote, with its last use.
pub struct PostgresServer {
    folder: tempfile::TempDir,
    options: Options,
    installation: Installation,
    port: u16,
    keeper: Option<Child>,
    certificates: Option<Certificates>,
}

impl PostgresServer {
    /// The server that all tests of a run share.
    pub fn shared() -> &'static PostgresServer {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Options::default()))
    }

    /// Starts a server of its own.
    pub fn start(options: Options) -> PostgresServer {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().expect("a folder for the server");
        // The server's user must pass through it.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("the folder is ours");
        let installation = options.server.clone().unwrap_or_else(Installation::default_one).reachable();
        let certificates = options.tls.then(|| Certificates::make(&folder.path().join("tls")));
        let mut server = PostgresServer {
            folder,
            options,
            installation,
            port: free_port(),
            keeper: None,
            certificates,
        };
        server.initialise();
        server.resume();
        server
    }

    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }
    pub fn port(&self) -> u16 {
        self.port
    }
    pub fn user(&self) -> &'static str {
        "postgres"
    }
    /// The major version: 15.
    pub fn version(&self) -> u32 {
        self.installation.version
    }
    /// Whether it is of this version or newer. Where it is not, it is said that the test does nothing more.
    pub fn is_since(&self, version: u32) -> bool {
        let is_so = self.version() >= version;
        if !is_so {
            tell_of_an_older(self.version(), version);
        }
        is_so
    }
    /// The folder of the unix socket: what a client gives as its host.
    pub fn socket(&self) -> &Path {
        self.folder.path()
    }
    /// The certificates of a server with TLS.
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("the server was started with TLS")
    }
    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }
    /// The folder of programs such as pgbench; those of the fetched servers are Debian's.
    pub fn programs(&self) -> PathBuf {
        let own = self.installation.folder.clone();
        if own.join("pgbench").is_file() {
            return own;
        }
        let with_clients = Installation::installed()
            .into_iter()
            .find(|one| one.folder.join("pgbench").is_file());
        with_clients.unwrap_or_else(|| panic!("{MISSING}")).folder
    }

    /// Stops the server as an operator does: sessions are ended, a walsender sends what there is.
    pub fn stop(&mut self) {
        self.end(libc::SIGINT);
    }

    /// Ends the server at once; the next start recovers.
    pub fn crash(&mut self) {
        self.end(libc::SIGQUIT);
    }

    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    /// Starts a standby of it, of what it has now. It follows with all that comes, until it is cut off.
    pub fn standby(&self) -> PostgresServer {
        self.standby_with(&[])
    }

    /// The same with these settings.
    pub fn standby_with(&self, settings: &[(&str, &str)]) -> PostgresServer {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().expect("a folder for the server");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("the folder is ours");
        let mut standby = PostgresServer {
            folder,
            options: Options::default(),
            installation: self.installation.clone(),
            port: free_port(),
            keeper: None,
            certificates: None,
        };
        self.installation.give(standby.folder.path());
        // As after a crash: of the fetched servers there is no pg_basebackup of their version.
        self.freeze();
        self.copy_to(standby.path("data"));
        self.thaw();
        // Slots are no part of a standby.
        let slots = standby.path("data/pg_replslot");
        std::fs::remove_dir_all(&slots).expect("the slots");
        std::fs::create_dir(&slots).expect("no slots");
        self.installation.give(&slots);
        std::fs::write(standby.path("data/standby.signal"), "").expect("the standby's folder can be written");
        let primary = format!(
            "host={} port={} user={} dbname=postgres",
            self.socket().display(),
            self.port,
            self.user()
        );
        let settings = [&[("primary_conninfo", primary.as_str())][..], settings].concat();
        standby.options = settings
            .iter()
            .fold(Options::default(), |options, (name, value)| options.set(name, value));
        standby.resume();
        standby
    }

    /// A standby starts again without its primary, and with a slot as that has it.
    pub fn cut_off(&mut self, primary: &PostgresServer, slot: &str) {
        self.stop();
        let (of, to) = (
            primary.path("data/pg_replslot").join(slot),
            self.path("data/pg_replslot").join(slot),
        );
        std::fs::create_dir(&to).expect("the slot's folder");
        std::fs::copy(of.join("state"), to.join("state")).expect("the slot's state");
        self.installation.give(&to);
        self.installation.give(&to.join("state"));
        self.options = std::mem::take(&mut self.options).set("primary_conninfo", "");
        self.resume();
    }

    /// Lengthens a table's file by pages that nothing was ever written to, which take no room on the disk. It must end below 1 GiB.
    pub async fn lengthen(&mut self, database: &str, table: &str, bytes: u64) {
        let file = self.value(database, &format!("SELECT pg_relation_filepath('{table}')")).await;
        self.stop();
        let file = std::fs::File::options().write(true).open(self.path("data").join(file));
        file.and_then(|file| file.set_len(bytes)).expect("the table's file");
        self.resume();
    }

    /// Keeps a copy of all that the server has on its disk, as a snapshot does.
    pub fn keep(&mut self) {
        self.stop();
        self.copy_to(self.path("kept"));
        self.resume();
    }

    /// Copies all that lies on its disk.
    fn copy_to(&self, place: PathBuf) {
        let copied = self.installation.command("cp").arg("-a").args([self.path("data"), place]).status();
        assert!(copied.expect("cp starts").success(), "the server's files are copied");
    }

    /// Sets the server back to what was kept.
    pub fn set_back(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.path("data")).expect("the server's files");
        std::fs::rename(self.path("kept"), self.path("data")).expect("the files that were kept");
        self.resume();
    }

    /// Stops all processes of the server where they are, until [`PostgresServer::thaw`]: it holds its connections and is silent.
    pub fn freeze(&self) {
        self.signal_all(libc::SIGSTOP);
    }
    pub fn thaw(&self) {
        self.signal_all(libc::SIGCONT);
    }

    /// Starts the server again on what it has, and waits until it serves.
    pub fn resume(&mut self) {
        assert!(self.keeper.is_none(), "the server runs");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("server.log"))
            .expect("the server's log");
        let _ = std::fs::remove_file(self.path("data/postmaster.pid"));
        let mut command = self.installation.command("sh");
        // Descriptor 3 is the pipe: a shell gives what it starts in the background an empty standard input.
        command.args(["-c", KEEPER, "keeper"]);
        command.arg(self.installation.folder.join("postgres"));
        command.arg("-D").arg(self.path("data"));
        command.arg("-k").arg(self.folder.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for (name, value) in SETTINGS {
            command.args(["-c", &format!("{name}={value}")]);
        }
        for (name, value) in &self.options.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        if let Some(certificates) = &self.certificates {
            command.args(["-c", "ssl=on"]);
            for (name, file) in certificates.server_settings() {
                command.args(["-c", &format!("{name}={}", file.display())]);
            }
        }
        command.env("FOLDER", self.folder.path());
        if !self.options.locales.is_empty() {
            command.env("LOCPATH", self.path("locales"));
        }
        let stderr = log.try_clone().expect("the server's log");
        self.keeper = Some(command.stdin(Stdio::piped()).stdout(log).stderr(stderr).spawn().expect("sh starts"));
        self.wait_until_it_serves();
    }

    fn wait_until_it_serves(&mut self) {
        let deadline = Instant::now() + START_MAX;
        loop {
            // The server's own word: the last line of its pid file says `ready` when it takes connections.
            let state = std::fs::read_to_string(self.path("data/postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            let ended = self
                .keeper
                .as_mut()
                .is_some_and(|keeper| keeper.try_wait().is_ok_and(|status| status.is_some()));
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            assert!(
                !ended && Instant::now() < deadline,
                "PostgreSQL does not start. Its last words, backwards:\n{}",
                tail.join("\n")
            );
            pause(Duration::from_millis(10));
        }
    }

    fn initialise(&self) {
        let data = self.path("data");
        std::fs::create_dir(&data).expect("the server's folder can be written");
        self.installation.give(&data);
        self.installation.give(self.folder.path()); // for the socket
        if let Some(certificates) = &self.certificates {
            certificates.for_the_server().for_each(|file| self.installation.give(&file));
            self.installation.give(&self.path("tls"));
        }
        let password = self.options.password.clone().unwrap_or_else(|| "unused".to_owned());
        std::fs::write(self.path("password"), password).expect("the server's folder can be written");
        self.installation.give(&self.path("password"));
        self.make_locales();
        let output = self
            .installation
            .command(self.installation.folder.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"])
            .args(["-A", "scram-sha-256", "--pwfile"])
            .arg(self.path("password"))
            .output()
            .expect("initdb starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the server's folder could not be made: {said}");
        let hba = data.join("pg_hba.conf");
        std::fs::write(&hba, self.options.hba_lines()).expect("the server's folder can be written");
    }

    /// All at once, of what glibc has to make them of.
    fn make_locales(&self) {
        let make = |name: &String| {
            let (of, letters) = name.split_once('.').expect("a locale with its letters");
            std::fs::create_dir_all(self.path("locales")).expect("the server's folder can be written");
            let mut command = Command::new("localedef");
            command
                .args(["--no-archive", "-i", of, "-f", letters])
                .arg(self.path("locales").join(name));
            command.spawn().expect("localedef starts")
        };
        let making: Vec<Child> = self.options.locales.iter().map(make).collect();
        for mut made in making {
            let status = made.wait().expect("localedef can be waited for");
            assert!(status.success(), "locales are made of what Debian calls locales: {status}");
        }
    }

    /// Other lines decide from now on who may come in over TCP.
    pub fn set_hba(&mut self, lines: &str) {
        self.options.hba = Some(lines.to_owned());
        std::fs::write(self.path("data/pg_hba.conf"), self.options.hba_lines()).expect("the server's folder can be written");
        self.signal(self.postmaster(), libc::SIGHUP);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn postmaster(&self) -> i32 {
        let state = std::fs::read_to_string(self.path("data/postmaster.pid")).expect("the server runs");
        state
            .lines()
            .next()
            .and_then(|pid| pid.parse().ok())
            .expect("the server's pid file begins with its pid")
    }

    fn end(&mut self, signal: i32) {
        let Some(mut keeper) = self.keeper.take() else { return };
        self.signal(self.postmaster(), signal);
        let deadline = Instant::now() + STOP_MAX;
        while keeper.try_wait().expect("the keeper can be asked").is_none() {
            if Instant::now() >= deadline {
                // It is dropped with its server.
                self.keeper = Some(keeper);
                panic!("PostgreSQL does not stop within {STOP_MAX:?}");
            }
            pause(Duration::from_millis(10));
        }
    }

    fn signal(&self, process: i32, signal: i32) {
        // SAFETY: a plain system call; the process is the server that this very struct started, or a child of it. A child may have ended.
        unsafe { libc::kill(process, signal) };
    }

    fn signal_all(&self, signal: i32) {
        let postmaster = self.postmaster();
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        self.signal(postmaster, signal);
        for child in children.split_whitespace() {
            self.signal(child.parse().expect("a process id"), signal);
        }
    }

    /// The address for clients over TCP, without a password and TLS.
    pub fn address(&self, database: &str) -> Address {
        Address {
            port: self.port,
            ..Address::new(self.host(), self.user(), database)
        }
    }

    /// A session of ours in this database, which everything takes so much longer for, each way: statements of others come between two of its
    /// answers. It ends with the proxy.
    pub async fn slow_session(&self, database: &str, delay: Duration) -> (Proxy, Control) {
        let proxy = Proxy::before(self.port).await;
        proxy.delay(delay);
        let address = Address {
            port: proxy.port(),
            ..self.address(database)
        };
        let session = control(&address).await.expect("a session");
        (proxy, session)
    }

    /// Waits until a session of the program's in this database has last asked something with these words.
    pub async fn until_asked(&self, database: &str, words: &str) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'alluvium%' AND strpos(query, '{words}') > 0"
        );
        wait_until(&format!("`{words}` is asked"), async || self.value(database, &sql).await != "0").await;
    }

    /// A session in this database, over the unix socket. It ends with the client.
    pub async fn client(&self, database: &str) -> Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.socket())
            .port(self.port)
            .user(self.user())
            .dbname(database)
            .connect(NoTls)
            .await
            .expect("the server takes a session");
        tokio::spawn(connection);
        client
    }

    /// Makes an empty database with a name of its own, and returns that name.
    pub async fn database(&self, name: &str) -> String {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let name = format!("{name}_{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}")).await;
        name
    }

    /// Runs statements in a session of their own. Several in one text are one transaction.
    pub async fn sql(&self, database: &str, sql: &str) {
        let outcome = self.client(database).await.batch_execute(sql).await;
        outcome.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The rows of a query as text, in a session of its own.
    pub async fn rows(&self, database: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        let answer = self.client(database).await.simple_query(sql).await;
        let messages = answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
            _ => None,
        });
        rows.collect()
    }

    /// The one value of a query as text; empty for null and for no row.
    pub async fn value(&self, database: &str, sql: &str) -> String {
        let first = self.rows(database, sql).await.into_iter().next();
        first.and_then(|row| row.into_iter().next().flatten()).unwrap_or_default()
    }

    /// What a slot was told that is safe; None where there is no such slot.
    pub async fn confirmed(&self, slot: &str) -> Option<u64> {
        let sql = format!("SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'");
        let text = self.value("postgres", &sql).await;
        (!text.is_empty()).then(|| text.parse().expect("a number"))
    }

    /// The process that reads a slot; empty while none does.
    pub async fn walsender(&self, slot: &str) -> String {
        let sql = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'");
        self.value("postgres", &sql).await
    }

    /// Waits until somebody reads a slot, or makes it.
    pub async fn until_read(&self, slot: &str) {
        wait_until("the slot is read", async || !self.walsender(slot).await.is_empty()).await;
    }

    /// Ends the session that reads a slot, as an administrator does; its number.
    pub async fn end_walsender(&self, slot: &str) -> String {
        let pid = self.walsender(slot).await;
        self.value("postgres", &format!("SELECT pg_terminate_backend({pid})")).await;
        pid
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.keeper.is_none() {
            return;
        }
        if std::fs::read_to_string(self.path("data/postmaster.pid")).is_ok() {
            self.signal_all(libc::SIGCONT);
        }
        // The end of the pipe is the keeper's sign.
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

const MISSING: &str = "These tests need a PostgreSQL server, 14 or newer: run scripts/setup.sh test, or install what Debian calls postgresql and \
                       postgresql-contrib, or run scripts/fetch-postgres.sh, or set ALLUVIUM_POSTGRES_BIN to the folder of a server's programs.";

/// The programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Where initdb and postgres lie.
    pub folder: PathBuf,
    /// The major version: 15.
    pub version: u32,
}

impl Installation {
    /// All versions on this machine, newest first, one of each; `ALLUVIUM_POSTGRES_BIN` alone if it is set.
    pub fn all() -> Vec<Installation> {
        if let Some(folder) = std::env::var_os("ALLUVIUM_POSTGRES_BIN") {
            let one = Self::at(Path::new(&folder));
            return vec![one.unwrap_or_else(|| panic!("ALLUVIUM_POSTGRES_BIN = {}: no initdb and postgres lie there", folder.display()))];
        }
        Self::installed()
    }

    /// Those of [`Installation::all`] of this version or newer, for what servers can since then. None where `ALLUVIUM_POSTGRES_BIN` is an
    /// older one, which is said; a machine without one fails.
    pub fn since(version: u32) -> Vec<Installation> {
        let all = Self::all();
        let newest = all[0].version;
        let new: Vec<Installation> = all.into_iter().filter(|one| one.version >= version).collect();
        if new.is_empty() {
            let is_chosen = std::env::var_os("ALLUVIUM_POSTGRES_BIN").is_some();
            assert!(
                is_chosen,
                "this test needs PostgreSQL {version} or newer: run scripts/fetch-postgres.sh"
            );
            tell_of_an_older(newest, version);
        }
        new
    }

    /// All that this machine has.
    fn installed() -> Vec<Installation> {
        let mut found: Vec<Installation> = [Path::new("/usr/lib/postgresql"), &cache().join("postgres")]
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| Self::at(&entry.ok()?.path().join("bin")))
            .chain(on_the_path())
            .collect();
        // Stable, so of two with one version Debian's stays, which has the clients.
        found.sort_by_key(|one| std::cmp::Reverse(one.version));
        found.dedup_by_key(|one| one.version);
        assert!(!found.is_empty(), "{MISSING}");
        found
    }

    /// What a test gets that asks for no version: `ALLUVIUM_POSTGRES_BIN`, or else a server with its clients, or else the newest.
    pub fn default_one() -> Installation {
        let all = Self::all();
        all.iter().find(|one| one.folder.join("psql").is_file()).unwrap_or(&all[0]).clone()
    }

    fn at(folder: &Path) -> Option<Installation> {
        let folder = folder.canonicalize().ok()?;
        (folder.join("initdb").is_file() && folder.join("postgres").is_file()).then_some(())?;
        let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.split_whitespace().nth(2)?.split('.').next()?;
        let version = version.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
        Some(Installation { folder, version })
    }

    /// Root may not run a server, and another user may not look into root's home: then the programs are copied to where all can read them.
    fn reachable(self) -> Installation {
        if !we_are_root()
            || Command::new(self.folder.join("postgres"))
                .as_unprivileged()
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success())
        {
            return self;
        }
        let copy = std::env::temp_dir().join(format!("alluvium-postgres-{}", self.version));
        if !copy.join("bin/postgres").is_file() {
            let half = tempfile::Builder::new().prefix("pg").tempdir().expect("a temporary folder");
            let whole = self.folder.parent().expect("bin lies in a folder");
            let copied = Command::new("cp").arg("-a").arg(whole).arg(half.path().join("copy")).status();
            assert!(copied.is_ok_and(|status| status.success()), "{} can be copied", whole.display());
            std::fs::set_permissions(half.path().join("copy"), PermissionsExt::from_mode(0o755)).expect("the copy is ours");
            // Whoever comes second finds it there.
            let _ = std::fs::rename(half.path().join("copy"), &copy);
        }
        Installation {
            folder: copy.join("bin"),
            ..self
        }
    }

    /// A program that runs as a user who may run a server, in surroundings that are the same everywhere.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/tmp")
            .env("LANG", "C.UTF-8");
        command
            .env("LD_LIBRARY_PATH", self.folder.with_file_name("lib"))
            .current_dir("/tmp");
        if we_are_root() {
            command.as_unprivileged();
        }
        command
    }

    /// The server's user owns this file or folder from now on.
    fn give(&self, path: &Path) {
        if we_are_root() {
            let (user, group) = unprivileged_user();
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root may give files away");
        }
    }
}

/// Of a test that passes, the runner keeps what is printed: this is seen all the same.
fn tell_of_an_older(version: u32, needed: u32) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("{test}: not on PostgreSQL {version}, it needs {needed} or newer\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
}

trait AsUnprivileged {
    fn as_unprivileged(&mut self) -> &mut Self;
}
impl AsUnprivileged for Command {
    fn as_unprivileged(&mut self) -> &mut Self {
        let (user, group) = unprivileged_user();
        self.uid(user).gid(group)
    }
}

fn we_are_root() -> bool {
    // SAFETY: a plain system call without arguments.
    unsafe { libc::geteuid() == 0 }
}

/// The user `postgres` of Debian's packages, or nobody.
fn unprivileged_user() -> (u32, u32) {
    static USER: OnceLock<(u32, u32)> = OnceLock::new();
    *USER.get_or_init(|| {
        let find = |name: &str| {
            let name = CString::new(name).expect("no zero in it");
            // SAFETY: the name is a C string, and the answer is read before anyone asks again: this runs once.
            unsafe { libc::getpwnam(name.as_ptr()).as_ref().map(|user| (user.pw_uid, user.pw_gid)) }
        };
        find("postgres").or_else(|| find("nobody")).expect("a user who may run a server")
    })
}

fn on_the_path() -> Option<Installation> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("postgres"))
        .find(|file| file.is_file())
        .and_then(|file| {
            // Where a link leads to are the other programs too.
            Installation::at(file.canonicalize().ok()?.parent()?)
        })
}

/// Asks again and again until it is so; fails with this text if it does not become so.
pub async fn wait_until(what: &str, is_so: impl AsyncFnMut() -> bool) {
    wait_within(WAIT_MAX, what, is_so).await;
}

/// The same for what takes longer.
pub async fn wait_within(within: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so().await {
        assert!(Instant::now() < deadline, "did not happen within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
