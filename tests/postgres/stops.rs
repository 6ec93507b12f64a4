//! The server is stopped, as operators stop it, under a program that holds its slot back. A fast stop waits for those that read slots, until
//! they have said that all is safe: one that cannot say so has to leave.

use std::time::{Duration, Instant};

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer, wait_until};
use crate::support::program::Site;

/// A stop that nobody holds back takes a part of a second on a free machine; one that is held back takes for ever.
const SOON: Duration = Duration::from_secs(40);

/// Stops the server, and starts it again.
pub fn stopped_and_started<'s>(server: &'s mut PostgresServer, parts: (String, Site)) -> Bank<'s> {
    let before = Instant::now();
    server.stop();
    let took = before.elapsed();
    assert!(took < SOON, "the server was held back for {took:?}");
    server.resume();
    Bank::on(server, parts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_has_stopped_keeps_its_wal_and_does_not_keep_the_server_from_stopping() {
    let mut server = PostgresServer::start(Options::default());
    let sql = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE loose (v int); INSERT INTO loose VALUES (1)";
    let lines = "create = true\nfollow = [\"public.*\"]\ndiscovery = \"1 h\"";
    let bank = Bank::new(&server, "stops", sql, lines).await;
    bank.catch_up().await;
    let mut service = bank.site.run("service", &bank.config);
    // It has no key, so its Delta table holds inserts alone.
    bank.sql("UPDATE loose SET v = 2").await;
    wait_until("the table stops", async || service.log_text().contains("the table stopped")).await;
    bank.sql("INSERT INTO t VALUES (1)").await;
    let here = async |bank: &Bank<'_>| bank.here("SELECT id FROM public.t", &["public.t"]).await.concat();
    wait_until("the other goes on", async || here(&bank).await == ["1"]).await;
    let end = bank.value("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").await;
    let end: u64 = end.parse().expect("a number");
    // The server is told of what is safe once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        server.confirmed(&bank.slot()).await < Some(end),
        "what the stopped table lacks is kept"
    );

    let parts = bank.parts();
    let bank = stopped_and_started(&mut server, parts);
    bank.sql("INSERT INTO t VALUES (2)").await;
    wait_until("it goes on with the server", async || here(&bank).await == ["1", "2"]).await;
    assert!(bank.server.confirmed(&bank.slot()).await < Some(end), "and still is");
    service.stop().await;
}
