//! With `create = true`: tables that are made while others are followed, and tables that a run may not publish.

use std::time::Duration;

use alluvium::error::Kind;
use alluvium::sources::postgres::connection::control;
use alluvium::sources::postgres::publishing::Publisher;
use alluvium::sources::postgres::selection::Selection;

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

const ALL: &str = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.*\"]";

/// Publishes all tables of the schema `public`.
fn publisher(publication: &str) -> Publisher {
    let all = Selection::new([], [("public".to_owned(), "*".to_owned())]);
    Publisher::new(publication, all, Duration::ZERO)
}

/// Waits until a table of the schema `public` has the rows that the server has.
async fn is_followed(bank: &Bank<'_>, table: &str) {
    let log = bank.site.table("public").join(table).join("_delta_log");
    let sql = format!("SELECT * FROM public.{table}");
    wait_until(&format!("{table} is followed"), async || {
        log.exists() && bank.here(&sql, &[&format!("public.{table}")]).await == bank.there(&sql).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_later_is_published_within_discovery_and_followed() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE SCHEMA other";
    let bank = Bank::new(PostgresServer::shared(), "later", sql, ALL).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    bank.sql(
        "CREATE TABLE keyed (id int PRIMARY KEY); INSERT INTO keyed VALUES (1), (2); CREATE TABLE loose (v int); INSERT INTO loose VALUES (1); \
         CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parted DEFAULT; INSERT INTO parted VALUES (1); \
         CREATE TABLE other.beside (id int PRIMARY KEY)",
    )
    .await;
    for table in ["keyed", "loose", "parted"] {
        is_followed(&bank, table).await;
    }
    bank.sql("INSERT INTO t VALUES (2); DELETE FROM keyed WHERE id = 1; INSERT INTO loose VALUES (2); UPDATE parted SET id = 2")
        .await;
    for table in ["t", "keyed", "loose", "parted"] {
        is_followed(&bank, table).await;
    }
    // The application goes on.
    let identity = bank.value("SELECT relreplident FROM pg_class WHERE relname = 'loose'").await;
    assert_eq!(identity, "f");
    let sql = format!(
        "SELECT tablename FROM pg_publication_tables WHERE pubname = 'pub_{}' AND schemaname <> 'public'",
        bank.database
    );
    assert!(bank.there(&sql).await.is_empty(), "what nobody asks for is not published");
    service.stop().await;
    bank.catch_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_publishes_meanwhile_is_seen_or_asked_for_in_vain() {
    let server = PostgresServer::shared();
    let database = server.database("meanwhile").await;
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (_proxy, session) = server.slow_session(&database, Duration::from_millis(10)).await;
    let mut came_later = false;
    for step in 0..40 {
        let name = format!("p{step}");
        let (publisher, other) = (publisher(&name), async {
            tokio::time::sleep(Duration::from_millis(10) * step).await;
            let sql = format!("CREATE PUBLICATION {name}");
            // It may be there by now; the table, too.
            if server.client(&database).await.batch_execute(&sql).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(15)).await;
                let sql = format!("ALTER PUBLICATION {name} ADD TABLE t");
                drop(server.client(&database).await.batch_execute(&sql).await);
                return true;
            }
            false
        });
        let (outcome, was_first) = tokio::join!(publisher.publish(&session), other);
        came_later |= was_first;
        match outcome {
            Ok(outcome) => assert_eq!(outcome.published.len(), 1, "{step}: {outcome:?}"),
            Err(error) => assert_eq!(error.kind, Kind::Transient, "{step}: {error}"),
        }
    }
    assert!(came_later, "the other one was never first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_while_it_is_published_is_no_mistake() {
    let server = PostgresServer::shared();
    let database = server.database("going").await;
    server
        .sql(&database, "CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE gone (id int)")
        .await;
    let session = control(&server.address(&database)).await.expect("a session");
    let publisher = publisher("p");
    // Until it is dropped, what gives it an identity waits.
    let holder = server.client(&database).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE gone IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");
    let (outcome, ()) = tokio::join!(publisher.publish(&session), async {
        wait_until("the publication is made", async || {
            server.value(&database, "SELECT count(*) FROM pg_publication").await == "1"
        })
        .await;
        holder.batch_execute("DROP TABLE gone; COMMIT").await.expect("the end");
    });
    let outcome = outcome.expect("what was published");
    assert!(outcome.refused.is_empty(), "{outcome:?}");
    assert_eq!(outcome.later.iter().map(|one| one.table.as_str()).collect::<Vec<_>>(), ["gone"]);
    assert_eq!(
        outcome.published.keys().map(|(_, name)| name.as_str()).collect::<Vec<_>>(),
        ["kept"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_dropped_while_it_is_looked_at_is_made_anew() {
    let server = PostgresServer::shared();
    let database = server.database("dropped").await;
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (_proxy, session) = server.slow_session(&database, Duration::from_millis(10)).await;
    let mut was_between = false;
    for step in 0..40 {
        let name = format!("p{step}");
        server.sql(&database, &format!("CREATE PUBLICATION {name} FOR TABLE t")).await;
        let publisher = publisher(&name);
        let (outcome, ()) = tokio::join!(publisher.publish(&session), async {
            tokio::time::sleep(Duration::from_millis(10) * step).await;
            server.sql(&database, &format!("DROP PUBLICATION {name}")).await;
        });
        if let Err(error) = outcome {
            assert_eq!(error.kind, Kind::Transient, "{step}: {error}");
            was_between = true;
        }
    }
    assert!(was_between, "it was never dropped between two answers");
}

/// A server that comes to changes of a time without the publication ends the session, or leaves them out (since 18).
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_dropped_under_load_is_made_anew_and_its_tables_are_copied_again() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i; CREATE TABLE o (id int PRIMARY KEY)";
    let bank = Bank::new(PostgresServer::shared(), "loaded", sql, ALL).await;
    let mut service = bank.site.run("service", &bank.config);
    is_followed(&bank, "t").await;
    is_followed(&bank, "o").await;
    let client = bank.server.client(&bank.database).await;
    for round in 1..4 {
        for step in 0..150 {
            if step == 50 {
                bank.sql(&format!("DROP PUBLICATION IF EXISTS pub_{}", bank.database)).await;
            }
            let sql = format!(
                "UPDATE t SET v = v + 1 WHERE id = {}; INSERT INTO o VALUES ({round} * 1000 + {step})",
                step % 100 + 1
            );
            client.batch_execute(&sql).await.expect("a change");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        is_followed(&bank, "t").await;
        is_followed(&bank, "o").await;
        assert!(service.poll().is_none(), "it ended: {}", service.log_tail());
    }
    service.stop().await;
    bank.catch_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_its_only_table_to_come_back() {
    let lines = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.t\"]";
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let bank = Bank::new(PostgresServer::shared(), "only", sql, lines).await;
    let mut service = bank.site.run("service", &bank.config);
    is_followed(&bank, "t").await;
    bank.sql("DROP TABLE t").await;
    wait_until("it waits", async || service.log_text().contains("no_tables_yet")).await;
    // So does one that is started meanwhile.
    let mut another = bank.site.run("another", &bank.config);
    wait_until("it waits, too", async || {
        another.log_text().contains("It waits for those that were there")
    })
    .await;
    bank.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (2)").await;
    is_followed(&bank, "t").await;
    for service in [&mut service, &mut another] {
        assert!(service.poll().is_none(), "{}", service.log_tail());
        service.kill().await;
    }
    bank.catch_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_may_be_ahead_of_all_tables() {
    let bank = Bank::new(PostgresServer::shared(), "ahead", "SELECT 1", ALL).await;
    let mut service = bank.site.run("service", &bank.config);
    wait_until("it waits", async || service.log_text().contains("no_tables_yet")).await;
    bank.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    is_followed(&bank, "t").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_use_is_published_when_it_is_free_and_the_others_go_on() {
    let server = PostgresServer::shared();
    let bank = Bank::new(server, "busy", "CREATE TABLE t (id int PRIMARY KEY)", ALL).await;
    bank.catch_up().await;
    bank.sql("CREATE TABLE busy (id int PRIMARY KEY); INSERT INTO busy VALUES (1)")
        .await;
    let user = server.client(&bank.database).await;
    user.batch_execute("BEGIN; LOCK TABLE busy IN SHARE MODE").await.expect("a lock");
    let mut service = bank.site.run("service", &bank.config);
    wait_until("it is said", async || service.log_text().contains("not published yet")).await;
    bank.sql("INSERT INTO t VALUES (1)").await;
    is_followed(&bank, "t").await;
    user.batch_execute("COMMIT").await.expect("the lock is gone");
    is_followed(&bank, "busy").await;
    service.stop().await;
}

/// The statements that a look has named last for a table: what a superuser can run once, and what helps for ever.
fn advised(said: &str, table: &str) -> (String, String) {
    let of_table = format!("\"al\" may not put \"public\".\"{table}\"");
    let line = said.lines().rfind(|line| line.contains(&of_table));
    let line = line.unwrap_or_else(|| panic!("nothing is said of {table}:\n{said}"));
    let (once, ever) = line.split_once("; or let \"al\" do so").expect("two things that help");
    let once = once.split_once("as a superuser: ").expect("statements").1;
    (once.to_owned(), ever.split_once(": ").expect("a statement").1.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_others_stops_alone_and_is_followed_when_what_is_advised_was_run() {
    let server = PostgresServer::start(Options::default());
    let sql = "CREATE ROLE al LOGIN REPLICATION; CREATE ROLE app; CREATE TABLE mine (id int PRIMARY KEY); ALTER TABLE mine OWNER TO al; \
               CREATE TABLE theirs (v int); INSERT INTO theirs VALUES (1); ALTER TABLE theirs OWNER TO app; GRANT SELECT ON theirs TO al";
    let bank = Bank::new(&server, "owned", sql, ALL).await;
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    std::fs::write(&bank.config, text.replace(&format!("//{}@", server.user()), "//al@")).expect("the configuration");

    let (code, said) = bank.check().await;
    assert_eq!(code, 77, "{said}");
    assert!(
        said.contains("(once a run has made it)") && said.contains("table public.mine: a run adds it"),
        "{said}"
    );
    assert!(!said.contains("table public.theirs: a run adds it"), "{said}");
    let grant = format!("GRANT CREATE ON DATABASE \"{}\" TO \"al\";", bank.database);
    assert!(said.contains(&grant), "{said}");
    let (code, said) = bank.refused().await;
    assert!(code == 77 && said.contains("GRANT CREATE ON DATABASE"), "{code}: {said}");
    bank.sql(&grant).await;

    // A run that is to end has not done all that was asked for.
    let (code, said) = bank.refused().await;
    assert!(code == 77 && said.contains("ADD TABLE ONLY"), "{code}: {said}");
    is_followed(&bank, "mine").await;
    let mut service = bank.site.run("service", &bank.config);
    wait_until("it is said", async || {
        let said = service.log_text();
        said.lines().any(|line| {
            ["public.theirs", "GRANT", "the others go on"]
                .iter()
                .all(|word| line.contains(word))
        })
    })
    .await;
    bank.sql("INSERT INTO mine VALUES (1)").await;
    is_followed(&bank, "mine").await;
    // What was made later as well.
    bank.sql(
        "CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1); ALTER TABLE late OWNER TO app; GRANT SELECT ON late TO al",
    )
    .await;
    wait_until("it is said", async || {
        let said = service.log_text();
        said.lines()
            .any(|line| line.contains("public.late") && line.contains("the others go on"))
    })
    .await;
    bank.sql("INSERT INTO mine VALUES (2)").await;
    is_followed(&bank, "mine").await;

    // Each thing that helps, without a new start.
    let (code, said) = bank.check().await;
    assert_eq!(code, 77, "{said}");
    bank.sql(&advised(&said, "theirs").0).await;
    is_followed(&bank, "theirs").await;
    bank.sql(&advised(&said, "late").1).await;
    is_followed(&bank, "late").await;
    bank.sql("INSERT INTO theirs VALUES (2); INSERT INTO late VALUES (2)").await;
    is_followed(&bank, "theirs").await;
    is_followed(&bank, "late").await;
    service.stop().await;
}
