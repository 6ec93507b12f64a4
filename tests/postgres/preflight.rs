//! The facts of real servers, and that what is advised helps.

use alluvium::sources::postgres::connection::{Address, Replication, control};
use alluvium::sources::postgres::preflight::{Problem, Wanted, gather, problems};

use crate::support::bank::Bank;
use crate::support::pooler::Pooler;
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
async fn p24_every_version_is_right_when_all_that_is_advised_was_run() {
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

/// Before a run has published them, as the run does, and afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_delta_table_can_be_made_of_is_told_before_it_is_published() {
    let sql = "CREATE TABLE floating (v float8 PRIMARY KEY); CREATE TABLE listed (v int[] PRIMARY KEY); \
               CREATE TABLE late (id int, CONSTRAINT late_key PRIMARY KEY (id) DEFERRABLE); \
               CREATE TABLE \"Odd Name\" (id int PRIMARY KEY, \"Order By\" text); CREATE TABLE loose (v int); CREATE TABLE picked (v int); \
               CREATE TABLE good (id int PRIMARY KEY, \"a b\" int GENERATED ALWAYS AS (id + 1) STORED); INSERT INTO good VALUES (1)";
    let lines = "create = true\nfollow = [\"public.*\"]\n[pipelines.bank.tables.picked]\ntable = \"public.picked\"\nkey = [\"v\"]";
    let bank = Bank::new(PostgresServer::shared(), "unmade", sql, lines).await;
    let (before, run) = (bank.check().await, bank.refused().await);
    let after = bank.check().await;
    for (code, said) in [&before, &run, &after] {
        assert_eq!(*code, 78, "{said}");
        for refused in [
            "the key column `v` of public.floating is double precision",
            "the key column `v` of public.listed is integer[]",
            "the key `id` of public.late is deferrable",
            "the column `Order By` of public.Odd Name has a",
        ] {
            assert!(said.contains(refused), "{refused}: {said}");
        }
    }
    // What a program says goes behind what it said before.
    for ((_, said), times) in [(&before, 1), (&after, 2)] {
        assert_eq!(said.matches(": WRONG: ").count(), 4 * times, "{said}");
    }
    let added = |table: &str, then: &str| format!("table public.{table}: a run adds it to the publication when it starts, and {then}");
    for table in ["floating", "listed", "late", "Odd Name"] {
        assert!(before.1.contains(&added(table, "stops it there")), "{table}: {}", before.1);
    }
    for table in ["loose", "picked", "good"] {
        assert!(before.1.contains(&added(table, "copies it")), "{table}: {}", before.1);
    }
    bank.agrees("SELECT id FROM public.good", &["public.good"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publication_will_not_tell_of_a_table_is_told_before_it_is_put_in() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE events (v int); INSERT INTO events VALUES (1)";
    let bank = Bank::new(PostgresServer::shared(), "untold", sql, "create = true\nfollow = [\"public.*\"]").await;
    let publication = format!("pub_{}", bank.database);
    bank.sql(&format!("CREATE PUBLICATION {publication} WITH (publish = 'insert')"))
        .await;
    let before = bank.check().await;
    let events = "table public.events: a run adds it to the publication when it starts, and copies it";
    assert!(before.1.contains(events), "{}", before.1);
    for (code, said) in [before, bank.refused().await] {
        assert!(
            code == 78 && said.contains("does not tell delete, truncate, update of public.t"),
            "{code}: {said}"
        );
    }
    bank.agrees("SELECT v FROM public.events", &["public.events"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p25_a_pooler_is_refused_and_a_proxy_is_not() {
    let server = PostgresServer::shared();
    let lines = "create = true\nfollow = [\"public.*\"]";
    for shares in [false, true] {
        let pooler = Pooler::before(server.port(), shares).await;
        let bank = Bank::new(server, "pooled", "CREATE TABLE t (id int PRIMARY KEY)", lines).await;
        bank.behind(pooler.port());
        let address = Address {
            port: pooler.port(),
            ..server.address(&bank.database)
        };
        let pooled = Replication::open(&address).await.unwrap().is_pooled().await.unwrap();
        assert_eq!(pooled, shares);
        let (code, said) = bank.check().await;
        assert_eq!(code, if shares { 78 } else { 0 }, "{said}");
        if shares {
            for (code, said) in [(code, said), bank.refused().await] {
                assert!(code == 78 && said.contains("a connection pooler stands before"), "{said}");
            }
        }
    }
}
