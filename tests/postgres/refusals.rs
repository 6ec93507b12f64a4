//! What a server refuses a replication session, each with its fix.

use alluvium::error::{Error, Kind};
use alluvium::sources::postgres::connection::{Address, Replication, Stream, control};

use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};

const BUFFER: usize = 1 << 20;

fn options(publication: &str) -> [(&'static str, String); 2] {
    [("proto_version", "1".to_owned()), ("publication_names", publication.to_owned())]
}

async fn start(address: &Address, slot: &str, publication: &str) -> Result<Stream, Error> {
    let session = Replication::open(address).await?;
    session.start(slot, 0, &options(publication), BUFFER).await
}

async fn create_slot(address: &Address, slot: &str) -> Result<(), Error> {
    let sql = format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput NOEXPORT_SNAPSHOT");
    Replication::open(address).await?.query(&sql).await.map(drop)
}

#[track_caller]
fn is(error: &Error, kind: Kind, code: &str, says: &str) {
    assert_eq!((error.kind, error.code), (kind, code), "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[tokio::test]
async fn every_version_names_a_slot_that_is_missing_in_use_or_of_a_missing_publication() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation).set("max_replication_slots", "1"));
        let address = server.address("postgres");
        let error = start(&address, "gone", "p").await.err().unwrap();
        is(&error, Kind::Config, "slot_missing", "gone");

        create_slot(&address, "only").await.unwrap();
        is(
            &create_slot(&address, "second").await.unwrap_err(),
            Kind::Transient,
            "postgres_slots",
            "max_replication_slots",
        );

        server
            .sql("postgres", "CREATE PUBLICATION p FOR ALL TABLES; CREATE TABLE t (id int)")
            .await;
        let mut first = start(&address, "only", "p").await.unwrap();
        let error = start(&address, "only", "p").await.err().unwrap();
        let pid = server.value("postgres", "SELECT active_pid FROM pg_replication_slots").await;
        is(&error, Kind::Transient, "slot_active", &format!("PID {pid}"));
        server.sql("postgres", "INSERT INTO t VALUES (1)").await;
        first.next().await.unwrap();
        first.close().await;
        // Whoever takes leave waits for the server only so long.
        wait_until("the slot is free", async || server.walsender("only").await.is_empty()).await;

        // The server begins to stream, and finds out at the first change.
        let mut stream = start(&address, "only", "nowhere").await.unwrap();
        let error = loop {
            if let Err(error) = stream.next().await {
                break error;
            }
        };
        is(&error, Kind::Config, "publication_missing", "nowhere");
        let again = stream.next().await.unwrap_err();
        is(&again, Kind::Transient, "postgres_unreachable", "has ended");
    }
}

#[tokio::test]
async fn every_version_takes_a_snapshot_whose_session_has_ended_for_a_matter_of_the_moment() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        let address = server.address("postgres");
        let mut exporting = Replication::open(&address).await.unwrap();
        let made = exporting
            .query("CREATE_REPLICATION_SLOT short TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
            .await
            .unwrap();
        let snapshot = made[0][2].clone().unwrap();
        exporting.close().await;
        // Whoever takes leave waits for the server only so long.
        let senders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
        wait_until("the session has ended", async || server.value("postgres", senders).await == "0").await;
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'");
        let error = control(&address).await.unwrap().batch_execute(&begin).await.unwrap_err();
        is(&error, Kind::Transient, "postgres_error", "snapshot");
    }
}

#[tokio::test]
async fn a_copy_of_what_was_dropped_meanwhile_is_a_matter_of_the_moment() {
    let server = PostgresServer::shared();
    let session = control(&server.address("postgres")).await.unwrap();
    for gone in [
        "SELECT \"a\" FROM ONLY \"public\".\"gone\"",
        "SELECT \"gone\" FROM pg_class",
        "SELECT 1 FROM gone.t",
    ] {
        let error = session.copy_out(&format!("COPY ({gone}) TO STDOUT")).await.err().unwrap();
        is(&error, Kind::Transient, "table_changed", "gone");
    }
}

#[tokio::test]
async fn every_version_names_a_role_that_may_not_replicate_and_a_log_that_is_not_logical() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation).set("wal_level", "replica"));
        server.sql("postgres", "CREATE ROLE plain LOGIN").await;
        let address = server.address("postgres");
        let error = create_slot(&address, "s").await.unwrap_err();
        is(&error, Kind::Config, "postgres_wal_level", "ALTER SYSTEM SET wal_level = 'logical'");
        let plain = Address {
            user: "plain".to_owned(),
            ..address.clone()
        };
        let error = Replication::open(&plain).await.err().unwrap();
        is(&error, Kind::Config, "postgres_denied", "ALTER ROLE \"plain\" REPLICATION");
        let stranger = Address {
            user: "nobody".to_owned(),
            ..address.clone()
        };
        is(
            &Replication::open(&stranger).await.err().unwrap(),
            Kind::Config,
            "postgres_denied",
            "nobody",
        );
        let elsewhere = Address {
            database: "elsewhere".to_owned(),
            ..address
        };
        is(
            &Replication::open(&elsewhere).await.err().unwrap(),
            Kind::Config,
            "postgres_database",
            "elsewhere",
        );
    }
}

#[tokio::test]
async fn taken_senders_free_up_and_a_missing_line_in_pg_hba_is_named() {
    let mut server = PostgresServer::start(Options::default().set("max_wal_senders", "1"));
    let address = server.address("postgres");
    let first = Replication::open(&address).await.unwrap();
    let error = Replication::open(&address).await.err().unwrap();
    is(&error, Kind::Transient, "postgres_busy", "max_wal_senders");
    first.close().await;
    server.set_hba("");
    wait_until("the lines are read", async || {
        Replication::open(&address)
            .await
            .is_err_and(|error| error.code == "postgres_denied" && error.to_string().contains("Add a line"))
    })
    .await;
}

#[tokio::test]
async fn every_version_names_a_slot_whose_log_is_gone() {
    for installation in Installation::all() {
        let settings = Options::default()
            .on(&installation)
            .set("max_slot_wal_keep_size", "1MB")
            .set("max_wal_size", "32MB");
        let server = PostgresServer::start(settings);
        let address = server.address("postgres");
        create_slot(&address, "late").await.unwrap();
        server.sql("postgres", "CREATE PUBLICATION p; CREATE TABLE t (x text)").await;
        for _ in 0..4 {
            server
                .sql("postgres", "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
                .await;
            server.sql("postgres", "SELECT pg_switch_wal()").await;
            server.sql("postgres", "CHECKPOINT").await;
        }
        assert_eq!(
            server.value("postgres", "SELECT wal_status FROM pg_replication_slots").await,
            "lost"
        );
        let error = match start(&address, "late", "p").await {
            Err(error) => error,
            Ok(mut stream) => stream.next().await.unwrap_err(),
        };
        is(&error, Kind::Config, "slot_lost", "copy the tables anew");
    }
}
