//! Broken files, and every problem of each in one answer.

mod postgres;

use super::*;

/// What is wrong with a text in a folder that holds `orders.avsc`, one line a problem.
fn problems(text: &str) -> Vec<String> {
    problems_for(Reach::All, text)
}

/// The same for a command that reaches so much.
fn problems_for(reach: Reach, text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("orders.avsc"), "{}").unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    match Document::parse(&folder.path().join("a.toml"), text.to_owned(), reach).into_config() {
        Ok(_) => Vec::new(),
        Err(problems) => {
            let line = |p: &Problem| {
                let place = p.place.map_or("-".to_owned(), |(line, column)| format!("{line}:{column}"));
                format!(
                    "{place} {}: {}",
                    p.key,
                    p.what.replace(&format!("{}/", folder.path().display()), "")
                )
            };
            problems.list.iter().map(line).collect()
        }
    }
}

/// A file without problems, with more lines in the pipeline, in the table, and at the end.
fn with(pipeline: &str, table: &str, end: &str) -> String {
    format!(
        "lake = \"lake\"\n[pipelines.shop.kafka]\nbrokers = \"localhost:9092\"\n{pipeline}\n\
         [pipelines.shop.tables.orders]\ntopic = \"orders\"\nschema = \"orders.avsc\"\n{table}\n{end}"
    )
}

#[test]
fn a_few_lines_are_enough() {
    assert_eq!(problems(&with("", "key = [\"id\"]", "")), Vec::<String>::new());
    let options = "options = { \"session.timeout.ms\" = 6000, \"check.crcs\" = true, \"client.rack\" = \"a\" }";
    assert_eq!(
        problems(&with(options, "", "[storage]\naws_allow_http = true")),
        Vec::<String>::new()
    );
}

