//! Real Apache Kafka brokers (KRaft), as users run them: their jars come from Maven Central by `scripts/fetch-kafka.sh`.
//!
//! A test that needs a broker and cannot have it fails; it is never skipped. [`Broker::shared`] is one broker for the whole run, where each
//! test makes topics of its own; a test that stops, restarts or configures a broker starts one with [`Broker::start`], and several that are
//! one cluster with [`Broker::cluster`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// A first start takes 3 s on two free cores; a loaded machine takes ten times as long.
const START_MAX: Duration = Duration::from_secs(180);
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Behind a broker that was away, a producer goes on when it has found it again.
const PRODUCED_MAX: Duration = Duration::from_secs(120);
/// How long one of several brokers may take to tell what it has heard. Whether those answer that are away, nobody waits for.
const TELL_MAX: Duration = Duration::from_secs(5);
/// For a broker that is not to be given up by its own controller when the machine, or a test, holds it up. Once it is, its partitions have no
/// leader for a moment when it goes on.
pub const NEVER_GIVEN_UP: &str = "broker.session.timeout.ms=600000\n";
const CLUSTER: &str = "YWxsdXZpdW0tdGVzdHMhIQ";

/// Waits for its standard input to end, and then ends the broker: so a broker never outlives the tests, however they end. What the whole
/// run shares is never dropped, so the keeper also removes the folder of that.
const KEEPER: &str = r#""$@" </dev/null & broker=$!; echo $broker >"$PID_FILE"; cat >/dev/null; kill -9 $broker 2>/dev/null; wait $broker
[ -z "$SCRATCH" ] || rm -rf "$SCRATCH""#;

const LOGGING: &str = "status = error\n\
    appender.out.type = Console\nappender.out.name = OUT\nappender.out.layout.type = PatternLayout\n\
    appender.out.layout.pattern = %d{HH:mm:ss.SSS} %-5p %m (%c{1})%n\n\
    rootLogger.level = info\nrootLogger.appenderRef.out.ref = OUT\n";

/// A running broker. Ends with its last use.
pub struct Broker {
    data: tempfile::TempDir,
    /// Its place among the nodes of its cluster.
    node: usize,
    nodes: Vec<Ports>,
    keeper: Option<Child>,
    shared: bool,
    login: Vec<(String, String)>,
}

/// A broker's, for its clients and for controllers.
type Ports = [u16; 2];

/// What clients need to get in.
#[derive(Clone, Copy)]
pub struct Door<'a> {
    /// `SSL`, `SASL_PLAINTEXT` …
    pub protocol: &'a str,
    /// What the clients of this support set for it.
    pub login: &'a [(&'a str, &'a str)],
    /// Users that log in by SCRAM, as the broker's folder is formatted with them: `SCRAM-SHA-256=[name=…,password=…]`.
    pub scram: &'a [&'a str],
}

impl<'a> Door<'a> {
    /// By SASL alone. The clients of this support log in as `admin`, by PLAIN, with the name for a password.
    pub fn sasl(scram: &'a [&'a str]) -> Self {
        let login = &[
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "admin"),
            ("sasl.password", "admin"),
        ];
        Self {
            protocol: "SASL_PLAINTEXT",
            login,
            scram,
        }
    }
}

/// None at all.
const OPEN: Door = Door {
    protocol: "PLAINTEXT",
    login: &[],
    scram: &[],
};

