//! Who gets in, and how: TLS, passwords, sockets, sessions.

use std::path::PathBuf;
use std::time::Duration;

use alluvium::config::Secret;
use alluvium::error::{Error, Kind, Result};
use alluvium::sources::postgres::connection::{Address, Replication, Tls, control};

use crate::support::bank::Bank;
use crate::support::postgres::{Options, PostgresServer};

/// Opens a session of either kind, and asks both whether they are encrypted.
async fn enter(address: &Address) -> Result<[String; 2]> {
    const ENCRYPTED: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let said = |rows: Vec<Vec<Option<String>>>| rows[0][0].clone().unwrap();
    let from_control = control(address).await?.rows(ENCRYPTED).await.map(said)?;
    let from_replication = Replication::open(address).await?.query(ENCRYPTED).await.map(said)?;
    Ok([from_control, from_replication])
}

/// The errors of the two kinds of sessions, where both are refused for the same reason.
async fn refused(address: &Address) -> Error {
    let first = control(address).await.err().expect("a control session is refused");
    let second = Replication::open(address).await.err().expect("a replication session is refused");
    assert_eq!((first.kind, first.code), (second.kind, second.code), "{first} / {second}");
    first
}

fn tls(ca: PathBuf) -> Option<Tls> {
    Some(Tls {
        ca: Some(ca),
        ..Tls::default()
    })
}