#[test]
fn every_problem_is_told_at_once_with_its_place_and_the_nearest_name() {
    let text = r#"
lake = "lake"
memroy = "1 GiB"
grace = 25
http = { address = "localhost" }

[pipelines.shop.kafka]
broker = "localhost:9092"
start = "lastest"

[pipelines.shop.commit]
interval = "5"
rows = -1

[pipelines.shop.tables.orders]
topic = "orders"
schema = "order.avsc"
keys = ["id"]
merge = "vector"
metadata = ["__offset", "__offset"]

[pipelines.shop.tables.audit]
topic = "orders"
schema = "orders.avsc"
location = "lake/orders"
key = "id"
"#;
    let expected = [
        "3:1 memroy: unknown key; did you mean `memory`?",
        "4:1 grace: expected a time like \"5 s\", found the number 25",
        "5:10 http.address: `localhost` is not HOST:PORT, as in 127.0.0.1:9464",
        "7:17 pipelines.shop.kafka.brokers: missing: expected a text in quotes",
        "8:1 pipelines.shop.kafka.broker: unknown key; did you mean `brokers`?",
        "9:1 pipelines.shop.kafka.start: `lastest` is not one of `earliest`, `latest`; did you mean `latest`?",
        "12:1 pipelines.shop.commit.interval: `5` is not a time: write it like \"5 s\" or \"250 ms\"",
        "13:1 pipelines.shop.commit.rows: -1 is less than 0",
        "15:24 pipelines.shop.tables.orders.location: `pipelines.shop.tables.audit` lies at the same place, file://lake/orders/",
        "17:1 pipelines.shop.tables.orders.schema: order.avsc cannot be read: No such file or directory (os error 2)",
        "18:1 pipelines.shop.tables.orders.keys: unknown key; did you mean `key`?",
        "19:1 pipelines.shop.tables.orders.merge: `vector` is not one of `vectors`, `rewrite`; did you mean `vectors`?",
        "20:25 pipelines.shop.tables.orders.metadata[1]: `__offset` stands there twice",
        "26:1 pipelines.shop.tables.audit.key: expected a list, found a text",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn each_mistake_is_named() {
    let cases = [
        (with("", "", "nonsense"), "key with no value"),
        (with("", "topic = \"again\"", ""), "duplicate key"),
        ("lake = \"x\"".to_owned(), "pipelines: missing"),
        (
            with("", "", "[pipelines.shop.tables.\"a/b\"]\ntopic = \"t\"\nschema = \"orders.avsc\""),
            "not a name for a table",
        ),
        (
            with("", "key = [\"id\"]\npartition_by = [\"day\"]", ""),
            "partition_by: only of tables without a `key`",
        ),
        (
            with("", "key = [\"id\"]\ntombstones = \"keep\"", ""),
            "tombstones: only of tables without a `key`",
        ),
        (with("", "merge = \"rewrite\"", ""), "merge: only of tables with a `key`"),
        (
            with("", "on_unknown_row = \"leave_out\"", ""),
            "on_unknown_row: only of tables with a `key`",
        ),
        (with("", "key_from = \"message_key\"", ""), "key_from: only of tables with a `key`"),
        (with("", "key = [\"id\", \"id\"]", ""), "key[1]: `id` stands there twice"),
        (
            with("", "target_file_size = \"1 KiB\"", ""),
            "target_file_size: not a size for data files",
        ),
        (with("", "topic_pattern = \"x\"", ""), "topic_pattern: beside `topic`"),
        (
            with("", "[pipelines.shop.tables.b]\nschema = \"orders.avsc\"", ""),
            "b.topic: missing",
        ),
        (
            with("", "[pipelines.shop.tables.b]\ntopic_pattern = \"(\"\nschema = \"orders.avsc\"", ""),
            "unclosed group",
        ),
        (
            with("", "[pipelines.shop.tables.b]\ntopic = []\nschema = \"orders.avsc\"", ""),
            "an empty list",
        ),
        (
            with(
                "",
                "[pipelines.shop.tables.b]\ntopic = [\"a\", \"b c\"]\nschema = \"orders.avsc\"",
                "",
            ),
            "topic[1]: `b c` cannot be a topic",
        ),
        (
            with("", "[pipelines.shop.tables.b]\ntopic = 1\nschema = \"orders.avsc\"", ""),
            "expected a text in quotes or a list, found the number 1",
        ),
        (
            with("", "[pipelines.shop.tables.b]\ntopic = \"b\"", ""),
            "b.schema: missing: plain JSON",
        ),
        (
            with("", "[pipelines.shop.tables.b]\ntopic = \"b\"\nschema = \"folder\"", ""),
            "folder is a folder",
        ),
        (with("", "location = \"ftp://host/x\"", ""), "neither a folder nor a URL"),
        (with("", "location = \"lake/shop_dead_letters/x\"", ""), "one inside of the other"),
        (with("", "properties = { \"delta.appendonly\" = \"x\" }", ""), "alluvium sets it"),
        (
            with("tls = { ca = \"ca.pem\", certificate = \"orders.avsc\" }", "", ""),
            "tls.ca: ca.pem cannot be read",
        ),
        (
            with("tls = { certificate = \"orders.avsc\" }", "", ""),
            "`certificate` and `key` need each other",
        ),
        (
            with(
                "sasl = { mechanism = \"PLAIN\", username = \"u\", password = { env = \"PATH\" } }",
                "",
                "",
            ),
            "PLAIN sends the password readably",
        ),
        (
            with("sasl = { mechanism = \"PLAIN\", username = \"u\", password = \"p\" }", "", ""),
            "expected { env = … } or { file = … }, found a text",
        ),
        (
            with(
                "sasl = { mechanism = \"MD5\", username = \"u\", password = { file = \"p\" } }",
                "",
                "",
            ),
            "`SCRAM-SHA-256`",
        ),
        (
            with(
                "tls = { key = \"orders.avsc\", certificate = \"orders.avsc\", key_password = { env = \"NO_SUCH_NAME\" } }",
                "",
                "",
            ),
            "`NO_SUCH_NAME` is not set",
        ),
        (with("options = { \"ssl.key.password\" = \"p\" }", "", ""), "a secret in the open"),
        (with("options = { \"ssl.key.password\" = 1 }", "", ""), "a secret in the open"),
        (with("", "", "[storage]\naws_secret_access_key = \"p\""), "a secret in the open"),
        (
            with(
                "",
                "",
                "[pipelines.b.kafka]\nbrokers = \"b:1\"\n[pipelines.b.tables.orders]\ntopic = \"o\"\nschema = \"orders.avsc\"",
            ),
            "has the same name",
        ),
        (
            with("", "", "[pipelines.b.kafka]\nbrokers = \"b\"\n[pipelines.b.tables]"),
            "`b` is not HOST:PORT",
        ),
        (
            with("", "", "[pipelines.b.kafka]\nbrokers = \"b:1\"\n[pipelines.b.tables]"),
            "no table",
        ),
        (with("", "commit = { interval = \"1 ms\" }", ""), "less than 10 ms"),
        (with("", "commit = { rows = 0 }", ""), "0 would never publish"),
        (with("", "comment = 2026-01-01", ""), "found a date"),
        (
            with("", "", "[http]\naddress = 1").replace("lake =", "memory = \"1 MiB\"\nlake ="),
            "less than 16 MiB",
        ),
        ("[pipelines.shop]\n".to_owned() + &with("", "", ""), "shop"),
    ];
    for (text, expected) in cases {
        let found = problems(&text);
        assert!(
            found.iter().any(|line| line.contains(expected)),
            "{text}\nshould tell: {expected}\ntells: {found:#?}"
        );
    }
}

#[test]
fn pipelines_that_share_a_topic_do_not_share_a_group() {
    // That of `with` reads `orders`.
    let both = |brokers: &str, group: &str, topics: &str| {
        let second = format!(
            "[pipelines.b.kafka]\nbrokers = \"{brokers}\"\n{group}\n[pipelines.b.tables.b]\n{topics}\nschema = \"orders.avsc\"\n\
             [pipelines.c.kafka]\nbrokers = \"{brokers}\"\ngroup = \"d\"\n[pipelines.c.tables.c]\ntopic_pattern = \"o.*\"\nschema = \"orders.avsc\""
        );
        problems(&with("group = \"g\"", "", &second))
    };
    let (same, group) = ("other:1, LOCALHOST:9092", "group = \"g\"");
    for topics in ["topic = \"orders\"", "topic = [\"users\", \"orders\"]", "topic_pattern = \"ord.*\""] {
        let found = both(same, group, topics);
        let [only] = &found[..] else { panic!("{topics}: {found:?}") };
        for part in [
            "4:1 pipelines.shop.kafka.group",
            "`pipelines.b.kafka.group`",
            "`g`",
            "topic `orders`",
        ] {
            assert!(only.contains(part), "{part}: {only}");
        }
    }
    // Whether two patterns match one topic, nobody knows.
    let found = both(same, "group = \"d\"", "topic_pattern = \"users\"");
    assert!(
        matches!(&found[..], [only] if only.contains("pipelines.c.kafka.group: `pipelines.b.kafka.group`")),
        "{found:?}"
    );
    for (brokers, group, topics) in [
        (same, group, "topic = \"users\""),
        (same, group, "topic_pattern = \"rders\""),
        (same, "group = \"h\"", "topic = \"orders\""),
        (same, "", "topic = \"orders\""),
        ("elsewhere:9092", group, "topic = \"orders\""),
    ] {
        assert_eq!(both(brokers, group, topics), Vec::<String>::new(), "{brokers} {group} {topics}");
    }
}

#[test]
fn x1_a_secret_at_the_wrong_place_is_not_printed() {
    let wrong = with(
        "sasl = { mechanism = \"PLAIN\", username = \"u\", password = \"canary-4711\" }",
        "",
        "",
    );
    let found = problems(&wrong);
    assert!(!found.is_empty() && !found.concat().contains("canary"), "{found:?}");
}

#[test]
fn whoever_reaches_only_the_tables_needs_nothing_of_the_sources_and_is_told_of_all_other_mistakes() {
    let text = with(
        "tls = { certificate = \"no.pem\", key = \"no.pem\", key_password = { env = \"NO_SUCH_NAME\" } }\n\
         sasl = { mechanism = \"SCRAM-SHA-512\", username = \"\", password = { file = \"no-such-file\" } }\n\
         options = { \"ssl.keystore.password\" = { env = \"NO_SUCH_NAME\" }, \"ssl.key.password\" = \"open\" }",
        "merge = \"vector\"",
        "[storage]\naws_secret_access_key = { env = \"NO_SUCH_NAME\" }\n\
         [pipelines.bank.postgres]\nurl = \"postgresql://me@localhost/bank\"\npassword = { env = \"NO_SUCH_NAME\" }\nfollow = [\"public.*\"]",
    );
    // Each mistake, and whether it is also one to whoever reaches only the tables.
    let mistakes = [
        ("pipelines.shop.kafka.tls.certificate", false),
        ("pipelines.shop.kafka.tls.key", false),
        ("pipelines.shop.kafka.tls.key_password", false),
        ("pipelines.shop.kafka.sasl.username", true),
        ("pipelines.shop.kafka.sasl.password", false),
        ("pipelines.shop.kafka.options.\"ssl.keystore.password\"", false),
        ("pipelines.shop.kafka.options.\"ssl.key.password\"", true),
        ("pipelines.shop.tables.orders.merge", true),
        ("storage.aws_secret_access_key", true),
        ("pipelines.bank.postgres.password", false),
    ];
    for reach in [Reach::All, Reach::Tables] {
        let found = problems_for(reach, &text);
        let keys: Vec<&str> = found
            .iter()
            .filter_map(|line| line.split(' ').nth(1))
            .map(|key| key.trim_end_matches(':'))
            .collect();
        let told = mistakes.iter().filter(|(_, always)| reach == Reach::All || *always);
        let expected: Vec<&str> = told.map(|(key, _)| *key).collect();
        assert_eq!(keys, expected, "{reach:?}: {found:#?}");
    }
}

#[test]
fn a_secret_that_nobody_asked_for_is_told_to_be_missing_where_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("orders.avsc"), "{}").unwrap();
    let sasl = "sasl = { mechanism = \"SCRAM-SHA-512\", username = \"u\", password = { env = \"NO_SUCH_NAME\" } }";
    let config = Document::parse(&folder.path().join("a.toml"), with(sasl, "", ""), Reach::Tables)
        .into_config()
        .unwrap();
    let kafka = config.pipelines["shop"].kafka.as_ref().unwrap();
    let refused = kafka.sasl.as_ref().unwrap().password.reveal().unwrap_err();
    assert_eq!(refused.code, "secret_missing");
    assert!(refused.to_string().contains("`NO_SUCH_NAME`"), "{refused}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let problems = Document::read(Path::new("/no/such.toml"), Reach::All).err().unwrap();
    assert!(
        problems.to_string().contains("/no/such.toml") && problems.to_string().contains("--config"),
        "{problems}"
    );
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("orders.avsc"), "{}").unwrap();
    let config = Document::parse(&folder.path().join("a.toml"), with("", "", ""), Reach::All)
        .into_config()
        .unwrap();
    let table = &config.pipelines["shop"].tables["orders"];
    assert_eq!(table.schema, Some(folder.path().join("orders.avsc")));
    assert_eq!(config.state, folder.path().join(".alluvium"));
    assert_eq!(
        config.table_url("orders", None).unwrap().to_file_path().unwrap(),
        folder.path().join("lake/orders")
    );
}