impl Broker {
    /// The broker that all tests of a run share.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Broker::begin(OPEN, NEVER_GIVEN_UP, true))
    }

    /// Starts a broker of its own, with further lines for its `server.properties`.
    pub fn start(properties: &str) -> Broker {
        Self::begin(OPEN, properties, false)
    }

    /// Starts a broker behind such a door. Nobody stops it.
    pub fn start_secured(door: Door<'_>, properties: &str) -> Broker {
        Self::begin(door, &format!("{NEVER_GIVEN_UP}{properties}"), false)
    }

    /// Starts a cluster of so many brokers, with further lines for their `server.properties`. All of them have all records, if these say
    /// nothing else. Clients of any are told of all, and whichever leads a partition at first leads it again a second after it has come back.
    pub fn cluster(nodes: usize, properties: &str) -> Vec<Broker> {
        let properties = format!(
            "default.replication.factor={nodes}\nmin.insync.replicas={most}\noffsets.topic.replication.factor={nodes}\n\
             transaction.state.log.replication.factor={nodes}\ntransaction.state.log.min.isr={most}\n\
             leader.imbalance.check.interval.seconds=1\nleader.imbalance.per.broker.percentage=1\n{properties}\n",
            most = nodes / 2 + 1
        );
        let ports: Vec<Ports> = (0..nodes).map(|_| [free_port(), free_port()]).collect();
        let prepared = (0..nodes).map(|node| Broker::prepared(node, ports.clone(), OPEN, &properties, false));
        let mut brokers: Vec<Broker> = prepared.collect();
        // Most of them together make a cluster that serves, and none alone.
        brokers.iter_mut().for_each(Broker::launch);
        brokers.iter().for_each(Broker::wait_until_it_serves);
        brokers
    }

    fn begin(door: Door<'_>, properties: &str, shared: bool) -> Broker {
        let mut broker = Broker::prepared(0, vec![[free_port(), free_port()]], door, properties, shared);
        broker.resume();
        broker
    }

    /// One that has not been started yet.
    fn prepared(node: usize, nodes: Vec<Ports>, door: Door<'_>, properties: &str, shared: bool) -> Broker {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let broker = Broker {
            data: tempfile::tempdir().expect("a folder for the broker"),
            node,
            nodes,
            keeper: None,
            shared,
            login: door.login.iter().map(owned).collect(),
        };
        broker.write("log4j2.properties", LOGGING);
        broker.write("server.properties", &broker.server_properties(door.protocol, properties));
        broker.format(door.scram);
        broker
    }

    /// All brokers of its cluster, as a client is told of them.
    pub fn bootstrap(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|[port, _]| format!("localhost:{port}")).collect();
        hosts.join(",")
    }

    /// Its number in its cluster.
    pub fn id(&self) -> i32 {
        self.node as i32 + 1
    }

    /// Kills the broker as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            keeper.wait().expect("the keeper ends");
        }
    }

    /// Starts the broker again on what it has, and waits until it serves.
    pub fn resume(&mut self) {
        self.launch();
        self.wait_until_it_serves();
    }

    fn launch(&mut self) {
        assert!(self.keeper.is_none(), "the broker runs");
        let log = std::fs::File::create(self.path("broker.log")).expect("the broker's log");
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEPER, "keeper", "java"])
            .env("PID_FILE", self.path("broker.pid"));
        command.env("SCRATCH", if self.shared { self.data.path() } else { Path::new("") });
        command
            .args(["-Xms256m", "-Xmx256m"])
            .args(java_arguments(self.data.path()))
            .arg("kafka.Kafka")
            .arg(self.path("server.properties"));
        let stderr = log.try_clone().expect("the broker's log");
        self.keeper = Some(command.stdin(Stdio::piped()).stdout(log).stderr(stderr).spawn().expect("sh starts"));
    }

    /// The broker answers nobody until [`Broker::thaw`], as over a network that is cut.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let text = std::fs::read_to_string(self.path("broker.pid")).expect("the keeper writes it");
        let pid: libc::pid_t = text.trim().parse().expect("a process");
        // SAFETY: the broker is our own child's child, and is not waited for before it is killed.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the broker takes the signal");
    }

    /// Removes all records of a partition, while the broker is down: the topic stays the same by its id.
    pub fn empty_partition(&self, topic: &str, partition: i32) {
        assert!(self.keeper.is_none(), "the broker is down");
        let folder = self.path("logs").join(format!("{topic}-{partition}"));
        for entry in std::fs::read_dir(folder).expect("the partition's folder") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_none_or(|name| name != "partition.metadata") {
                std::fs::remove_file(path).expect("a file of the log");
            }
        }
    }

    fn wait_until_it_serves(&self) {
        let [port, _] = self.nodes[self.node];
        let deadline = Instant::now() + START_MAX;
        loop {
            // The port opens before the broker serves; its log says when it does.
            let log = std::fs::read_to_string(self.path("broker.log")).unwrap_or_default();
            if log.contains("Kafka Server started") && TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return;
            }
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            let ended = log.contains("Exiting Kafka") || log.contains("Error: ");
            assert!(
                !ended && Instant::now() < deadline,
                "Kafka does not start. Its last words, backwards:\n{}",
                tail.join("\n")
            );
            pause(Duration::from_millis(50));
        }
    }

    fn format(&self, scram: &[&str]) {
        let mut command = Command::new("java");
        command
            .arg("-Xmx128m")
            .args(java_arguments(self.data.path()))
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER]);
        for user in scram {
            command.args(["--add-scram", *user]);
        }
        let output = command
            .arg("-c")
            .arg(self.path("server.properties"))
            .output()
            .expect("java: install a Java runtime, 17 or newer");
        assert!(
            output.status.success(),
            "the broker's folder could not be formatted: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the broker's folder can be written");
    }

    fn server_properties(&self, protocol: &str, more: &str) -> String {
        let [port, controller] = self.nodes[self.node];
        let (id, logs) = (self.id(), self.path("logs"));
        // Controllers decide by majority: of two, neither could do without the other.
        let controllers = if self.nodes.len() < 3 { 1 } else { self.nodes.len() };
        let (roles, listener) = match self.node < controllers {
            true => ("broker,controller", format!(",CONTROLLER://127.0.0.1:{controller}")),
            false => ("broker", String::new()),
        };
        let voters = (1..)
            .zip(&self.nodes[..controllers])
            .map(|(id, [_, port])| format!("{id}@127.0.0.1:{port}"));
        let voters = voters.collect::<Vec<_>>().join(",");
        let mut text = format!(
            "process.roles={roles}\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\nlisteners=CLIENT://127.0.0.1:{port}{listener}\n\
             advertised.listeners=CLIENT://localhost:{port}\n\
             listener.security.protocol.map=CLIENT:{protocol},CONTROLLER:PLAINTEXT\ninter.broker.listener.name=CLIENT\n\
             log.dirs={}\n",
            logs.display()
        );
        // One node of everything; nothing made unasked; clean, delete and re-register soon, for tests wait for it.
        text.push_str(
            "offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\nauto.create.topics.enable=false\ngroup.initial.rebalance.delay.ms=0\n\
             num.network.threads=2\nnum.io.threads=4\nlog.cleaner.dedupe.buffer.size=16777216\nlog.cleaner.backoff.ms=200\n\
             log.retention.check.interval.ms=500\nlog.segment.delete.delay.ms=500\nlog.initial.task.delay.ms=500\n\
             broker.heartbeat.interval.ms=200\nbroker.session.timeout.ms=3000\ngroup.min.session.timeout.ms=1000\n",
        );
        writeln!(text, "{more}").expect("a string takes all");
        text
    }

    /// A client's configuration for this broker.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        for (name, value) in &self.login {
            config.set(name, value);
        }
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// Makes a topic with a name of its own and waits until it can be used.
    pub async fn topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.create_topic(&name, partitions, config).await;
        name
    }

    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1)); // As many as the brokers have by default.
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let made = self.admin().create_topics([&topic], &options()).await.expect("the broker answers");
        made.into_iter().for_each(|made| drop(made.expect("the topic is made")));
        self.until(name, |topic| topic.is_some_and(is_led)).await;
        self.until_all_know(name).await;
    }

    /// Waits until each broker of a cluster that answers knows a topic: one hears of it after the other, and a client may ask any.
    async fn until_all_know(&self, name: &str) {
        let others = self.nodes.iter().filter(|_| self.nodes.len() > 1);
        for [port, _] in others.filter(|[port, _]| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            // A client that has just been made knows no other broker.
            let ask = || {
                let mut config = self.client();
                config.set("bootstrap.servers", format!("localhost:{port}"));
                let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin client");
                admin.inner().fetch_metadata(Some(name), TELL_MAX)
            };
            let deadline = Instant::now() + START_MAX;
            while let Ok(told) = ask()
                && !told.topics().iter().any(|topic| is_there(topic) && is_led(topic))
            {
                assert!(Instant::now() < deadline, "the broker at {port} does not hear of {name}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    pub async fn delete_topic(&self, name: &str) {
        let gone = self.admin().delete_topics(&[name], &options()).await.expect("the broker answers");
        gone.into_iter().for_each(|gone| drop(gone.expect("the topic is deleted")));
    }

    /// Waits until the broker has heard that a topic is deleted.
    pub async fn until_gone(&self, name: &str) {
        self.until(name, |topic| topic.is_none()).await;
    }

    /// Waits until the broker says so of a topic. What is asked for is done by the controller, and the broker hears of it a moment later.
    async fn until(&self, name: &str, is_so: impl Fn(Option<&MetadataTopic>) -> bool) {
        let (admin, deadline) = (self.admin(), Instant::now() + START_MAX);
        loop {
            // One of them may be on its way down or up: then it is asked again.
            let told = admin.inner().fetch_metadata(Some(name), ANSWER_MAX);
            let is_told = |told: &Metadata| is_so(told.topics().iter().find(|topic| is_there(topic)));
            if told.as_ref().is_ok_and(is_told) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the broker does not hear what becomes of {name}: {:?}",
                told.err()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the brokers that lead this topic's partitions are such ones.
    pub async fn until_led(&self, topic: &str, by: impl Fn(&[i32]) -> bool) {
        let leaders = |topic: &MetadataTopic| topic.partitions().iter().map(|partition| partition.leader()).collect::<Vec<_>>();
        self.until(topic, |topic| topic.is_some_and(|topic| by(&leaders(topic)))).await;
    }

    /// The partitions of a topic that this broker leads. Waits until all of them are led: any broker may answer, and may hear of it last.
    pub fn leads(&self, topic: &str) -> Vec<i32> {
        let (admin, deadline) = (self.admin(), Instant::now() + START_MAX);
        loop {
            let told = admin.inner().fetch_metadata(Some(topic), ANSWER_MAX);
            let led = told
                .as_ref()
                .ok()
                .and_then(|told| told.topics().iter().find(|topic| is_there(topic) && is_led(topic)));
            if let Some(topic) = led {
                let led = topic.partitions().iter().filter(|partition| partition.leader() == self.id());
                return led.map(MetadataPartition::id).collect();
            }
            assert!(Instant::now() < deadline, "nobody says who leads {topic}: {:?}", told.err());
            pause(Duration::from_millis(20));
        }
    }

    /// What a topic's records take on disk here, as they were compressed.
    pub fn stored_bytes(&self, topic: &str) -> u64 {
        let folders = std::fs::read_dir(self.path("logs")).expect("the broker's logs").flatten();
        let partitions = folders.filter(|folder| {
            let name = folder.file_name().into_string().unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(name, _)| name == topic)
        });
        let files = partitions.flat_map(|folder| std::fs::read_dir(folder.path()).expect("a partition").flatten());
        let segments = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        segments.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
    }

    /// Adds partitions up to this number.
    pub async fn add_partitions(&self, topic: &str, partitions: usize) {
        let more = NewPartitions::new(topic, partitions);
        let made = self
            .admin()
            .create_partitions([&more], &options())
            .await
            .expect("the broker answers");
        made.into_iter().for_each(|made| drop(made.expect("partitions are added")));
    }

    /// Deletes all records before this offset, as retention would.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before))
            .expect("a valid offset");
        self.admin().delete_records(&list, &options()).await.expect("records are deleted");
    }

    /// A producer that writes each record once and in order. Further properties may be given.
    pub fn producer(&self, properties: &[(&str, &str)]) -> ThreadedProducer<rdkafka::producer::DefaultProducerContext> {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "2000000");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config.create().expect("a producer")
    }

    /// Produces records to one partition, and waits until the broker has them. A value of None is a tombstone.
    pub fn produce<K: AsRef<str>, V: AsRef<str>>(&self, topic: &str, partition: i32, records: impl IntoIterator<Item = (K, Option<V>)>) {
        let producer = self.producer(&[]);
        for (key, value) in records {
            send(&producer, topic, partition, key.as_ref(), value.as_ref().map(AsRef::as_ref));
        }
        producer.flush(PRODUCED_MAX).expect("the broker takes the records");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_there(topic: &MetadataTopic) -> bool {
    topic.error().is_none() && !topic.partitions().is_empty()
}

fn is_led(topic: &MetadataTopic) -> bool {
    topic.partitions().iter().all(|partition| partition.leader() >= 0)
}

/// Hands a record to a producer.
pub fn send<C: rdkafka::producer::ProducerContext<DeliveryOpaque = ()>>(
    producer: &ThreadedProducer<C>,
    topic: &str,
    partition: i32,
    key: &str,
    value: Option<&str>,
) {
    let mut record = BaseRecord::to(topic).partition(partition).key(key);
    if let Some(value) = value {
        record = record.payload(value);
    }
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("the producer takes the record");
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(ANSWER_MAX))
        .request_timeout(Some(ANSWER_MAX))
}

/// Waits on a thread of the test's own, where no runtime is at hand.
pub fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

/// A port of this machine that nobody listens on. Each is given out once in a run: until its owner listens, it is free for the next who asks.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return port;
        }
    }
}

fn java_arguments(data: &Path) -> Vec<String> {
    // Quick to start rather than quick in the long run.
    let mut arguments: Vec<String> = [
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xshare:auto",
        "-Djava.net.preferIPv4Stack=true",
        "-Djava.awt.headless=true",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("-Dlog4j2.configurationFile={}", data.join("log4j2.properties").display()));
    arguments.extend(["-cp".to_owned(), format!("{}/*", jars().display())]);
    arguments
}

/// Where the jars lie; fetched when they are not there.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch-kafka.sh");
        let mut fetch = Command::new(&script)
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/fetch-kafka.sh starts");
        let mut jar = String::new();
        fetch
            .stdout
            .take()
            .expect("it is piped")
            .read_to_string(&mut jar)
            .expect("the script prints text");
        assert!(
            fetch.wait().expect("the script ends").success(),
            "Kafka could not be fetched: run scripts/fetch-kafka.sh to see why"
        );
        Path::new(jar.trim()).parent().expect("a jar in a folder").to_owned()
    })
}
