//! What publications publish, as the catalogs tell it: the same as the server's own view.

use std::collections::BTreeSet;

use alluvium::sources::postgres::connection::control;
use alluvium::sources::postgres::{catalog, publication};

use crate::support::bank::Bank;
use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};

/// Partitions of partitions, in several schemas; tables that cannot be published beside those that can.
const TABLES: &str = "CREATE SCHEMA s; CREATE SCHEMA \"S 2\"; \
    CREATE TABLE plain (id int PRIMARY KEY, gone int, v int, g int GENERATED ALWAYS AS (id + 1) STORED); ALTER TABLE plain DROP gone; \
    CREATE TABLE s.\"Odd \"\"one\" (id int PRIMARY KEY); CREATE UNLOGGED TABLE s.loose (id int PRIMARY KEY); CREATE VIEW s.view AS SELECT 1; \
    CREATE TABLE s.root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
    CREATE TABLE \"S 2\".low PARTITION OF s.root FOR VALUES FROM (0) TO (10); \
    CREATE TABLE public.middle PARTITION OF s.root FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (id); \
    CREATE TABLE s.leaf PARTITION OF middle FOR VALUES FROM (10) TO (20); \
    CREATE TABLE other_leaf PARTITION OF middle FOR VALUES FROM (20) TO (100); \
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (more int) INHERITS (parent); \
    CREATE TABLE empty_root (id int PRIMARY KEY) PARTITION BY RANGE (id)";

/// What is published, and since which version that can be said.
const PUBLICATIONS: &[(u32, &str)] = &[
    (14, "FOR ALL TABLES"),
    (14, "FOR TABLE plain, s.\"Odd \"\"one\""),
    (14, "FOR TABLE s.root"),
    (14, "FOR TABLE middle, empty_root"),
    (14, "FOR TABLE s.leaf, \"S 2\".low"),
    (14, "FOR TABLE parent"),
    (14, "FOR TABLE ONLY parent"),
    (14, ""),
    // 14 lists a table and its parts both, though it tells all changes as those of the table.
    (15, "FOR TABLE s.root, s.leaf"),
    (15, "FOR TABLE middle, \"S 2\".low, s.root"),
    (15, "FOR TABLE plain (v, id), s.leaf (id)"),
    (15, "FOR TABLE plain WHERE (id > 3), s.leaf WHERE (id < 5)"),
    (15, "FOR TABLE s.root (id) WHERE (id > 3), plain"),
    (15, "FOR TABLES IN SCHEMA s"),
    (15, "FOR TABLES IN SCHEMA public"),
    (15, "FOR TABLES IN SCHEMA s, \"S 2\", TABLE plain"),
    (15, "FOR TABLES IN SCHEMA public, TABLE plain WHERE (id > 3), s.root"),
];

#[tokio::test]
async fn the_catalogs_tell_what_the_view_tells() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        server.sql("postgres", TABLES).await;
        let session = control(&server.address("postgres")).await.expect("a session");
        let options = ["publish_via_partition_root = true", "publish_via_partition_root = false"].into_iter();
        let options: Vec<&str> = options
            .chain((server.version() >= 18).then_some("publish_generated_columns = stored"))
            .collect();
        for (_, of) in PUBLICATIONS.iter().filter(|(since, _)| server.version() >= *since) {
            for option in &options {
                // The server refuses conditions and columns of a table whose changes it tells as those of its parts.
                if of.contains("root (id)") && *option != "publish_via_partition_root = true" {
                    continue;
                }
                server
                    .sql("postgres", &format!("CREATE PUBLICATION \"P\" {of} WITH ({option})"))
                    .await;
                // Generated columns are told by none before 18; the view of 15 names them all the same.
                let shown = match server.version() {
                    14 => "attgenerated = ''",
                    15 => "attgenerated = '' AND attname = ANY (attnames)",
                    _ => "attname = ANY (attnames)",
                };
                let sql = format!(
                    "SELECT schemaname, tablename, attname FROM pg_publication_tables, pg_attribute WHERE pubname = 'P' \
                     AND attrelid = format('%I.%I', schemaname, tablename)::regclass AND attnum > 0 AND NOT attisdropped AND {shown}"
                );
                let told = server.rows("postgres", &sql).await.into_iter();
                let told: BTreeSet<Vec<String>> = told.map(|row| row.into_iter().flatten().collect()).collect();
                let tables = catalog::tables(&session, "P").await.expect("tables");
                let columns = tables.iter().flat_map(|table| {
                    let each = table.columns.iter();
                    each.map(|column| vec![table.schema.clone(), table.name.clone(), column.name.clone()])
                });
                let what = format!("{of} WITH ({option}) on {}", server.version());
                assert_eq!(columns.collect::<BTreeSet<_>>(), told, "{what}");
                let names = tables
                    .iter()
                    .map(|table| ((table.schema.clone(), table.name.clone()), table.shown()));
                assert_eq!(
                    publication::published(&session, "P").await.expect("names"),
                    names.collect(),
                    "{what}"
                );
                for table in &tables {
                    let filter = publication::row_filter(&session, "P", table.oid).await.expect("a condition");
                    let sql = format!(
                        "SELECT to_jsonb(p)->>'rowfilter' FROM pg_publication_tables p WHERE pubname = 'P' \
                         AND format('%I.%I', schemaname, tablename)::regclass = {}::regclass",
                        table.oid
                    );
                    assert_eq!(filter.unwrap_or_default(), server.value("postgres", &sql).await, "{what}");
                }
                server.sql("postgres", "DROP PUBLICATION \"P\"").await;
            }
        }
    }
}

