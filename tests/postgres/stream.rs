//! The replication stream: what keeps it alive, what ends it, and what the server is told.

use std::time::{Duration, Instant};

use alluvium::error::{Error, Kind};
use alluvium::sources::postgres::connection::{Address, Frame, Frames, Replication, Stream};

use crate::support::postgres::{Options, PostgresServer, wait_until};
use crate::support::proxy::Proxy;

const BUFFER: usize = 1 << 20;
/// So long that a machine that stalls for some seconds does not make it seem that the server is gone.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// A database with a table `t` that is published as `p`, and a slot.
struct Bed<'a> {
    server: &'a PostgresServer,
    database: String,
    slot: String,
    address: Address,
}

impl<'a> Bed<'a> {
    async fn new(server: &'a PostgresServer, name: &str) -> Bed<'a> {
        let database = server.database(name).await;
        server
            .sql(
                &database,
                "CREATE TABLE t (id bigint PRIMARY KEY, body text); CREATE PUBLICATION p FOR TABLE t",
            )
            .await;
        let slot = format!("{database}_slot");
        server
            .rows(
                &database,
                &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
            )
            .await;
        let address = server.address(&database);
        Bed {
            server,
            database,
            slot,
            address,
        }
    }

    async fn start_with(&self, address: &Address, from: u64, buffer: usize) -> Result<Stream, Error> {
        let options = [("proto_version", "1".to_owned()), ("publication_names", "p".to_owned())];
        Replication::open(address).await?.start(&self.slot, from, &options, buffer).await
    }

    async fn start(&self) -> Stream {
        self.start_with(&self.address, 0, BUFFER).await.unwrap()
    }

    /// Inserts rows with these ids in one transaction.
    async fn insert(&self, ids: std::ops::Range<i64>, bytes: usize) {
        let (first, last) = (ids.start, ids.end - 1);
        let sql = format!("INSERT INTO t SELECT g, repeat('x', {bytes}) FROM generate_series({first}, {last}) g");
        self.server.sql(&self.database, &sql).await;
    }

    async fn confirmed(&self) -> u64 {
        self.server.confirmed(&self.slot).await.expect("the slot is there")
    }

    async fn active(&self) -> String {
        self.server.walsender(&self.slot).await
    }
}

/// What a test counts: inserts, and where the last commit ends.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    inserts: usize,
    commit: u64,
}

impl Seen {
    fn take(&mut self, frames: &Frames) {
        for frame in frames.iter() {
            let Frame::Data { end, data, .. } = frame else { continue };
            match data[0] {
                b'I' => self.inserts += 1,
                b'C' => {
                    // Its own word for where it ends, after flags and where it begins.
                    assert_eq!(u64::from_be_bytes(data[10..18].try_into().unwrap()), *end);
                    self.commit = *end;
                }
                _ => {}
            }
        }
    }

    async fn inserts(&mut self, stream: &mut Stream, inserts: usize) {
        let before = self.commit;
        while self.inserts < inserts || self.commit == before {
            self.take(&stream.next().await.unwrap());
        }
        assert_eq!(self.inserts, inserts);
    }
}

/// The error that ends a stream, and when it came.
async fn end(stream: &mut Stream) -> (Error, Duration) {
    let start = Instant::now();
    loop {
        if let Err(error) = stream.next().await {
            return (error, start.elapsed());
        }
    }
}

#[tokio::test]
async fn p12_the_session_lives_while_its_reader_is_away_for_longer_than_the_server_waits() {
    // So long that a machine that stalls for some seconds does not end the session.
    let server = PostgresServer::start(Options::default().set("wal_sender_timeout", "8s"));
    let bed = Bed::new(&server, "away").await;
    // Far more than the buffer and the sockets hold, so that the server itself has to wait.
    bed.insert(0..20_000, 1000).await;
    let mut stream = bed.start_with(&bed.address, 0, 64 << 10).await.unwrap();
    let mut seen = Seen::default();
    seen.take(&stream.next().await.unwrap());
    let pid = bed.active().await;
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(bed.active().await, pid);
    seen.inserts(&mut stream, 20_000).await;
    // And while there is nothing to send at all.
    tokio::time::sleep(Duration::from_secs(14)).await;
    bed.insert(20_000..20_001, 1).await;
    seen.inserts(&mut stream, 20_001).await;
    assert_eq!(bed.active().await, pid);
}

