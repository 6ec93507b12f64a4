//! TRUNCATE: what becomes of tables that hold the rows as they stand, of logs of changes, and of tables that only grow.

use crate::support::bank::Bank;
use crate::support::postgres::{PostgresServer, wait_until};

const FOLLOW: &str = "create = true\nfollow = [\"public.*\"]";

#[tokio::test(flavor = "multi_thread")]
async fn p8_tables_that_are_emptied_together_or_through_their_root_are_empty_and_a_log_tells_it() {
    let sql = "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent); \
               CREATE TABLE beside (id int PRIMARY KEY); CREATE TABLE kept (id int PRIMARY KEY); \
               CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10); \
               CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (100); \
               INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2); INSERT INTO beside VALUES (1); INSERT INTO kept VALUES (1); \
               INSERT INTO parted VALUES (1), (11)";
    let lines = format!(
        "{FOLLOW}\n[pipelines.bank.tables.child]\ntable = \"public.child\"\n\
         [pipelines.bank.tables.audit]\ntable = \"public.child\"\nmode = \"append\"\nmetadata = [\"__op\"]"
    );
    let bank = Bank::new(PostgresServer::shared(), "emptied", sql, &lines).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    bank.sql("INSERT INTO beside VALUES (2)").await;
    bank.until_released().await;
    // Rows before and behind it, of one that is emptied because it refers to another. What is rolled back empties nothing.
    bank.sql(
        "BEGIN; INSERT INTO child VALUES (3, 1); SAVEPOINT s; TRUNCATE kept; ROLLBACK TO s; TRUNCATE parent, beside CASCADE; TRUNCATE parted; \
         INSERT INTO parent VALUES (10); INSERT INTO child VALUES (4, 10); INSERT INTO parted VALUES (2), (12); COMMIT",
    )
    .await;
    let here = async |name: &str| bank.here(&format!("SELECT * FROM {name}"), &[name]).await;
    wait_until("what comes last is there", async || here("public.parted").await == [["12"], ["2"]]).await;
    bank.until_released().await;
    service.stop().await;
    assert_eq!(here("public.parent").await, [["10"]]);
    assert_eq!(here("child").await, [["4", "10"]]);
    assert!(here("public.beside").await.is_empty());
    assert_eq!(here("public.kept").await, [["1"]]);
    let told = [
        ["1", "1", "r"],
        ["2", "2", "r"],
        ["3", "1", "c"],
        ["4", "10", "c"],
        ["NULL", "NULL", "t"],
    ];
    assert_eq!(here("audit").await, told);
    // All of it while nothing runs.
    bank.sql("TRUNCATE parent, beside, kept, parted CASCADE; INSERT INTO kept VALUES (5)")
        .await;
    bank.catch_up().await;
    for name in ["public.parent", "child", "public.beside", "public.parted"] {
        assert!(here(name).await.is_empty(), "{name}");
    }
    assert_eq!(here("public.kept").await, [["5"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_a_table_that_only_grows_stops_where_it_is_emptied_and_the_others_go_on() {
    let sql = "CREATE TABLE e (id int); INSERT INTO e VALUES (1); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let mut bank = Bank::new(PostgresServer::shared(), "growing", sql, FOLLOW).await;
    bank.catch_up().await;
    bank.sql("INSERT INTO e VALUES (2); TRUNCATE e, t; INSERT INTO e VALUES (3); INSERT INTO t VALUES (3)")
        .await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 65, "{said}");
    for words in ["a TRUNCATE of public.e", "holds inserts alone", "__op"] {
        assert!(said.contains(words), "`{words}` is missing: {said}");
    }
    bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
    // As it is told: a log of changes, which begins with a copy.
    bank.reconfigure(&format!(
        "{FOLLOW}\n[pipelines.bank.tables.audit]\ntable = \"public.e\"\nmode = \"append\"\nmetadata = [\"__op\"]"
    ));
    bank.catch_up().await;
    bank.sql("TRUNCATE e; INSERT INTO e VALUES (4)").await;
    bank.catch_up().await;
    let audit = bank.here("SELECT id, __op FROM audit", &["audit"]).await;
    assert_eq!(audit, [["3", "r"], ["4", "c"], ["NULL", "t"]]);
    let stopped = bank.here("SELECT id FROM public.e", &["public.e"]).await;
    assert_eq!(stopped, [["1"]], "nothing of a transaction that has no place in it");
}