/// With `create = true`, where there is a publication already.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_publication_has_is_not_put_into_it_again() {
    let tables = "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE leaf PARTITION OF root DEFAULT; \
                  CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent); CREATE TABLE plain (id int PRIMARY KEY); \
                  INSERT INTO root VALUES (1); INSERT INTO child VALUES (2); INSERT INTO parent VALUES (3); INSERT INTO plain VALUES (4)";
    for of in ["TABLE root, plain", "ALL TABLES", "TABLE child", "TABLE ONLY parent"] {
        let bank = Bank::new(PostgresServer::shared(), "again", tables, "create = true\nfollow = [\"public.*\"]").await;
        bank.sql(&format!("CREATE PUBLICATION pub_{} FOR {of}", bank.database)).await;
        bank.catch_up().await;
        // Without the option, changes are told as those of the smallest parts.
        for table in ["leaf", "child", "plain"] {
            bank.agrees(&format!("SELECT id FROM public.{table}"), &[&format!("public.{table}")])
                .await;
        }
        let parent = bank.here("SELECT id FROM public.parent", &["public.parent"]).await;
        assert_eq!(parent, [["3"]], "{of}: without what is in the one that inherits from it");
    }
}

/// With `create = true`, of tables whose rows nothing identifies.
#[tokio::test(flavor = "multi_thread")]
async fn p6_what_a_run_publishes_can_be_changed_as_before_and_each_change_is_seen() {
    let tables = "CREATE TABLE keyed (id int PRIMARY KEY); CREATE TABLE loose (v int); INSERT INTO loose VALUES (1); \
                  CREATE TABLE parted (v int) PARTITION BY RANGE (v); CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10); \
                  INSERT INTO parted VALUES (1); CREATE TABLE chosen (v int); ALTER TABLE chosen REPLICA IDENTITY NOTHING; INSERT INTO chosen VALUES (1)";
    let bank = Bank::new(
        PostgresServer::shared(),
        "identity",
        tables,
        "create = true\nfollow = [\"public.*\"]",
    )
    .await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 78, "{said}");
    for line in [
        "table public.loose: note: nothing identifies its rows",
        "ALTER TABLE \"public\".\"loose\" REPLICA IDENTITY FULL;",
        "ALTER TABLE \"public\".\"part\" REPLICA IDENTITY FULL;",
        "\"public\".\"chosen\" is not put into the publication",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("table public.keyed: note"), "{said}");
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("CREATE TABLE later PARTITION OF parted FOR VALUES FROM (10) TO (20); INSERT INTO parted VALUES (11)")
        .await;
    let identity = async |table: &str| {
        bank.value(&format!("SELECT relreplident FROM pg_class WHERE relname = '{table}'"))
            .await
    };
    wait_until("the new partition has an identity", async || identity("later").await == "f").await;
    service.stop().await;
    // The application goes on.
    for table in ["loose", "parted", "chosen"] {
        bank.sql(&format!("UPDATE {table} SET v = v + 1; DELETE FROM {table}")).await;
    }
    bank.sql("INSERT INTO keyed VALUES (1)").await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    for table in ["public.loose", "public.parted"] {
        assert!(
            said.contains(&format!("\"table\":\"{table}\",\"code\":\"append_only\"")),
            "{table}: {said}"
        );
    }
    bank.agrees("SELECT id FROM public.keyed", &["public.keyed"]).await;
    assert_eq!(identity("chosen").await, "n", "what somebody chose stays");
}

