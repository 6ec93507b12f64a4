//! Reading from a standby, which servers allow since 16.

use std::time::Duration;

use crate::support::bank::Bank;
use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};

const FOLLOW: &str = "follow = [\"public.*\"]";
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";

/// What makes a slot of a standby, or a copy from there, waits for what its primary logs now and then: here it does so all the while.
async fn while_logged(primary: &PostgresServer, work: impl Future<Output = ()>) {
    let logs = async {
        loop {
            primary.value("postgres", "SELECT pg_log_standby_snapshot()").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = logs => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_standby_is_read_until_its_primary_removes_what_the_slot_needs() {
    // Since 17 a server tells why it has given a slot up.
    let Some(installation) = Installation::since(17).into_iter().next() else {
        return;
    };
    // Nothing is removed but by this test.
    let primary = PostgresServer::start(Options::default().on(&installation).set("autovacuum", "off"));
    let bank = Bank::new(&primary, "standby", TABLE, FOLLOW).await;
    bank.sql(&format!("CREATE PUBLICATION pub_{} FOR TABLE t", bank.database)).await;
    let standby = primary.standby();
    let mut bank = Bank::on(&standby, bank.parts());
    bank.reconfigure(FOLLOW);
    while_logged(&primary, async {
        let (code, said) = bank.check().await;
        assert_eq!(code, 78, "{said}");
        let slot = said.split("Run: ").find(|text| text.starts_with("SELECT pg_create"));
        bank.value(slot.and_then(|text| text.split(';').next()).expect("a statement")).await;
        for id in 2..4 {
            bank.catch_up().await;
            bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
            primary.sql(&bank.database, &format!("INSERT INTO t VALUES ({id})")).await;
            let sql = format!("SELECT 1 FROM t WHERE id = {id}");
            wait_until("the standby has it", async || bank.value(&sql).await == "1").await;
        }
    })
    .await;

    // Without hot_standby_feedback the primary does not know what its standby's slot needs.
    // In transactions of their own: what the same one makes and removes, nobody could need.
    primary.sql(&bank.database, "CREATE TABLE gone ()").await;
    primary.sql(&bank.database, "DROP TABLE gone").await;
    let reason = format!(
        "SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = '{}'",
        bank.slot()
    );
    wait_until("the slot is given up", async || {
        // Again and again: it leaves alone what a session that is about to end may still see.
        primary.sql(&bank.database, "VACUUM pg_class").await;
        bank.value(&reason).await == "rows_removed"
    })
    .await;
    for (code, said) in [bank.check().await, bank.refused().await] {
        assert_eq!(code, 65, "{said}");
        assert!(said.contains("rows_removed") && said.contains("hot_standby_feedback"), "{said}");
    }
}