/// `config/example.toml`, with the options that have no default as well.
fn whole_example() -> (String, String) {
    let text = include_str!("../../../config/example.toml");
    let option = regex::Regex::new(r#"(?m)^# (\[[a-z_.]+\]|"?[a-zA-Z_.]+"? = .*)$"#).unwrap();
    (text.to_owned(), option.replace_all(text, "$1").into_owned())
}

/// The paths of all options of a schema; `*` where people give names.
fn options(root: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        return options(root, &root["$defs"][name.trim_start_matches("#/$defs/")], at, found);
    }
    for shape in schema["anyOf"].as_array().into_iter().flatten() {
        options(root, shape, at, found);
    }
    // The two forms of a secret are a value, not options.
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let here = format!("{at}.{name}");
        options(root, inner, &here, found);
        found.push(here);
    }
    if schema["additionalProperties"]["$ref"]
        .as_str()
        .is_some_and(|name| !name.ends_with("/Text"))
    {
        options(root, &schema["additionalProperties"], &format!("{at}.*"), found);
    }
}

#[test]
fn the_example_has_every_option_and_no_other() {
    let (_, text) = whole_example();
    let document = Document::parse(Path::new("config/example.toml"), text, Reach::All);
    let named = |path: &KeyPath| {
        format!(".{path}")
            .replace(".shop", ".*")
            .replace(".bank", ".*")
            .replace(".orders", ".*")
    };
    let shown: Vec<String> = document.places.keys().map(named).collect();
    let (schema, mut all) = (schema(), Vec::new());
    options(&schema, &schema, "", &mut all);
    assert!(all.len() > 40, "{all:?}");
    for option in all {
        assert!(shown.contains(&option), "config/example.toml does not show {option}");
    }
    let unknown: Vec<&Problem> = document
        .problems
        .iter()
        .filter(|p| p.what.contains("unknown key") || p.what.contains("expected"))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_example_shows_the_defaults() {
    let (text, _) = whole_example();
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.toml"));
    let few = "lake = \"lake\"\n[pipelines.shop.kafka]\nbrokers = \"localhost:9092\"\n\
               [pipelines.shop.tables.orders]\ntopic = \"orders\"\nschema = \"../schemas/order.avsc\"\n\
               [pipelines.bank.postgres]\nurl = \"postgresql://alluvium@localhost:5432/bank\"\nfollow = [\"public.*\"]";
    let defaults = Document::parse(file, few.to_owned(), Reach::All).into_config().unwrap();
    assert_eq!(Document::parse(file, text, Reach::All).into_config().unwrap(), defaults);
}

#[test]
fn the_quick_start_has_no_problems() {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/quickstart.toml"));
    let document = Document::read(file, Reach::All).unwrap_or_else(|problems| panic!("{problems}"));
    document.into_config().unwrap();
}

#[test]
fn forty_thousand_mistakes_are_told_in_a_moment() {
    let mistakes = |indent: &str| (0..20_000).map(|n| format!("{indent}memory_{n} = 1\n")).collect::<String>();
    let text = format!("{}{}", mistakes(""), with("", &mistakes("  "), ""));
    let looked = || {
        let begun = tokio::time::Instant::now();
        let found = problems(&text);
        let took = begun.elapsed();
        assert_eq!(found.len(), 40_000);
        assert_eq!(found[19_999], "20000:1 memory_19999: unknown key; did you mean `memory`?");
        took
    };
    // What is quadratic takes three times as long at least, each time. A machine may stand still at one of them.
    let mut times = vec![looked()];
    while times.len() < 3 && times.iter().all(|took| took.as_secs() >= 5) {
        times.push(looked());
    }
    assert!(times.iter().any(|took| took.as_secs() < 5), "{times:?}");
}