/// With `create = true`, one that nothing identifies the rows of because somebody has said so.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_table_that_may_not_be_published_stops_alone_and_tells_why() {
    let tables = "CREATE TABLE keyed (id int PRIMARY KEY); INSERT INTO keyed VALUES (1); \
                  CREATE TABLE chosen (id int); ALTER TABLE chosen REPLICA IDENTITY NOTHING; INSERT INTO chosen VALUES (1)";
    let options = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.keyed\"]";
    let mut bank = Bank::new(PostgresServer::shared(), "barred", tables, options).await;
    let named = |name: &str| format!("[pipelines.bank.tables.{name}]\ntable = \"public.chosen\"\nmode = \"append\"\n");
    bank.reconfigure(&format!("{options}\n{}{}", named("one"), named("other")));
    let (code, said) = bank.refused().await;
    assert_eq!(code, 78, "{said}");
    for table in ["one", "other"] {
        let stopped = format!("\"table\":\"{table}\",\"code\":\"not_published\"");
        assert!(said.contains(&stopped), "{table}: {said}");
    }
    assert!(said.contains("was set to REPLICA IDENTITY NOTHING by somebody"), "{said}");
    assert!(!said.contains("\"message\":\"not published\""), "it is told once: {said}");
    bank.agrees("SELECT id FROM public.keyed", &["public.keyed"]).await;
    bank.sql("UPDATE chosen SET id = 2").await;
    // It was never followed, and may be dropped: the others go on.
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO keyed VALUES (2)").await;
    bank.until_released().await;
    bank.sql("DROP TABLE chosen").await;
    wait_until("it is seen", async || service.log_text().contains("any more")).await;
    bank.sql("INSERT INTO keyed VALUES (3)").await;
    bank.until_released().await;
    bank.agrees("SELECT id FROM public.keyed", &["public.keyed"]).await;
    service.kill().await;
}

/// What somebody has published of them, be it inserts alone, or all: then the server refuses the other changes.
#[tokio::test(flavor = "multi_thread")]
async fn p6_inserts_of_a_table_of_replica_identity_nothing_are_followed_into_one_that_only_grows() {
    let tables = "CREATE TABLE events (id int PRIMARY KEY, v text); ALTER TABLE events REPLICA IDENTITY NOTHING; INSERT INTO events VALUES (1, 'copied')";
    for (publish, tells_all) in [("insert", false), ("insert, update, delete, truncate", true)] {
        let bank = Bank::new(PostgresServer::shared(), "nothing", tables, "follow = [\"public.*\"]").await;
        bank.sql(&format!(
            "CREATE PUBLICATION pub_{} FOR TABLE events WITH (publish = '{publish}')",
            bank.database
        ))
        .await;
        bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
            .await;
        let (code, said) = bank.check().await;
        assert!(
            code == 0 && said.contains("table public.events (append)"),
            "{publish}: {code}: {said}"
        );
        assert_eq!(
            said.contains("the server refuses UPDATE and DELETE of it"),
            tells_all,
            "{publish}: {said}"
        );
        bank.catch_up().await;
        bank.sql("INSERT INTO events VALUES (2, 'streamed'), (3, 'streamed')").await;
        let client = bank.server.client(&bank.database).await;
        let changed = client.batch_execute("UPDATE events SET v = 'changed' WHERE id = 1; DELETE FROM events WHERE id = 2");
        assert_eq!(changed.await.is_err(), tells_all, "{publish}");
        bank.sql("INSERT INTO events VALUES (4, 'later')").await;
        bank.catch_up().await;
        assert_eq!(
            bank.here("SELECT id, v FROM public.events", &["public.events"]).await,
            [["1", "copied"], ["2", "streamed"], ["3", "streamed"], ["4", "later"]],
            "{publish}"
        );
    }
}

