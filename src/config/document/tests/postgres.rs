//! Mistakes with databases, and what is none.

use super::*;

/// A file that follows a database, with more lines for it and at the end.
fn bank(postgres: &str, end: &str) -> String {
    format!("lake = \"lake\"\n[pipelines.bank.postgres]\nurl = \"postgresql://me@localhost/bank\"\n{postgres}\n{end}")
}

#[test]
fn each_mistake_with_a_database_is_named() {
    let follow = "follow = [\"public.*\"]";
    assert_eq!(problems(&bank(follow, "")), Vec::<String>::new());
    let table = |lines: &str| bank("", &format!("[pipelines.bank.tables.orders]\n{lines}"));
    assert_eq!(problems(&table("table = \"public.orders\"")), Vec::<String>::new());
    let cases = [
        (bank("", ""), "tables: no table"),
        (bank("follow = [\"orders\"]", ""), "follow[0]: write SCHEMA.TABLE"),
        (
            bank("follow = [\"S 2.x.*\"]", ""),
            "as in public.orders or public.*; a name with a dot in it stands in double quotes: '\"S 2.x\".*'",
        ),
        (bank(&format!("{follow}\nslot = \"No\""), ""), "slot: slots have names"),
        (
            bank(&format!("{follow}\ncopy_connections = 0"), ""),
            "copy_connections: write 1 to 32",
        ),
        (
            bank(follow, "[pipelines.bank.kafka]\nbrokers = \"b:1\""),
            "postgres: beside `kafka`: a pipeline has one source",
        ),
        (table("mode = \"append\""), "table: missing"),
        (table("table = \"public.*\""), "table: write SCHEMA.TABLE"),
        (table("table = \"public.orders\"\ntopic = \"t\""), "topic: only with `kafka`"),
        (
            table("table = \"public.orders\"\nmode = \"append\"\nkey = [\"id\"]"),
            "key: not with `mode",
        ),
        (
            table("table = \"public.orders\"\npartition_by = [\"day\"]"),
            "partition_by: only with `mode",
        ),
        (
            table("table = \"public.orders\"\ncommit = { interval = \"1 s\" }"),
            "commit: the tables of a database are published together",
        ),
        (with("", "table = \"public.orders\"", ""), "table: only with `postgres`"),
        ("lake = \"l\"\n[pipelines.x]".to_owned(), "no source"),
    ];
    for (text, expected) in cases {
        let found = problems(&text);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{text}\n{expected}\n{found:#?}"
        );
    }
}

#[test]
fn p23_two_pipelines_do_not_share_a_slot_under_names_that_make_one() {
    let one = |name: &str| format!("[pipelines.{name}.postgres]\nurl = \"postgresql://a@h/db\"\nfollow = [\"{name}.*\"]\n");
    let text = format!("lake = \"/lake\"\n{}{}", one("shop-a"), one("shop_a"));
    let problems = problems(&text);
    assert!(
        problems.len() == 1 && problems[0].contains("same slot, `alluvium_shop_a`"),
        "{problems:?}"
    );
}

#[test]
fn two_pipelines_do_not_follow_tables_that_lie_at_one_place() {
    let one =
        |name: &str, follow: &str| format!("[pipelines.{name}.postgres]\nurl = \"postgresql://a@h/{name}\"\nfollow = [\"{follow}\"]\n");
    let cases = [
        ("public.*", "public.*", true),
        ("public.*", "shop.*", false),
        ("*.*", "shop.orders", true),
        ("public.a*", "public.*b", true),
        ("public.a", "public.ab", false),
    ];
    for (first, second, same) in cases {
        let found = problems(&format!("lake = \"/lake\"\n{}{}", one("a", first), one("b", second)));
        assert_eq!(found.len(), usize::from(same), "{first} {second}: {found:?}");
        assert!(
            !same || found[0].contains("follow[0]: tables that `pipelines.a.postgres.follow"),
            "{found:?}"
        );
    }
}

#[test]
fn a_followed_table_is_beside_what_lies_at_its_place_or_around_or_within() {
    let table = |name: &str, location: &str| format!("[pipelines.bank.tables.{name}]\ntable = \"s.{name}\"\nlocation = \"{location}\"\n");
    let text = bank(
        "follow = [\"public.*\"]",
        &[
            table("inner", "/lake/public/a/b"),
            table("same", "/lake/public/c"),
            table("outer", "/lake/all"),
        ]
        .concat(),
    );
    let config = Document::parse(Path::new("/x.toml"), text, Reach::All).into_config().unwrap();
    let beside = |place: &str| config.table_beside(&url::Url::from_directory_path(place).unwrap());
    let cases = [
        ("/lake/public/a", Some("inner")),
        ("/lake/public/c", Some("same")),
        ("/lake/all/t", Some("outer")),
        ("/lake/public/b", None),
        ("/lake/public/ab", None),
    ];
    for (place, name) in cases {
        assert_eq!(beside(place), name.map(|name| format!("pipelines.bank.tables.{name}")), "{place}");
    }
}