#[tokio::test]
async fn i3_p14_the_server_is_told_what_was_acknowledged_and_nothing_beyond() {
    let bed = Bed::new(PostgresServer::shared(), "told").await;
    let mut stream = bed.start().await;
    let start = bed.confirmed().await;
    let mut seen = Seen::default();
    bed.insert(0..10, 10).await;
    seen.inserts(&mut stream, 10).await;
    let first = seen.commit;
    bed.insert(10..20, 10).await;
    seen.inserts(&mut stream, 20).await;
    let second = seen.commit;
    assert!(start < first && first < second);
    // Long enough for some statuses.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(bed.confirmed().await, start);

    stream.acknowledge(first);
    wait_until("the slot is at the first commit", async || bed.confirmed().await != start).await;
    assert_eq!(bed.confirmed().await, first);

    // An acknowledgement that is too far is cut down to what was received; one that goes back is none.
    stream.acknowledge(u64::MAX);
    stream.acknowledge(start);
    wait_until("the slot is at the second commit", async || bed.confirmed().await != first).await;
    let confirmed = bed.confirmed().await;
    assert!(confirmed >= second, "{confirmed} is before {second}");
    bed.insert(20..21, 10).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(bed.confirmed().await, confirmed, "what came later is not acknowledged");
    seen.inserts(&mut stream, 21).await;
}