/// With `create = true`, while it is followed and while nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn p6_a_table_that_loses_its_key_can_be_changed_and_goes_on_when_it_has_it_again() {
    let tables = "CREATE TABLE swapped (id int PRIMARY KEY, v int); INSERT INTO swapped VALUES (1, 1); \
                  CREATE TABLE other (id int PRIMARY KEY, v int); INSERT INTO other VALUES (1, 1)";
    let options = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.*\"]";
    let bank = Bank::new(PostgresServer::shared(), "keyless", tables, options).await;
    bank.catch_up().await;
    let identity = async |table: &str| {
        bank.value(&format!("SELECT relreplident FROM pg_class WHERE relname = '{table}'"))
            .await
    };
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("ALTER TABLE swapped DROP CONSTRAINT swapped_pkey").await;
    wait_until("the table has an identity", async || identity("swapped").await == "f").await;
    bank.sql("UPDATE swapped SET v = 2; ALTER TABLE swapped ADD PRIMARY KEY (id); UPDATE swapped SET v = 3")
        .await;
    service.stop().await;
    bank.sql("ALTER TABLE other DROP CONSTRAINT other_pkey").await;
    let (code, said) = bank.refused().await;
    assert!(code != 0 && said.contains("\"table\":\"public.other\""), "{code}: {said}");
    bank.sql("UPDATE other SET v = 2; ALTER TABLE other ADD PRIMARY KEY (id); UPDATE other SET v = 3")
        .await;
    bank.catch_up().await;
    for table in ["swapped", "other"] {
        let full = format!("public.{table}");
        bank.agrees(&format!("SELECT id, v FROM {full} ORDER BY id"), &[&full]).await;
    }
}

/// Since 18, the server takes no identity that has generated columns which are not published.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_generated_columns_can_be_changed_as_before_on_every_version() {
    for installation in Installation::all() {
        let server = PostgresServer::start(Options::default().on(&installation));
        let tables = "CREATE TABLE keyed (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id + 1) STORED); INSERT INTO keyed VALUES (1); \
                      CREATE TABLE loose (id int, v int GENERATED ALWAYS AS (id + 1) STORED); INSERT INTO loose VALUES (1)";
        let bank = Bank::new(&server, "generated", tables, "create = true\nfollow = [\"public.*\"]").await;
        bank.catch_up().await;
        bank.sql("UPDATE keyed SET id = 2; UPDATE loose SET id = 2; DELETE FROM loose")
            .await;
    }
}

/// Whether a publication is there that has what is stored of them, or a run makes one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_generated_columns_identify_is_published_where_these_are() {
    let stored = "GENERATED ALWAYS AS (id + 1) STORED";
    let tables = format!(
        "CREATE TABLE plain (id int PRIMARY KEY, v int {stored}); CREATE TABLE computed (id int, v int {stored} PRIMARY KEY); \
         CREATE TABLE whole (id int PRIMARY KEY, v int {stored}); ALTER TABLE whole REPLICA IDENTITY FULL; \
         CREATE TABLE indexed (id int, v int {stored} NOT NULL); CREATE UNIQUE INDEX indexed_v ON indexed (v); \
         ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_v; \
         CREATE TABLE virtual (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id + 1) VIRTUAL); ALTER TABLE virtual REPLICA IDENTITY FULL; \
         INSERT INTO plain VALUES (1); INSERT INTO computed VALUES (1); INSERT INTO whole VALUES (1); INSERT INTO indexed VALUES (1); \
         INSERT INTO virtual VALUES (1)"
    );
    for installation in Installation::since(18) {
        let server = PostgresServer::start(Options::default().on(&installation));
        for (has_stored, barred) in [(false, &["computed", "indexed", "virtual", "whole"][..]), (true, &["virtual"][..])] {
            let bank = Bank::new(&server, "identified", &tables, "create = true\nfollow = [\"public.*\"]").await;
            if has_stored {
                let with = "publish_via_partition_root = true, publish_generated_columns = stored";
                bank.sql(&format!("CREATE PUBLICATION pub_{} WITH ({with})", bank.database)).await;
            }
            let (code, said) = bank.check().await;
            assert_eq!(code, 78, "{said}");
            bank.catch_up().await;
            for table in ["computed", "indexed", "plain", "virtual", "whole"] {
                let is_barred = barred.contains(&table);
                let line = format!("\"public\".\"{table}\" is not put into the publication");
                assert_eq!(said.contains(&line), is_barred, "{table}: {said}");
                assert_eq!(bank.site.table("public").join(table).exists(), !is_barred, "{table}");
                bank.sql(&format!("UPDATE {table} SET id = 2; DELETE FROM {table}")).await;
            }
            bank.catch_up().await;
        }
    }
}

