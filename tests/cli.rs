//! The program as people and schedulers meet it: exit codes, messages, endpoints, signals, the demo.

mod positions;
mod secrets;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;

use crate::support::kafka::Broker;
use crate::support::program::{Program, Site, ask, free_port, get, http};
use crate::support::python;
use crate::support::shop::{Shop, Source};

const SECRET: &str = "canary-4711-hunter2";

/// Runs the program to its end.
fn alluvium(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluvium"));
    command.args(args).current_dir(folder).env("CANARY", SECRET).env_remove("RUST_LOG");
    command.output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Runs the program, expects success, and returns its result.
fn result(folder: &Path, args: &[&str]) -> String {
    let output = alluvium(folder, args);
    let (told, log) = text(&output);
    assert_eq!(code(&output), 0, "{args:?}: {log}");
    told
}

/// A configuration for a broker that is not there. Nobody listens on such a port, while one that is free now may be another test's soon.
fn nowhere(site: &Site, name: &str, more: &str) -> String {
    let text = format!(
        "lake = \"{{dir}}/lake\"\n{more}\n[pipelines.shop.kafka]\nbrokers = \"127.0.0.1:1\"\n\
         sasl = {{ mechanism = \"SCRAM-SHA-512\", username = \"u\", password = {{ env = \"CANARY\" }} }}\n\
         [pipelines.shop.tables.orders]\ntopic = \"orders\"\nschema = \"orders.avsc\"\nkey = [\"id\"]\n"
    );
    site.configure(name, &text).display().to_string()
}

#[test]
fn an_answer_is_whole_in_every_format_or_leaves_what_was_there() {
    let site = Site::new();
    let folder = site.path("");
    let ask = |sql: &str, more: &[&str]| alluvium(&folder, &[&["query", sql, "--table", "none=x"], more].concat());
    let told = |sql: &str, format: &str| text(&ask(sql, &["--format", format])).0;
    let floats = "SELECT CAST('NaN' AS double) a, CAST('-Infinity' AS real) b, 1e300 c, CAST(NULL AS int) d";
    let line: Value = serde_json::from_str(&told(floats, "json")).unwrap();
    assert_eq!(
        (&line["a"], &line["b"], line.get("d")),
        (&"NaN".into(), &"-Infinity".into(), Some(&Value::Null)),
        "{line}"
    );
    assert_eq!(
        told("SELECT 1 AS one WHERE false", "csv"),
        "one\n",
        "the header is there without a row"
    );
    let nested = ask("SELECT 1 AS one, [1, 2] AS parts", &["--format", "csv", "-o", "there.csv"]);
    assert_eq!(code(&nested), 64);
    assert!(
        text(&nested).1.contains("column `parts`") && text(&nested).1.contains("`parts[1]`"),
        "{:?}",
        text(&nested)
    );
    let twice = ask(
        "SELECT a.v, b.v FROM (VALUES (1)) AS a(v), (VALUES (2)) AS b(v)",
        &["--format", "json"],
    );
    assert_eq!((code(&twice), text(&twice).0.as_str()), (64, ""));
    assert!(text(&twice).1.contains("two columns are called `v`"), "{:?}", text(&twice));
    // Postgres has dates that no text can tell.
    let far = "SELECT arrow_cast(CAST(v AS int), 'Date32') AS day FROM (VALUES (97896000)) AS n(v)";
    for sql in [
        far,
        &format!("SELECT [day] AS day FROM ({far}) AS t"),
        &format!("SELECT named_struct('a', [day]) AS day FROM ({far}) AS t"),
    ] {
        for format in ["table", "json"] {
            let beyond = ask(sql, &["--format", format]);
            assert_eq!((code(&beyond), text(&beyond).0.as_str()), (64, ""), "{sql}");
            assert!(text(&beyond).1.contains("column `day`"), "{:?}", text(&beyond));
        }
    }
    assert_eq!(code(&ask(far, &["--format", "parquet", "-o", "far.parquet"])), 0);
    // A query that fails half-way.
    std::fs::write(site.path("there.csv"), "kept").unwrap();
    let fails = ask(
        "SELECT 1 / (1 - v) FROM (VALUES (0), (1)) AS t(v)",
        &["--format", "csv", "-o", "there.csv"],
    );
    assert_eq!(code(&fails), 65);
    assert_eq!(std::fs::read_to_string(site.path("there.csv")).unwrap(), "kept");
    assert_eq!(code(&ask("SELECT 7 AS seven", &["--format", "csv", "-o", "there.csv"])), 0);
    assert_eq!(std::fs::read_to_string(site.path("there.csv")).unwrap(), "seven\n7\n");
    let others = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
    assert!(
        others.into_iter().all(|name| !name.to_string_lossy().contains("part")),
        "nothing is left behind"
    );
    // A reader that goes away has seen what it wanted, of more rows than a pipe holds.
    let many = "WITH d AS (SELECT * FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS t(v)) \
                SELECT a.v FROM d a, d b, d c, d e, d f";
    for format in ["csv", "json", "table"] {
        let script = format!(
            "set -o pipefail; '{}' query '{many}' --table none=x --format {format} | head -1",
            env!("CARGO_BIN_EXE_alluvium")
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!((code(&output), text(&output).1.as_str()), (0, ""), "{format}");
    }
}

#[test]
fn each_way_to_fail_has_its_exit_code() {
    let site = Site::new();
    let broken = site.configure("broken", "lake = 1\n").display().to_string();
    let folder = site.path("");
    let cases: [(&[&str], i32, &str); 9] = [
        (&[], 64, "Usage"),
        (&["rum"], 64, "run"),
        (&["run", "--config", "no-such.toml"], 78, "no-such.toml"),
        (&["check", "--config", &broken], 78, "pipelines"),
        (&["history", "orders", "--config", &broken], 78, "lake"),
        (&["query", "SELECT 1", "--table", "orders"], 64, "NAME=PLACE"),
        (
            &["query", "SELECT 1", "--table", "o=x", "--position", "orders"],
            64,
            "LANE:POSITION",
        ),
        (
            &["query", "SELECT 1", "--version", "1", "--timestamp", "2026-01-01"],
            64,
            "cannot be used with",
        ),
        (&["query", "SELECT * FROM orders", "--table", "other=lake/other"], 64, "other"),
    ];
    for (args, expected, told) in cases {
        let output = alluvium(&folder, args);
        let (_, log) = text(&output);
        assert_eq!(code(&output), expected, "{args:?}: {log}");
        assert!(log.contains(told), "{args:?} should tell `{told}`: {log}");
    }
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once_columns_included() {
    let site = Site::new();
    let text = "lake = \"lake\"\nmemroy = \"1 GiB\"\n[pipelines.shop.kafka]\nbrokers = \"b:9092\"\noptions = { \"enable.auto.commit\" = \"true\", \
                \"fetch.wait.max.mss\" = \"5\" }\n[pipelines.shop.tables.orders]\ntopic = \"orders\"\nschema = \"orders.avsc\"\nkey = [\"idd\", \"weight\"]\n\
                [pipelines.shop.tables.audit]\ntopic = \"orders\"\nschema = \"orders.avsc\"\nmetadata = [\"__offsett\"]\npartition_by = [\"day\"]\n";
    let file = site.configure("broken", text);
    let output = alluvium(&site.path(""), &["check", "--log-format", "text", "--config", "broken.toml"]);
    let (_, log) = self::text(&output);
    assert_eq!(code(&output), 78);
    let expected = [
        "broken.toml:2:1: memroy: unknown key; did you mean `memory`?",
        "broken.toml:5:13: pipelines.shop.kafka.options.\"enable.auto.commit\": cannot be set",
        "broken.toml:5:44: pipelines.shop.kafka.options.\"fetch.wait.max.mss\": librdkafka knows no such property; did you mean \
         `fetch.wait.max.ms`?",
        "broken.toml:9:8: pipelines.shop.tables.orders.key[0]: there is no column `idd`; did you mean `id`?",
        "broken.toml:9:15: pipelines.shop.tables.orders.key[1]: column `weight` is Float64, which cannot be a key",
        "broken.toml:13:13: pipelines.shop.tables.audit.metadata[0]: there is no metadata column `__offsett`",
    ];
    for line in expected {
        assert!(log.contains(line), "should tell {line}: {log}");
    }
    assert!(log.contains("6 problems"), "{} {log}", file.display());
}

/// They are known before any message is there to say the others.
#[test]
fn what_is_wrong_with_metadata_columns_is_told_without_a_schema() {
    let site = Site::new();
    let of = |metadata: &str| {
        let text = "lake = \"lake\"\n[pipelines.shop.kafka]\nbrokers = \"b:9092\"\n[pipelines.shop.tables.audit]\ntopic = \"orders\"\n\
                    format = \"debezium-json\"\n";
        site.configure("early", &format!("{text}{metadata}\n"));
        let output = alluvium(&site.path(""), &["check", "--log-format", "text", "--config", "early.toml"]);
        assert_eq!(code(&output), 78, "{metadata}");
        self::text(&output).1
    };
    let log = of("metadata = [\"__offset\"]");
    assert!(
        log.contains("early.toml:7:1: pipelines.shop.tables.audit.metadata: ") && log.contains("add `__op`"),
        "{log}"
    );
    let log = of("metadata = [\"__op\", \"__lsnn\"]");
    assert!(log.contains("audit.metadata[1]: there is no metadata column `__lsnn`"), "{log}");
    let log = of("");
    assert!(log.contains("audit.metadata: ") && log.contains("add `__op`"), "{log}");
}

#[test]
fn each_mistake_in_the_options_of_the_store_has_its_line_and_the_nearest_name() {
    let site = Site::new();
    let text = "lake = \"s3://bucket/lake\"\n[storage]\naws_regoin = \"eu-central-1\"\naws_allow_http = \"maybe\"\n\
                timeout = { env = \"CANARY\" }\ngoogle_base_url = \"http://g\"\naws_secret_access_key = { env = \"CANARY\" }\n\
                [pipelines.shop.kafka]\nbrokers = \"b:9092\"\n[pipelines.shop.tables.orders]\ntopic = \"orders\"\nschema = \"orders.avsc\"\n\
                [pipelines.shop.tables.there]\ntopic = \"orders\"\nschema = \"orders.avsc\"\nlocation = \"gs://bucket/there\"\n";
    site.configure("stores", text);
    let output = alluvium(&site.path(""), &["check", "--log-format", "text", "--config", "stores.toml"]);
    let (_, log) = self::text(&output);
    assert_eq!(code(&output), 78, "{log}");
    for line in [
        "stores.toml:3:1: storage.aws_regoin: not an option of S3 or Google's store; did you mean `aws_region`?",
        "stores.toml:4:1: storage.aws_allow_http: the store does not take it: ",
        "stores.toml:5:1: storage.timeout: the store does not take it: not a value for it (which is a secret)",
        "stores.toml:7:1: storage.aws_secret_access_key: the store does not take it: there is no `aws_access_key_id`",
    ] {
        assert!(log.contains(line), "should tell {line}: {log}");
    }
    assert!(!log.contains("google_base_url") && !log.contains(SECRET), "{log}");
}

#[test]
fn a_check_leaves_no_folder_behind() {
    let site = Site::new();
    let config = nowhere(&site, "traceless", "http = { address = \"\" }");
    let before: Vec<_> = std::fs::read_dir(site.path(""))
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    let output = alluvium(&site.path(""), &["check", "--config", &config]);
    assert!(text(&output).0.contains("table orders"), "{:?}", text(&output));
    let after: Vec<_> = std::fs::read_dir(site.path(""))
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(after.len(), before.len(), "{after:?}");
}

#[test]
fn the_program_tells_about_itself() {
    let site = Site::new();
    let folder = site.path("");
    let schema: Value = serde_json::from_str(&result(&folder, &["schema"])).unwrap();
    assert!(jsonschema::validator_for(&schema).is_ok());
    for shell in ["bash", "zsh", "fish"] {
        assert!(result(&folder, &["completions", shell]).contains("until-caught-up"), "{shell}");
    }
    assert!(result(&folder, &["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_broker_that_is_not_there_is_named_with_its_exit_code() {
    let site = Site::new();
    let config = nowhere(&site, "nowhere", "http = { address = \"\" }");
    let output = alluvium(&site.path(""), &["check", "--config", &config]);
    let (told, log) = text(&output);
    assert_eq!(code(&output), 69, "{told}{log}");
    assert!(
        told.contains("table orders (upsert by id)") && told.contains("will be created, 7 columns"),
        "{told}"
    );
    assert!(told.contains("127.0.0.1:") && told.contains("WRONG"), "{told}");
}

#[tokio::test]
async fn x1_a_secret_is_nowhere_to_be_seen() {
    let site = Site::new();
    let port = free_port();
    let config = nowhere(
        &site,
        "secret",
        &format!("{}\nstorage = {{ aws_secret_access_key = {{ env = \"CANARY\" }} }}", http(port)),
    );
    let mut program = site.start_with("secret", &["run", "-vv", "--config", &config], |command| {
        command.env("CANARY", SECRET);
    });
    let ready = program
        .until("its endpoints", Duration::from_secs(30), || get(port, "/readyz"))
        .await;
    assert_eq!(ready.0, 503, "{}", ready.1);
    let retrying = || get(port, "/status").filter(|(_, body)| body.contains("retrying"));
    let (_, status) = program.until("the first try to fail", Duration::from_secs(60), retrying).await;
    let (_, metrics) = get(port, "/metrics").unwrap();
    let (_, ready) = get(port, "/readyz").unwrap();
    assert!(ready.contains("shop is retrying") && ready.contains("127.0.0.1"), "{ready}");
    assert_eq!(get(port, "/livez").unwrap().0, 200, "the process lives while its broker does not");
    for shown in [status, metrics, ready, program.log_text()] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    // As `timeout` does it: that is one signal.
    program.signal(libc::SIGTERM);
    tokio::time::sleep(Duration::from_millis(2)).await;
    program.signal(libc::SIGTERM);
    let exit = program.wait(Duration::from_secs(60)).await;
    // Where the machine stood still in between they are two: the log tells when each was seen.
    let log = program.log_text();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let seen = |words: &str| {
        let line = lines
            .iter()
            .find(|line| line["message"].as_str().is_some_and(|text| text.starts_with(words)))?;
        DateTime::parse_from_rfc3339(line["timestamp"].as_str()?).ok()
    };
    let apart = seen("stopping: publishing")
        .zip(seen("stopped at once by a second signal"))
        .map(|(first, second)| (second - first).num_milliseconds());
    let expected = if apart.is_some_and(|apart| apart >= 200) { 143 } else { 0 };
    assert_eq!(exit.status.code(), Some(expected), "{apart:?}: {}", program.log_tail());
}

#[tokio::test]
async fn the_endpoints_answer_as_scrapers_and_probes_expect() {
    let site = Site::new();
    let port = free_port();
    let config = nowhere(&site, "endpoints", &http(port));
    let mut program = site.start_with("endpoints", &["run", "--config", &config], |command| {
        command.env("CANARY", SECRET);
    });
    program
        .until("its endpoints", Duration::from_secs(30), || get(port, "/livez"))
        .await;
    for (path, kind) in [
        ("/metrics", "content-type: text/plain; version=0.0.4; charset=utf-8"),
        ("/livez", "content-type: text/plain; charset=utf-8"),
        ("/readyz", "content-type: text/plain; charset=utf-8"),
        ("/status", "content-type: application/json"),
    ] {
        let (code, head, body) = ask(port, "GET", path).unwrap();
        assert!(head.contains(kind) && body.ends_with('\n'), "{path}: {head}");
        let (same, head, body) = ask(port, "HEAD", path).unwrap();
        assert!(same == code && head.contains(kind) && body.is_empty(), "{path}: {head}");
        let (refused, head, _) = ask(port, "POST", path).unwrap();
        assert!(refused == 405 && head.contains("allow: get,head"), "{path}: {head}");
    }
    for path in ["/", "/metrics/", "/health"] {
        let (code, _, body) = ask(port, "GET", path).unwrap();
        assert!(code == 404 && body.contains("/readyz"), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_told_by_the_name_of_the_option() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = nowhere(&site, "taken", &http(address.port()));
    let output = alluvium(&site.path(""), &["run", "--config", &config]);
    let (_, log) = text(&output);
    assert_eq!(code(&output), 78, "{log}");
    assert!(log.contains("http.address") && log.contains(&address.to_string()), "{log}");
}

/// Waits until its pipeline has begun: its endpoints are there a moment before the signals are listened to.
async fn until_begun(program: &mut Program, port: u16) {
    let begun = || get(port, "/readyz").filter(|(_, text)| !text.contains("no pipeline has started"));
    program.until("its pipeline to begin", Duration::from_secs(30), begun).await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let site = Site::new();
    let port = free_port();
    let config = nowhere(&site, "signals", &http(port));
    let mut program = site.start_with("signals", &["run", "--config", &config], |command| {
        command.env("CANARY", SECRET);
    });
    until_begun(&mut program, port).await;
    // Both are there when it goes on: the second is seen before the first has led to anything.
    program.signal(libc::SIGSTOP);
    program.signal(libc::SIGTERM);
    program.signal(libc::SIGINT);
    program.signal(libc::SIGCONT);
    let exit = program.wait(Duration::from_secs(30)).await;
    assert!(matches!(exit.status.code(), Some(130 | 143)), "{}", exit.status);
}

#[tokio::test]
async fn a_closed_terminal_is_an_orderly_end_but_for_what_was_started_to_outlive_it() {
    let site = Site::new();
    for outlives in [false, true] {
        let port = free_port();
        let config = nowhere(&site, "hangup", &http(port));
        let mut program = site.start_with("hangup", &["run", "--config", &config], |command| {
            command.env("CANARY", SECRET);
            at_hangup(command, if outlives { libc::SIG_IGN } else { libc::SIG_DFL });
        });
        until_begun(&mut program, port).await;
        program.signal(libc::SIGHUP);
        if outlives {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(get(port, "/livez").expect("it lives").0, 200);
            program.signal(libc::SIGTERM);
        }
        assert_eq!(program.wait(Duration::from_secs(30)).await.status.code(), Some(0), "{outlives}");
    }
}

/// What the process does at SIGHUP when it begins, as `nohup` sets it.
fn at_hangup(command: &mut Command, does: libc::sighandler_t) {
    use std::os::unix::process::CommandExt;
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGHUP, does);
            Ok(())
        });
    }
}

#[tokio::test]
async fn r1_sigterm_publishes_what_is_staged_and_the_endpoints_tell_of_it() {
    let site = Site::new();
    let source = Source::new(Broker::shared(), 4).await;
    source.fill(2_000);
    let port = free_port();
    // Nothing is published before the signal.
    let shop = Shop {
        top: &http(port),
        commit: "interval = \"1 h\"",
        ..Shop::on(&source)
    };
    let config = shop.configure(&site).display().to_string();
    let folder = site.path("");
    let plan = result(&folder, &["check", "--config", &config]);
    assert!(plan.contains("4 partitions") && plan.contains("will be created"), "{plan}");

    let mut program = site.start("run", &["run", "--config", &config]);
    let caught_up = || {
        let (_, body) = get(port, "/status")?;
        let status: Value = serde_json::from_str(&body).ok()?;
        let lanes = status["pipelines"]["shop"]["lanes"].as_object()?.clone();
        (lanes.len() == 4 && lanes.values().all(|lane| lane["lag"] == 0)).then_some(status)
    };
    let status = program.until("everything to be read", Duration::from_secs(60), caught_up).await;
    assert_eq!(status["pipelines"]["shop"]["state"], "running");
    assert_eq!(get(port, "/readyz").unwrap(), (200, "ok\n".to_owned()));
    let (_, metrics) = get(port, "/metrics").unwrap();
    for name in [
        "alluvium_build_info{",
        "alluvium_pipeline_state{",
        "alluvium_buffer_limit_bytes{",
        "alluvium_panics_total 0",
        "# HELP alluvium_records_total",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    // What is read is staged a moment later, which nothing tells of.
    tokio::time::sleep(Duration::from_secs(3)).await;
    program.signal(libc::SIGTERM);
    let exit = program.wait(Duration::from_secs(60)).await;
    assert_eq!(exit.status.code(), Some(0), "{}", program.log_tail());

    let count = result(
        &folder,
        &["query", "SELECT count(*) AS n FROM audit", "--config", &config, "--format", "csv"],
    );
    assert_eq!(count, "n\n2000\n");
    let plan = result(&folder, &["check", "--config", &config]);
    assert!(plan.contains("will go on behind") && plan.contains("0 records to read"), "{plan}");
}

#[tokio::test]
async fn check_goes_on_behind_the_first_record_of_a_topic() {
    let site = Site::new();
    let source = Source::new(Broker::shared(), 4).await;
    source.fill(1);
    let config = Shop::on(&source).configure(&site).display().to_string();
    let folder = site.path("");
    result(&folder, &["run", "--until-caught-up", "--config", &config]);
    let plan = result(&folder, &["check", "--config", &config]);
    assert!(plan.contains("will go on behind") && !plan.contains("loaded again"), "{plan}");
}

#[tokio::test]
async fn the_demo_tells_its_story_and_its_commands_and_lines_work() {
    let site = Site::new();
    // A path as people have them.
    let folder = site.path("Ann's files");
    std::fs::create_dir(&folder).unwrap();
    let story = result(&folder, &["demo", "--path", "demo", "--changes", "6000"]);
    assert!(story.contains("6,000 changes") && story.contains("every event once"), "{story}");

    // What it names can be used afterwards.
    let config = "demo/demo.toml";
    let history = result(
        &folder,
        &["history", "orders", "--config", config, "--format", "json", "--limit", "1000"],
    );
    let versions: Vec<Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(versions.len() > 3 && versions.last().unwrap()["version"] == 0, "{history}");
    let sql = "SELECT count(*) AS n FROM orders";
    let by = |option: &str, value: &str| result(&folder, &["query", sql, "--config", config, "--format", "json", option, value]);
    let newest = versions[0]["version"].to_string();
    assert_eq!(
        by("--version", &newest),
        by("--timestamp", versions[0]["timestamp"].as_str().unwrap())
    );
    // A compaction, if one is the newest, moves no lane.
    let (version, (lane, positions)) = versions
        .iter()
        .find_map(|version| {
            Some((
                version["version"].to_string(),
                version["alluvium"]["positions"].as_object()?.iter().next()?,
            ))
        })
        .unwrap();
    assert_eq!(by("--version", &version), by("--position", &format!("{lane}:{}", positions[1])));
    let place = [
        "query",
        sql,
        "--table",
        "orders=demo/orders",
        "--format",
        "csv",
        "--output",
        "n.csv",
    ];
    assert_eq!(result(&folder, &place), "");
    assert!(std::fs::read_to_string(folder.join("n.csv")).unwrap().starts_with("n\n"));
    let parquet = [
        "query",
        "SELECT * FROM orders",
        "--config",
        config,
        "--format",
        "parquet",
        "--output",
        "orders.parquet",
    ];
    result(&folder, &parquet);
    assert!(std::fs::read(folder.join("orders.parquet")).unwrap().starts_with(b"PAR1"));
    let asked: Vec<&str> = story.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(asked.len() == 4 && asked[0].starts_with("sql="), "{asked:?}");
    let output = Command::new("sh").args(["-ec", &asked.join("\n")]).output().unwrap();
    assert!(
        output.status.success() && text(&output).0.contains("shipped"),
        "{:?}",
        text(&output)
    );

    let line = story.lines().find(|line| line.contains("python3 -c")).unwrap();
    let python = python::interpreter();
    let output = Command::new("sh")
        .args(["-c", &line.replace("python3", python.to_str().unwrap())])
        .output()
        .unwrap();
    let (told, log) = text(&output);
    assert!(output.status.success() && told.contains("orders"), "{told}{log}");

    let mine = folder.join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("thesis"), "x").unwrap();
    let refused = alluvium(&folder, &["demo", "--path", "mine"]);
    assert_eq!(code(&refused), 73, "{}", text(&refused).1);
}