#[tokio::test]
async fn tls_is_verified_to_the_host_name_and_each_way_of_being_wrong_is_refused() {
    let server = PostgresServer::start(Options::default().tls());
    let right = Address {
        host: "localhost".to_owned(),
        tls: tls(server.certificates().ca()),
        ..server.address("postgres")
    };
    assert_eq!(enter(&right).await.unwrap(), ["true", "true"]);

    let with = |tls: Option<Tls>| Address { tls, ..right.clone() };
    let wrong = [
        (with(tls(server.certificates().stranger())), "no authority"),
        (with(Some(Tls::default())), "no authority"),
        (
            Address {
                host: "127.0.0.1".to_owned(),
                ..right.clone()
            },
            "another host",
        ),
        (with(tls(PathBuf::from("/nowhere/ca.crt"))), "/nowhere/ca.crt"),
    ];
    for (address, why) in wrong {
        let error = refused(&address).await;
        assert_eq!((error.kind, error.code), (Kind::Config, "postgres_tls"), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    // Without TLS, pg_hba.conf has no line for us.
    let error = refused(&with(None)).await;
    assert_eq!((error.code, error.exit_code()), ("postgres_denied", 77), "{error}");

    let trusting = Tls {
        insecure_skip_verify: true,
        ..Tls::default()
    };
    let anyone = Address {
        host: "127.0.0.1".to_owned(),
        ..with(Some(trusting))
    };
    assert_eq!(enter(&anyone).await.unwrap(), ["true", "true"]);
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_asked_for() {
    let server = PostgresServer::shared();
    let address = Address {
        tls: Some(Tls {
            insecure_skip_verify: true,
            ..Tls::default()
        }),
        ..server.address("postgres")
    };
    let error = refused(&address).await;
    assert_eq!((error.kind, error.code), (Kind::Config, "postgres_tls"), "{error}");
    assert!(error.to_string().contains("offers no TLS"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_without_it_nobody_does() {
    let server = PostgresServer::start(Options::default().tls().hba("hostssl all all 127.0.0.1/32 cert"));
    let certificates = server.certificates();
    let address = |certificate| Address {
        host: "localhost".to_owned(),
        tls: Some(Tls {
            ca: Some(certificates.ca()),
            certificate,
            insecure_skip_verify: false,
        }),
        ..server.address("postgres")
    };
    assert_eq!(enter(&address(Some(certificates.client()))).await.unwrap(), ["true", "true"]);
    let error = refused(&address(None)).await;
    assert_eq!((error.kind, error.code), (Kind::Config, "postgres_denied"), "{error}");
    let swapped = certificates.client();
    let error = refused(&address(Some((swapped.1, swapped.0)))).await;
    assert_eq!(error.code, "postgres_tls", "{error}");
}

struct Passwords {
    folder: tempfile::TempDir,
}

impl Passwords {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }
    fn secret(&self, password: &str) -> Option<Secret> {
        let file = self.folder.path().join(password.len().to_string());
        std::fs::write(&file, password).unwrap();
        Some(Secret::File(file))
    }
}

#[tokio::test]
async fn the_right_password_gets_in_and_no_other_with_and_without_tls() {
    let passwords = Passwords::new();
    for secured in [false, true] {
        let options = Options::default().password("canary-right");
        let server = PostgresServer::start(if secured { options.tls() } else { options });
        let with = |password| Address {
            host: "localhost".to_owned(),
            tls: secured.then(|| tls(server.certificates().ca())).flatten(),
            password,
            ..server.address("postgres")
        };
        // Over TLS the server offers to tie the login to its certificate, and checks it: a wrong hash would be refused.
        enter(&with(passwords.secret("canary-right"))).await.unwrap();
        for wrong in [passwords.secret("canary-wrong-one"), None] {
            let error = refused(&with(wrong)).await;
            assert_eq!(
                (error.kind, error.code, error.exit_code()),
                (Kind::Config, "postgres_denied", 77),
                "{error}"
            );
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
        assert!(!format!("{:?}", with(passwords.secret("canary-right"))).contains("canary"));
    }
}

/// What the tests above say of an address, the program makes of its configuration.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_logs_in_with_what_its_configuration_names() {
    // A certificate of the client, and a password beside it.
    let hba = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full";
    let server = PostgresServer::start(Options::default().tls().password("canary-right").hba(hba));
    let (certificate, key) = server.certificates().client();
    let lines = |ca: PathBuf| {
        format!(
            "create = true\nfollow = [\"public.*\"]\npassword = {{ file = \"{{dir}}/password\" }}\n\
             tls = {{ ca = \"{}\", certificate = \"{}\", key = \"{}\" }}\n",
            ca.display(),
            certificate.display(),
            key.display()
        )
    };
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let mut bank = Bank::new(&server, "secured", sql, &lines(server.certificates().ca())).await;
    // The server's certificate is of `localhost`.
    bank.edit("@127.0.0.1:", "@localhost:");
    std::fs::write(bank.site.path("password"), "canary-right\n").expect("a password");
    bank.catch_up().await;
    bank.sql("INSERT INTO t VALUES (2)").await;
    bank.catch_up().await;
    bank.agrees("SELECT id FROM public.t", &["public.t"]).await;
    let (code, said) = bank.check().await;
    assert_eq!(code, 0, "{said}");

    std::fs::write(bank.site.path("password"), "canary-wrong").expect("a password");
    for (code, said) in [bank.check().await, bank.refused().await] {
        assert_eq!(code, 77, "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
    std::fs::write(bank.site.path("password"), "canary-right").expect("a password");
    bank.reconfigure(&lines(server.certificates().stranger()));
    bank.edit("@127.0.0.1:", "@localhost:");
    let (code, said) = bank.refused().await;
    assert!(code == 78 && said.contains("no authority"), "{code}: {said}");
}

#[tokio::test]
async fn a_password_is_never_sent_in_clear_over_an_open_connection() {
    let passwords = Passwords::new();
    let hba = "hostssl all all 127.0.0.1/32 password\nhostnossl all all 127.0.0.1/32 password\n";
    let server = PostgresServer::start(Options::default().tls().password("canary").hba(hba));
    let open = Address {
        host: "localhost".to_owned(),
        password: passwords.secret("canary"),
        ..server.address("postgres")
    };
    let error = refused(&open).await;
    assert_eq!((error.kind, error.code), (Kind::Config, "postgres_denied"), "{error}");
    assert!(error.to_string().contains("in clear"), "{error}");
    let secured = Address {
        tls: tls(server.certificates().ca()),
        ..open
    };
    assert_eq!(enter(&secured).await.unwrap(), ["true", "true"]);
}

#[tokio::test]
async fn old_md5_passwords_still_log_in() {
    let passwords = Passwords::new();
    let server = PostgresServer::start(
        Options::default()
            .hba("host all all 127.0.0.1/32 md5")
            .set("password_encryption", "md5"),
    );
    server.sql("postgres", "ALTER ROLE postgres PASSWORD 'canary'").await;
    let with = |password| Address {
        password,
        ..server.address("postgres")
    };
    enter(&with(passwords.secret("canary"))).await.unwrap();
    let error = refused(&with(passwords.secret("wrong one"))).await;
    assert_eq!(error.code, "postgres_denied", "{error}");
}

#[tokio::test]
async fn a_unix_socket_is_as_good_as_a_port() {
    let server = PostgresServer::shared();
    let address = Address {
        host: server.socket().display().to_string(),
        ..server.address("postgres")
    };
    assert_eq!(enter(&address).await.unwrap(), ["false", "false"]);
    let nobody_there = Address { port: 1, ..address };
    let error = refused(&nobody_there).await;
    assert_eq!((error.kind, error.exit_code()), (Kind::Transient, 69), "{error}");
}

#[tokio::test]
async fn sessions_look_the_same_however_the_server_and_the_role_are_set() {
    let server = PostgresServer::shared();
    let database = server.database("settings").await;
    server
        .sql(
            &database,
            &format!("ALTER DATABASE {database} SET statement_timeout = '1ms'; ALTER DATABASE {database} SET datestyle = 'SQL, DMY'"),
        )
        .await;
    let sql = "SELECT '2024-02-01 03:04:05.5+00'::timestamptz::text || '|' || '1 day 02:00'::interval::text || '|' || (0.1::float8 + 0.2)::text \
               || '|' || '\\x00ff'::bytea::text || '|' || (SELECT count(*) FROM pg_settings WHERE name LIKE '%statement_timeout' AND setting = '0')";
    let expected = "2024-02-01 03:04:05.5+00|1 day 02:00:00|0.30000000000000004|\\x00ff|1";
    let address = Address {
        application_name: "alluvium shop".to_owned(),
        ..server.address(&database)
    };
    // Whether so short a limit ends the statements that lift it is a matter of luck.
    for _ in 0..50 {
        control(&address).await.unwrap();
        Replication::open(&address).await.unwrap();
    }
    let session = control(&address).await.unwrap();
    assert_eq!(session.rows(sql).await.unwrap()[0][0].as_deref(), Some(expected));
    let mut replication = Replication::open(&address).await.unwrap();
    assert_eq!(replication.query(sql).await.unwrap()[0][0].as_deref(), Some(expected));
    let named = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'alluvium shop'");
    crate::support::postgres::wait_until("only both sessions are there", async || {
        server.value("postgres", &named).await == "2"
    })
    .await;
    session.close().await;
    replication.close().await;
    crate::support::postgres::wait_until("both sessions are gone", async || server.value("postgres", &named).await == "0").await;
}

#[tokio::test]
async fn a_copy_comes_whole_and_a_refused_statement_leaves_the_session_usable() {
    let server = PostgresServer::shared();
    let session = control(&server.address("postgres")).await.unwrap();
    let mut copy = session
        .copy_out("COPY (SELECT g FROM generate_series(1, 100000) g) TO STDOUT")
        .await
        .unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = copy.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 100_000);
    assert!(text.ends_with("\n100000\n"));

    let error = session.query("SELECT * FROM no_such_table", &[]).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Config, "postgres_refused"), "{error}");
    assert!(error.to_string().contains("no_such_table"), "{error}");
    let rows = session.query("SELECT $1::int8 + 1", &[&41_i64]).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 42);

    let mut replication = Replication::open(&server.address("postgres")).await.unwrap();
    let error = replication.query("SELECT 1/0").await.unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
    let rows = replication
        .query("SELECT 1, NULL UNION ALL SELECT 2, 'x' ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(rows, [[Some("1".to_owned()), None], [Some("2".to_owned()), Some("x".to_owned())]]);
}

#[tokio::test]
async fn a_dropped_session_ends_on_the_server_even_within_a_copy() {
    let server = PostgresServer::shared();
    let database = server.database("dropped").await;
    let session = control(&server.address(&database)).await.unwrap();
    let mut copy = session
        .copy_out("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 10000000)) TO STDOUT")
        .await
        .unwrap();
    copy.next().await.unwrap();
    drop((session, copy));
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    crate::support::postgres::wait_until("the session is gone", async || server.value("postgres", &count).await == "0").await;
}

#[tokio::test]
async fn row_security_refuses_to_copy_a_part_of_a_table() {
    let server = PostgresServer::shared();
    let database = server.database("rows").await;
    server
        .sql(
            &database,
            "CREATE TABLE secrets (id int); INSERT INTO secrets VALUES (1), (2); ALTER TABLE secrets ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY one ON secrets USING (id = 1); CREATE ROLE row_reader LOGIN; GRANT SELECT ON secrets TO row_reader",
        )
        .await;
    let address = Address {
        user: "row_reader".to_owned(),
        ..server.address(&database)
    };
    let session = control(&address).await.unwrap();
    let error = session.rows("SELECT * FROM public.secrets").await.unwrap_err();
    assert_eq!(error.code, "postgres_denied", "{error}");
}

#[tokio::test]
async fn nobody_there_and_a_server_that_does_not_answer_are_tried_again_later() {
    let mut server = PostgresServer::start(Options::default());
    let address = Address {
        connect_timeout: Duration::from_millis(500),
        ..server.address("postgres")
    };
    server.freeze();
    let error = refused(&address).await;
    assert_eq!((error.kind, error.exit_code()), (Kind::Transient, 69), "{error}");
    assert!(error.to_string().contains("no answer within"), "{error}");
    server.thaw();
    enter(&Address {
        connect_timeout: Duration::from_secs(30),
        ..address.clone()
    })
    .await
    .unwrap();
    server.stop();
    let error = refused(&address).await;
    assert_eq!((error.kind, error.exit_code()), (Kind::Transient, 69), "{error}");
}