/// Since 18, a publication may have what is stored of them.
#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_that_are_published_are_copied_and_followed() {
    for installation in Installation::since(18) {
        let server = PostgresServer::start(Options::default().on(&installation));
        let tables = "CREATE TABLE t (id int PRIMARY KEY, v int, kept int GENERATED ALWAYS AS (v * 2) STORED, \
                      made int GENERATED ALWAYS AS (v * 3) VIRTUAL, body text GENERATED ALWAYS AS (repeat(id::text, 9000)) STORED); \
                      ALTER TABLE t ALTER body SET STORAGE EXTERNAL; INSERT INTO t VALUES (1, 10), (2, NULL), (3, 30)";
        let bank = Bank::new(&server, "generated", tables, "create = true\nfollow = [\"public.*\"]").await;
        bank.sql(&format!(
            "CREATE PUBLICATION pub_{} FOR TABLE t WITH (publish_generated_columns = stored)",
            bank.database
        ))
        .await;
        let columns = || {
            let log = std::fs::read_to_string(bank.site.table("public/t/_delta_log/00000000000000000000.json")).expect("version 0");
            ["kept", "made", "body"].map(|name| log.contains(&format!("\\\"name\\\":\\\"{name}\\\"")))
        };
        let agree = async || bank.agrees("SELECT id, v, kept, md5(body) FROM public.t", &["public.t"]).await;
        bank.catch_up().await;
        assert_eq!(columns(), [true, false, true]);
        agree().await;
        bank.sql(
            "UPDATE t SET v = 11 WHERE id = 1; UPDATE t SET id = 20 WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (4, 40)",
        )
        .await;
        bank.catch_up().await;
        agree().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_nothing_to_follow_is_told_by_check_as_by_a_run() {
    for create in [true, false] {
        let lines = format!("create = {create}\nfollow = [\"other.*\"]");
        let bank = Bank::new(PostgresServer::shared(), "none", "CREATE TABLE t (id int PRIMARY KEY)", &lines).await;
        if !create {
            bank.sql(&format!("CREATE PUBLICATION pub_{} FOR TABLE t", bank.database)).await;
            bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
                .await;
        }
        for (code, said) in [bank.check().await, bank.refused().await] {
            assert!(
                code == 78 && said.contains("has none of the tables that"),
                "{create}: {code} {said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follow_asks_for_in_vain_is_told_by_name_and_a_name_that_no_table_ever_had_is_refused() {
    let follow = |more: &str| format!("create = true\nfollow = [\"public.t\", {more}]");
    let tables = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY)";
    let mut bank = Bank::new(PostgresServer::shared(), "vain", tables, &follow("\"public.ordres\"")).await;
    for (code, said) in [bank.check().await, bank.refused().await] {
        let is_told = said.contains("no table public.ordres in") && said.contains("did you mean `public.orders`?");
        assert!(code == 78 && is_told, "{code}: {said}");
    }
    // Also where it is the only one.
    bank.reconfigure("create = true\nfollow = [\"public.ordres\"]");
    let (code, said) = bank.refused().await;
    assert!(code == 78 && said.contains("did you mean `public.orders`?"), "{code}: {said}");
    bank.reconfigure(&follow("\"public.orders\", \"shop.*\""));
    let (code, said) = bank.check().await;
    assert!(code == 0 && said.contains("the pattern `shop.*`"), "{code}: {said}");
    bank.catch_up().await;
    // There was one: it is gone, and the other goes on.
    bank.sql("DROP TABLE orders; INSERT INTO t VALUES (1)").await;
    let mut program = bank.start();
    let exit = program.wait(std::time::Duration::from_secs(120)).await;
    let said = program.log_text();
    assert!(exit.status.success(), "{said}");
    for words in ["a pattern that no table has yet", "shop.*", "its source is gone"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_may_read_no_more_than_the_columns_that_are_published() {
    let server = PostgresServer::shared();
    // Lists of columns are of 15.
    if !server.is_since(15) {
        return;
    }
    let bank = Bank::new(
        server,
        "columns",
        "CREATE TABLE t (id int PRIMARY KEY, v text, secret text); INSERT INTO t VALUES (1, 'a', 's')",
        "follow = [\"public.*\"]",
    )
    .await;
    let (role, database) = (format!("reader_{}", bank.database), bank.database.clone());
    bank.sql(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT (id, v) ON t TO {role}; CREATE PUBLICATION pub_{database} FOR TABLE t (id, v)"
    ))
    .await;
    bank.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", bank.slot()))
        .await;
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    std::fs::write(&bank.config, text.replace(&format!("//{}@", server.user()), &format!("//{role}@"))).expect("the configuration");
    let (code, said) = bank.check().await;
    assert_eq!(code, 0, "{said}");
    bank.catch_up().await;
    bank.sql("INSERT INTO t VALUES (2, 'b', 's')").await;
    bank.catch_up().await;
    bank.agrees("SELECT id, v FROM public.t", &["public.t"]).await;
}

/// Within `discovery`, without a new start.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stopped_where_the_publication_leaves_out_changes_of_it_goes_on_when_it_tells_all() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2); CREATE TABLE events (id int)";
    let lines = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.*\"]";
    let bank = Bank::new(PostgresServer::shared(), "widened", tables, lines).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO events VALUES (1)").await;
    bank.until_released().await;
    let publication = format!("ALTER PUBLICATION pub_{}", bank.database);
    bank.sql(&format!("{publication} SET (publish = 'insert')")).await;
    bank.sql("UPDATE t SET v = 100; DELETE FROM t WHERE id = 2").await;
    wait_until("it is said", async || service.log_text().contains("publication_partial")).await;
    bank.sql(&format!("{publication} SET (publish = 'insert, update, delete, truncate')"))
        .await;
    for sql in ["INSERT INTO t VALUES (3, 3)", "UPDATE t SET v = 4 WHERE id = 3"] {
        bank.sql(sql).await;
        let there = bank.there("SELECT * FROM t").await;
        wait_until(sql, async || bank.here("SELECT * FROM public.t", &["public.t"]).await == there).await;
    }
    service.stop().await;
    bank.catch_up().await;
    assert_eq!(bank.copied_again("public.t"), 1, "it is copied once");
}

/// What a publication leaves out passes unseen, and nothing tells it afterwards. A table of inserts needs no more than these.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_stops_where_the_publication_leaves_out_changes_of_it_and_is_copied_again_when_it_does_not() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2); CREATE TABLE events (id int)";
    for running in [true, false] {
        let lines = "create = true\ndiscovery = \"200 ms\"\nfollow = [\"public.*\"]";
        let bank = Bank::new(PostgresServer::shared(), "narrowed", tables, lines).await;
        bank.catch_up().await;
        let tells = async |kinds: &str| {
            bank.sql(&format!("ALTER PUBLICATION pub_{} SET (publish = '{kinds}')", bank.database))
                .await;
        };
        let mut service = running.then(|| bank.site.run("service", &bank.config));
        if running {
            bank.sql("INSERT INTO events VALUES (1)").await;
            bank.until_released().await;
        }
        tells("insert").await;
        bank.sql("UPDATE t SET v = 100; DELETE FROM t WHERE id = 2; INSERT INTO events VALUES (2)")
            .await;
        if let Some(service) = &mut service {
            wait_until("it is said", async || service.log_text().contains("publication_partial")).await;
            bank.sql("INSERT INTO events VALUES (3)").await;
            let there = bank.there("SELECT id FROM events").await;
            wait_until("the other goes on", async || {
                bank.here("SELECT id FROM public.events", &["public.events"]).await == there
            })
            .await;
            service.stop().await;
        }
        let (code, said) = bank.check().await;
        assert!(
            code == 78 && said.contains("does not tell delete, truncate, update of public.t"),
            "{code}: {said}"
        );
        let (code, said) = bank.refused().await;
        assert!(
            code == 78 && said.contains("publication_partial") && said.contains("public.t"),
            "{code}: {said}"
        );
        bank.agrees("SELECT id FROM public.events", &["public.events"]).await;
        tells("insert, update, delete, truncate").await;
        bank.catch_up().await;
        bank.agrees("SELECT * FROM public.t", &["public.t"]).await;
        assert_eq!(bank.copied_again("public.t"), 1, "it is copied once");
    }
}
