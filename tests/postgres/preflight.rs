//! The facts of real servers, and that what is advised helps.

use alluvium::sources::postgres::connection::{Address, Replication, control};
use alluvium::sources::postgres::preflight::{Problem, Wanted, gather, problems};

use crate::support::postgres::{Installation, Options, PostgresServer};

fn wanted(tables: &[&str]) -> Wanted {
    Wanted {
        publication: "p".to_owned(),
        slot: "s".to_owned(),
        tables: tables.iter().map(|name| ("public".to_owned(), (*name).to_owned())).collect(),
        copies: true,
        two_phase: false,
        create: false,
    }
}

async fn found(address: &Address, wanted: &Wanted) -> Vec<Problem> {
    let session = control(address).await.unwrap();
    let facts = gather(&session, wanted).await.unwrap();
    problems(&facts, wanted)
}

#[tokio::test]
async fn every_version_is_right_when_all_that_is_advised_was_run() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        let make = "CREATE TABLE keyed (id int PRIMARY KEY); CREATE TABLE \"Odd \"\"one\" (id int); CREATE UNLOGGED TABLE loose (id int PRIMARY KEY); \
                    CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part_1 PARTITION OF parted DEFAULT; \
                    CREATE TABLE later (id int PRIMARY KEY DEFERRABLE); \
                    CREATE TABLE secret (id int PRIMARY KEY); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; \
                    REVOKE ALL ON SCHEMA public FROM public; CREATE ROLE reader LOGIN";
        server.sql("postgres", make).await;
        let wanted = wanted(&["keyed", "Odd \"one", "loose", "parted", "later", "secret"]);
        let address = Address {
            user: "reader".to_owned(),
            ..server.address("postgres")
        };
        let mut seen = Vec::new();
        loop {
            let problems = found(&address, &wanted).await;
            if problems.is_empty() {
                break;
            }
            seen.extend(problems.iter().map(|problem| problem.code));
            assert!(seen.len() < 40, "it does not help: {problems:?}");
            for problem in &problems {
                // As a person reads it: what stands between "run:" and the end of the statement.
                let (_, sql) = problem.fix.split_once("un: ").unwrap_or_else(|| panic!("{problem:?}"));
                let sql = sql.rsplit_once(';').unwrap_or_else(|| panic!("{problem:?}")).0;
                let sql = sql.split_once("; (on").map_or(sql, |(sql, _)| sql);
                server.sql("postgres", sql).await;
            }
        }
        for code in ["postgres_denied", "table_unlogged", "table_identity", "publication_missing"] {
            assert!(seen.contains(&code), "{code} in {seen:?}");
        }
        Replication::open(&address).await.unwrap();
        let session = control(&address).await.unwrap();
        for table in ["keyed", "\"Odd \"\"one\"", "part_1", "secret"] {
            let sql = format!("COPY (SELECT id FROM ONLY public.{table}) TO STDOUT");
            session.copy_out(&sql).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_publication_that_leaves_out_or_lacks_tables_and_a_missing_table_are_named() {
    let server = PostgresServer::shared();
    let database = server.database("preflight").await;
    let make = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE b1 PARTITION OF b DEFAULT; \
                CREATE VIEW v AS SELECT 1 AS one; CREATE PUBLICATION p FOR TABLE b WITH (publish = 'insert, update')";
    server.sql(&database, make).await;
    let address = server.address(&database);
    let found = found(&address, &wanted(&["a", "b", "v", "gone"])).await;
    let codes: Vec<&str> = found.iter().map(|problem| problem.code).collect();
    assert_eq!(
        codes,
        [
            "table_unpublished",
            "table_unpublished",
            "table_kind",
            "table_missing",
            "publication_partial"
        ],
        "{found:?}"
    );
    assert!(found[4].what.contains("delete, truncate"), "{found:?}");
    assert!(found[1].fix.contains("publish_via_partition_root"), "{found:?}");
}

#[tokio::test]
async fn every_version_tells_what_its_slots_are() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        server.sql("postgres", "CREATE PUBLICATION p").await;
        let address = server.address("postgres");
        let session = control(&address).await.unwrap();
        let none = wanted(&[]);
        assert_eq!(gather(&session, &none).await.unwrap().slot, None);
        server
            .rows(
                "postgres",
                "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, true)",
            )
            .await;
        let slot = gather(&session, &none).await.unwrap().slot.unwrap();
        assert_eq!(
            (slot.plugin.as_deref(), slot.database.as_deref()),
            (Some("pgoutput"), Some("postgres"))
        );
        assert!(slot.two_phase && !slot.temporary && slot.active_pid.is_none());
        assert_eq!((slot.wal_status.as_deref(), slot.invalidated), (Some("reserved"), None));
        let lsn = server
            .value("postgres", "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots")
            .await;
        assert_eq!(slot.confirmed.to_string(), lsn);
        assert_eq!(found(&address, &none).await, []);
        assert!(!Replication::open(&address).await.unwrap().is_pooled().await.unwrap());
    }
}
