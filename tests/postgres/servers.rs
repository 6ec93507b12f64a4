//! The servers of these tests do what the tests need of them.

use crate::support::postgres::{Installation, Options, PostgresServer, wait_until};

#[tokio::test]
async fn every_installed_version_serves_and_keeps_its_rows_through_a_crash() {
    for installation in Installation::all() {
        let mut server = PostgresServer::start(Options::default().on(&installation));
        assert_eq!(server.value("postgres", "SHOW wal_level").await, "logical");
        let shown = server.value("postgres", "SHOW server_version_num").await;
        assert_eq!(shown.parse::<u32>().unwrap() / 10_000, server.version());
        server
            .sql("postgres", "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1), (2)")
            .await;
        server.crash();
        server.resume();
        assert_eq!(server.value("postgres", "SELECT count(*) FROM kept").await, "2");
        server.restart();
        assert_eq!(server.value("postgres", "SELECT count(*) FROM kept").await, "2");
    }
}

#[tokio::test]
async fn a_server_ends_with_its_last_use() {
    let server = PostgresServer::start(Options::default());
    let port = server.port();
    drop(server);
    wait_until("the port is closed", async || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    })
    .await;
}
