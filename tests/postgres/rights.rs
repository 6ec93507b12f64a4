//! Tables that the role may not read.

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_may_not_be_read_stops_alone_whether_it_is_new_or_copied_again() {
    let server = PostgresServer::start(Options::default());
    let sql = "CREATE ROLE al LOGIN REPLICATION; CREATE TABLE seen (id int PRIMARY KEY); CREATE TABLE veiled (id int PRIMARY KEY);
        CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parted DEFAULT;
        INSERT INTO seen VALUES (0); GRANT SELECT ON seen, veiled, parted TO al";
    let bank = Bank::new(&server, "rights", sql, "follow = [\"public.*\"]\ndiscovery = \"200 ms\"").await;
    let text = std::fs::read_to_string(&bank.config).expect("the configuration");
    std::fs::write(&bank.config, text.replace(&format!("//{}@", server.user()), "//al@")).expect("the configuration");
    let publish = format!(
        "CREATE PUBLICATION pub_{} FOR ALL TABLES WITH (publish_via_partition_root = true)",
        bank.database
    );
    bank.sql(&publish).await;
    let slot = bank.slot();
    bank.value(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
        .await;

    let mut service = bank.site.run("service", &bank.config);
    let follows = async |id: &str| {
        bank.sql(&format!("INSERT INTO seen VALUES ({id})")).await;
        wait_until("the others go on", async || {
            bank.site.table("public").join("seen/_delta_log").exists()
                && bank.here("SELECT max(id) FROM public.seen", &["public.seen"]).await == [[id]]
        })
        .await;
    };
    let says = |words: [&str; 2]| service.log_text().lines().any(|line| words.iter().all(|word| line.contains(word)));
    wait_until("a partition's grant is named", async || {
        says(["GRANT SELECT ON public.part TO", "the others go on"])
    })
    .await;
    follows("1").await;

    bank.sql("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)")
        .await;
    wait_until("the new table's grant is named", async || says(["public.late", "GRANT SELECT ON"])).await;
    follows("2").await;

    bank.sql("ALTER TABLE veiled ENABLE ROW LEVEL SECURITY").await;
    assert_eq!(bank.resnapshot("public.veiled").await, Some(0));
    // The service finds out with its next version.
    follows("3").await;
    wait_until("row security is named", async || says(["public.veiled", "BYPASSRLS"])).await;
    follows("4").await;
    service.stop().await;

    bank.sql("INSERT INTO seen VALUES (5)").await;
    let (code, said) = bank.refused().await;
    assert_eq!(code, 77, "{said}");
    bank.agrees("SELECT id FROM public.seen", &["public.seen"]).await;
    bank.sql("GRANT SELECT ON part, late TO al; ALTER ROLE al BYPASSRLS; INSERT INTO veiled VALUES (1)")
        .await;
    bank.catch_up().await;
    for table in ["seen", "veiled", "parted", "late"] {
        bank.agrees(&format!("SELECT id FROM public.{table}"), &[&format!("public.{table}")])
            .await;
    }
}
