//! A real Apache Kafka broker (one node, KRaft), as users run it: its jars come from Maven Central by `scripts/fetch-kafka.sh`.
//!
//! A test that needs a broker and cannot have it fails; it is never skipped. [`Broker::shared`] is one broker for the whole run, where each
//! test makes topics of its own; a test that stops, restarts or configures a broker starts one with [`Broker::start`].

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// A first start takes 3 s on two free cores; a loaded machine takes ten times as long.
const START_MAX: Duration = Duration::from_secs(90);
const ANSWER_MAX: Duration = Duration::from_secs(30);
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
    ports: [u16; 2],
    keeper: Option<Child>,
    shared: bool,
    login: Vec<(String, String)>,
}

impl Broker {
    /// The broker that all tests of a run share.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Broker::begin("PLAINTEXT", "", &[], true))
    }

    /// Starts a broker of its own, with further lines for its `server.properties`.
    pub fn start(properties: &str) -> Broker {
        Self::begin("PLAINTEXT", properties, &[], false)
    }

    /// Starts a broker whose clients speak this protocol (`SSL`, `SASL_PLAINTEXT` …). `login`: what the clients of this support set for it.
    pub fn start_secured(protocol: &str, properties: &str, login: &[(&str, &str)]) -> Broker {
        Self::begin(protocol, properties, login, false)
    }

    fn begin(protocol: &str, properties: &str, login: &[(&str, &str)], shared: bool) -> Broker {
        let login = login
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let data = tempfile::tempdir().expect("a folder for the broker");
        let mut broker = Broker {
            data,
            ports: [free_port(), free_port()],
            keeper: None,
            shared,
            login,
        };
        broker.write("log4j2.properties", LOGGING);
        broker.write("server.properties", &broker.server_properties(protocol, properties));
        broker.format();
        broker.resume();
        broker
    }

    pub fn bootstrap(&self) -> String {
        format!("localhost:{}", self.ports[0])
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
        self.wait_until_it_serves();
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

    fn wait_until_it_serves(&mut self) {
        let deadline = Instant::now() + START_MAX;
        loop {
            // The port opens before the broker serves; its log says when it does.
            let log = std::fs::read_to_string(self.path("broker.log")).unwrap_or_default();
            if log.contains("Kafka Server started") && TcpStream::connect(("127.0.0.1", self.ports[0])).is_ok() {
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

    fn format(&self) {
        let mut command = Command::new("java");
        command
            .arg("-Xmx128m")
            .args(java_arguments(self.data.path()))
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER]);
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
        let [port, controller] = self.ports;
        let logs = self.path("logs");
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\nlisteners=CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
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
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let made = self.admin().create_topics([&topic], &options()).await.expect("the broker answers");
        made.into_iter().for_each(|made| drop(made.expect("the topic is made")));
        let is_led = |topic: &MetadataTopic| topic.partitions().iter().all(|partition| partition.leader() >= 0);
        self.until(name, |topic| topic.is_some_and(is_led)).await;
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
            let told = admin.inner().fetch_metadata(Some(name), ANSWER_MAX).expect("the broker answers");
            let there = |topic: &&MetadataTopic| topic.error().is_none() && !topic.partitions().is_empty();
            if is_so(told.topics().iter().find(there)) {
                return;
            }
            assert!(Instant::now() < deadline, "the broker does not hear what becomes of {name}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
        producer.flush(ANSWER_MAX).expect("the broker takes the records");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
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
fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port()
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