#[tokio::test]
async fn p13_an_idle_slot_follows_the_log_by_keep_alives() {
    let bed = Bed::new(PostgresServer::shared(), "idle").await;
    let mut stream = bed.start().await;
    // Not published, so nothing comes of it but that the log goes on.
    bed.server
        .sql(&bed.database, "CREATE TABLE other (x int); INSERT INTO other VALUES (1)")
        .await;
    let end: u64 = bed
        .server
        .value("postgres", "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
        .await
        .parse()
        .unwrap();
    let mut read = 0;
    while read < end {
        for frame in stream.next().await.unwrap().iter() {
            if let Frame::KeepAlive { end } = frame {
                read = *end;
            }
        }
    }
    stream.acknowledge(read);
    wait_until("the slot follows", async || bed.confirmed().await >= end).await;
}

#[tokio::test]
async fn a_closed_stream_leaves_its_last_word_and_frees_the_slot() {
    let bed = Bed::new(PostgresServer::shared(), "closed").await;
    let mut stream = bed.start().await;
    bed.insert(0..5, 10).await;
    let mut seen = Seen::default();
    seen.inserts(&mut stream, 5).await;
    stream.acknowledge(seen.commit);
    stream.close().await;
    wait_until("the slot is free", async || bed.active().await.is_empty()).await;
    assert_eq!(bed.confirmed().await, seen.commit);

    // In the middle of a transaction, with all buffers full, and merely dropped.
    bed.insert(5..20_005, 1000).await;
    let mut stream = bed.start_with(&bed.address, 0, 64 << 10).await.unwrap();
    stream.next().await.unwrap();
    let dropped = Instant::now();
    drop(stream);
    wait_until("the slot is free", async || bed.active().await.is_empty()).await;
    assert!(dropped.elapsed() < Duration::from_secs(30), "{:?}", dropped.elapsed());
    assert_eq!(bed.confirmed().await, seen.commit);
}

#[tokio::test]
async fn p15_a_cut_connection_and_a_silent_one_are_tried_again_later() {
    let bed = Bed::new(PostgresServer::shared(), "cut").await;
    let proxy = Proxy::before(bed.server.port()).await;
    let address = Address {
        port: proxy.port(),
        silence_max: SILENCE_MAX,
        ..bed.address.clone()
    };
    let mut stream = bed.start_with(&address, 0, BUFFER).await.unwrap();
    bed.insert(0..3, 10).await;
    let mut seen = Seen::default();
    seen.inserts(&mut stream, 3).await;
    proxy.cut();
    let (error, _) = end(&mut stream).await;
    assert_eq!(
        (error.kind, error.code, error.exit_code()),
        (Kind::Transient, "postgres_unreachable", 69),
        "{error}"
    );
    assert!(!error.to_string().contains("has said nothing for"), "it is told at once: {error}");
    wait_until("the slot is free", async || bed.active().await.is_empty()).await;

    // A slow line is not a dead one.
    proxy.delay(Duration::from_millis(300));
    let mut stream = bed.start_with(&address, seen.commit, BUFFER).await.unwrap();
    bed.insert(3..6, 10).await;
    seen.inserts(&mut stream, 6).await;
    let longer = tokio::time::Instant::now() + SILENCE_MAX + Duration::from_secs(3);
    while let Ok(frames) = tokio::time::timeout_at(longer, stream.next()).await {
        seen.take(&frames.unwrap());
    }
    while let Some(frames) = stream.try_next().unwrap() {
        seen.take(&frames);
    }
    proxy.delay(Duration::ZERO);

    proxy.stall();
    let (error, after) = end(&mut stream).await;
    assert_eq!((error.kind, error.code), (Kind::Transient, "postgres_unreachable"), "{error}");
    assert!(error.to_string().contains("has said nothing for"), "{error}");
    assert!(after > Duration::from_secs(1) && after < 5 * SILENCE_MAX, "{after:?}");
    assert_eq!(seen.inserts, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_a_stream_goes_on_after_the_server_crashed_or_restarted() {
    let mut server = PostgresServer::start(Options::default());
    let (slot, database, address) = {
        let bed = Bed::new(&server, "restart").await;
        (bed.slot, bed.database, bed.address)
    };
    let mut seen = Seen::default();
    for (round, crash) in [true, false].into_iter().enumerate() {
        let bed = Bed {
            server: &server,
            slot: slot.clone(),
            database: database.clone(),
            address: address.clone(),
        };
        // Whoever takes leave waits for the server only so long.
        wait_until("the slot is free", async || bed.active().await.is_empty()).await;
        let mut stream = bed.start_with(&bed.address, seen.commit, BUFFER).await.unwrap();
        let first = i64::try_from(round).unwrap() * 10;
        bed.insert(first..first + 5, 10).await;
        seen.inserts(&mut stream, round * 10 + 5).await;
        // Committed, and not yet read when the server ends.
        bed.insert(first + 5..first + 10, 10).await;
        let stopped = if crash {
            server.crash();
            end(&mut stream).await
        } else {
            // A server that stops waits until its walsenders have heard that all is safe, so the stream is asked meanwhile.
            let ended = tokio::spawn(async move { end(&mut stream).await });
            tokio::task::block_in_place(|| server.stop());
            ended.await.unwrap()
        };
        assert_eq!(
            (stopped.0.kind, stopped.0.code),
            (Kind::Transient, "postgres_unreachable"),
            "{}",
            stopped.0
        );
        server.resume();
        let bed = Bed {
            server: &server,
            slot: slot.clone(),
            database: database.clone(),
            address: address.clone(),
        };
        let mut stream = bed.start_with(&bed.address, seen.commit, BUFFER).await.unwrap();
        seen.inserts(&mut stream, round * 10 + 10).await;
        stream.close().await;
    }
}

#[tokio::test]
async fn two_streams_run_side_by_side() {
    let server = PostgresServer::shared();
    let (first, second) = (Bed::new(server, "side").await, Bed::new(server, "by_side").await);
    let (mut one, mut other) = (first.start().await, second.start().await);
    first.insert(0..1000, 100).await;
    second.insert(0..500, 100).await;
    let (mut seen_one, mut seen_other) = (Seen::default(), Seen::default());
    tokio::join!(seen_one.inserts(&mut one, 1000), seen_other.inserts(&mut other, 500));
    one.acknowledge(seen_one.commit);
    wait_until("only the one slot moves", async || first.confirmed().await == seen_one.commit).await;
    assert!(second.confirmed().await < seen_other.commit);
}

#[tokio::test]
async fn a_message_larger_than_the_buffer_goes_alone_and_nothing_is_lost_when_a_read_is_given_up() {
    let bed = Bed::new(PostgresServer::shared(), "large").await;
    let mut stream = bed.start_with(&bed.address, 0, 64 << 10).await.unwrap();
    bed.insert(0..3, 5 << 20).await;
    bed.insert(3..5003, 100).await;
    let mut seen = Seen::default();
    let mut given_up = 0;
    while seen.inserts < 5003 {
        match tokio::time::timeout(Duration::from_micros(200), stream.next()).await {
            Ok(frames) => seen.take(&frames.unwrap()),
            Err(_) => given_up += 1,
        }
    }
    assert_eq!(seen.inserts, 5003);
    assert!(given_up > 0);
}
