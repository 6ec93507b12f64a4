//! Each lack of a server by itself, and what is said of it.

use super::*;
use crate::sources::postgres::identity::Unidentified;

fn wanted() -> Wanted {
    Wanted {
        publication: "p".to_owned(),
        slot: "s".to_owned(),
        tables: vec![("public".to_owned(), "t".to_owned())],
        copies: true,
        two_phase: false,
        create: false,
    }
}

fn found() -> Found {
    Found {
        kind: 'r',
        logged: true,
        is_partition: false,
        has_columns: true,
        unidentified: Unidentified::default(),
        deferrable: None,
        usable_schema: true,
        unreadable: Vec::new(),
        rows_hidden: false,
        owner: None,
        published: true,
    }
}

fn unidentified() -> Unidentified {
    Unidentified {
        tables: vec!["\"public\".\"t\"".to_owned()],
        ..Unidentified::default()
    }
}

fn facts(found: Found) -> Facts {
    Facts {
        version: 150_018,
        database: "shop".to_owned(),
        role: "ann".to_owned(),
        may_replicate: true,
        may_create: true,
        standby: false,
        wal_level: "logical".to_owned(),
        slots: Room { most: 10, used: 3 },
        senders: Room { most: 10, used: 3 },
        publication: Some(Publication::default()),
        tables: vec![Table {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            found: Some(found),
        }],
        slot: None,
    }
}

fn good_slot() -> Slot {
    Slot {
        plugin: Some("pgoutput".to_owned()),
        database: Some("shop".to_owned()),
        wal_status: Some("reserved".to_owned()),
        confirmed: 1,
        ..Slot::default()
    }
}

#[test]
fn a_server_that_has_all_has_no_problem() {
    assert_eq!(problems(&facts(found()), &wanted()), []);
    let with_slot = Facts {
        slot: Some(good_slot()),
        ..facts(found())
    };
    assert_eq!(problems(&with_slot, &wanted()), []);
    assert!(refusal(&[]).is_none());
}

#[test]
fn two_phase_commits_are_asked_of_servers_that_know_them() {
    let wanted = Wanted {
        two_phase: true,
        ..wanted()
    };
    assert_eq!(problems(&facts(found()), &wanted), []);
    let old = Facts {
        version: 140_024,
        ..facts(found())
    };
    let codes: Vec<_> = problems(&old, &wanted).into_iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["two_phase"]);
}

#[test]
fn each_lack_is_named_with_what_helps() {
    let all = || facts(found());
    let server = [
        (Facts { version: 130_004, ..all() }, "postgres_version", "14 or newer"),
        (Facts { standby: true, ..all() }, "postgres_standby", "the primary"),
        (
            Facts {
                wal_level: "replica".to_owned(),
                ..all()
            },
            "postgres_wal_level",
            "ALTER SYSTEM SET wal_level = 'logical';",
        ),
        (
            Facts {
                slots: Room { most: 4, used: 3 },
                ..all()
            },
            "postgres_slots",
            "max_replication_slots = 5;",
        ),
        (
            Facts {
                senders: Room { most: 4, used: 3 },
                ..all()
            },
            "postgres_busy",
            "max_wal_senders = 5;",
        ),
        (
            Facts {
                may_replicate: false,
                ..all()
            },
            "postgres_denied",
            "ALTER ROLE \"ann\" REPLICATION;",
        ),
        (
            Facts {
                publication: None,
                ..all()
            },
            "publication_missing",
            "CREATE PUBLICATION \"p\" FOR TABLE \"public\".\"t\" WITH",
        ),
    ];
    let tables = [
        (Found { kind: 'v', ..found() }, "table_kind", "Only tables"),
        (
            Found { logged: false, ..found() },
            "table_unlogged",
            "ALTER TABLE \"public\".\"t\" SET LOGGED;",
        ),
        (
            Found {
                unidentified: unidentified(),
                ..found()
            },
            "table_identity",
            "ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL;",
        ),
        (
            Found {
                unidentified: Unidentified {
                    obstacle: Some(Obstacle::Generated),
                    ..unidentified()
                },
                ..found()
            },
            "table_identity",
            "ALTER PUBLICATION \"p\" SET (publish_generated_columns = stored);",
        ),
        (
            Found {
                unreadable: vec!["\"public\".\"t\"".to_owned()],
                ..found()
            },
            "postgres_denied",
            "Run: GRANT SELECT ON \"public\".\"t\" TO \"ann\";",
        ),
        (
            Found {
                usable_schema: false,
                ..found()
            },
            "postgres_denied",
            "Run: GRANT USAGE ON SCHEMA \"public\" TO \"ann\";",
        ),
        (
            Found {
                rows_hidden: true,
                ..found()
            },
            "postgres_denied",
            "ALTER ROLE \"ann\" BYPASSRLS;",
        ),
        (
            Found {
                published: false,
                ..found()
            },
            "table_unpublished",
            "ALTER PUBLICATION \"p\" ADD TABLE \"public\".\"t\";",
        ),
        (
            Found {
                published: false,
                kind: 'p',
                ..found()
            },
            "table_unpublished",
            "SET (publish_via_partition_root = true);",
        ),
    ];
    let slots = [(
        Slot {
            active_pid: Some(77),
            ..good_slot()
        },
        "slot_active",
        "pg_terminate_backend(77);",
    )];
    let tables = tables.map(|(found, code, fix)| (facts(found), code, fix));
    let slots = slots.map(|(slot, code, fix)| (Facts { slot: Some(slot), ..all() }, code, fix));
    for (facts, code, fix) in server.into_iter().chain(tables).chain(slots) {
        let found = problems(&facts, &wanted());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].code, code);
        assert!(found[0].fix.contains(fix), "{fix}: {found:?}");
        let error = refusal(&found).unwrap();
        assert!(error.to_string().contains(&found[0].what) && error.code == code, "{error}");
    }
}

#[test]
fn an_old_slot_without_copies_needs_no_further_place() {
    let full = Facts {
        slots: Room { most: 3, used: 3 },
        senders: Room { most: 4, used: 3 },
        slot: Some(good_slot()),
        ..facts(found())
    };
    let wanted = Wanted { copies: false, ..wanted() };
    assert_eq!(problems(&full, &wanted), []);
}

#[test]
fn a_table_that_is_not_published_is_told_of_beside_what_else_it_lacks() {
    let lacks = Found {
        published: false,
        unidentified: unidentified(),
        ..found()
    };
    let found = problems(&facts(lacks), &wanted());
    let codes: Vec<_> = found.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["table_identity", "table_unpublished"], "{found:?}");
    assert!(found[0].what.contains("as soon as it is published"), "{found:?}");
}

#[test]
fn all_that_a_table_lacks_is_told_at_once() {
    let lacks = Found {
        logged: false,
        unreadable: vec!["\"public\".\"t\"".to_owned(), "\"public\".\"part\"".to_owned()],
        usable_schema: false,
        rows_hidden: true,
        published: false,
        unidentified: unidentified(),
        ..found()
    };
    let said = problems(&facts(lacks.clone()), &wanted());
    let codes: Vec<_> = said.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["table_unlogged", "postgres_denied", "table_unpublished"], "{said:?}");
    assert_eq!(
        said[1].fix,
        "Run: GRANT USAGE ON SCHEMA \"public\" TO \"ann\"; GRANT SELECT ON \"public\".\"t\", \"public\".\"part\" TO \"ann\"; ALTER ROLE \"ann\" BYPASSRLS;"
    );
    // One without a key as well, though its updates tell nothing: the rows that it has are copied.
    let keyless = Found { logged: true, ..lacks };
    let said = problems(&facts(keyless.clone()), &wanted());
    let codes: Vec<_> = said.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["table_identity", "postgres_denied", "table_unpublished"], "{said:?}");
    // What a run publishes is not told of.
    let create = Wanted { create: true, ..wanted() };
    let said = problems(&facts(Found { logged: false, ..keyless }), &create);
    let codes: Vec<_> = said.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["table_unlogged", "postgres_denied"], "{said:?}");
}

#[test]
fn what_a_run_makes_is_no_problem_and_what_it_does_not_make_is() {
    let create = Wanted { create: true, ..wanted() };
    let lacks = |found: Found| Found { published: false, ..found };
    let nothing = || Unidentified {
        obstacle: Some(Obstacle::Choice),
        ..unidentified()
    };
    let with = |publication: Option<Publication>, found: Found| Facts {
        publication,
        ..facts(found)
    };
    let publication = |all_tables, via_root| {
        Some(Publication {
            all_tables,
            via_root,
            ..Publication::default()
        })
    };
    let partitioned = || Found { kind: 'p', ..found() };
    let partition = || Found {
        is_partition: true,
        ..found()
    };
    let loose = || Found {
        unidentified: unidentified(),
        ..found()
    };
    let refused = || Found {
        unidentified: nothing(),
        ..found()
    };
    let empty = Found {
        has_columns: false,
        ..found()
    };
    let cases: [(Facts, &[&str]); 12] = [
        (with(None, lacks(found())), &[]),
        (with(None, lacks(loose())), &[]),
        (with(publication(false, false), lacks(found())), &[]),
        (with(None, lacks(empty)), &["Give it one before"]),
        (with(publication(false, true), lacks(partitioned())), &[]),
        (
            with(publication(false, false), lacks(partitioned())),
            &["SET (publish_via_partition_root"],
        ),
        (with(publication(true, false), lacks(found())), &["Name the partitioned table"]),
        (with(publication(false, false), lacks(partition())), &["ADD TABLE"]),
        (with(None, lacks(partition())), &["Name the partitioned table", "Correct the names"]),
        (with(publication(false, false), lacks(refused())), &["REPLICA IDENTITY FULL;"]),
        (with(publication(false, false), loose()), &["or run: ALTER TABLE"]),
        (
            Facts {
                tables: Vec::new(),
                ..with(None, found())
            },
            &["Correct the names"],
        ),
    ];
    for (facts, fixes) in cases {
        let found = problems(&facts, &create);
        assert_eq!(found.len(), fixes.len(), "{facts:?} {found:?}");
        for (problem, fix) in found.iter().zip(fixes) {
            assert!(problem.fix.contains(fix), "{fix}: {found:?}");
        }
    }
    // Where only inserts are told, nothing is refused.
    let inserts = Publication {
        left_out: vec!["update", "delete"],
        ..Publication::default()
    };
    let codes: Vec<_> = problems(&with(Some(inserts), refused()), &create)
        .iter()
        .map(|problem| problem.code)
        .collect();
    assert_eq!(codes, ["publication_partial"]);
}

#[test]
fn what_a_run_has_no_rights_for_is_named_with_what_gives_them() {
    let create = Wanted { create: true, ..wanted() };
    let lacks = || Found {
        published: false,
        ..found()
    };
    let theirs = |found: Found| Found {
        owner: Some("app".to_owned()),
        ..found
    };
    let loose = |owners: &[&str]| Unidentified {
        owners: owners.iter().map(|owner| (*owner).to_owned()).collect(),
        ..unidentified()
    };
    let parted = Found {
        unidentified: loose(&["part"]),
        ..lacks()
    };
    let of_all = Found {
        unidentified: loose(&["app"]),
        ..theirs(lacks())
    };
    let theirs_too = Some(Publication {
        owner: Some("dba".to_owned()),
        ..Publication::default()
    });
    let not_made = Facts {
        publication: None,
        may_create: false,
        ..facts(lacks())
    };
    let unmade = Facts {
        publication: None,
        ..facts(theirs(lacks()))
    };
    let add = "ALTER PUBLICATION \"p\" ADD TABLE ONLY \"public\".\"t\";";
    let identify = "ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL;";
    let let_it = |owners: &str| format!("or let \"ann\" do so, with all that comes later: GRANT {owners} TO \"ann\";");
    let cases = [
        (not_made, "Run: GRANT CREATE ON DATABASE \"shop\" TO \"ann\";".to_owned()),
        (facts(theirs(lacks())), format!("Run, as a superuser: {add} {}", let_it("\"app\""))),
        (
            unmade,
            format!("Run, as a superuser (once a run has made it): {add} {}", let_it("\"app\"")),
        ),
        (
            facts(parted),
            format!("Run, as a superuser: {identify} {add} {}", let_it("\"part\"")),
        ),
        (
            Facts {
                publication: theirs_too,
                ..facts(of_all)
            },
            format!("Run, as a superuser: {identify} {add} {}", let_it("\"app\", \"dba\"")),
        ),
    ];
    for (facts, fix) in cases {
        let found = problems(&facts, &create);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].code, found[0].fix.as_str()), ("postgres_denied", fix.as_str()));
        // Nobody asks for rights that are not needed.
        let asked: Vec<_> = problems(&facts, &wanted()).into_iter().map(|problem| problem.fix).collect();
        assert!(!asked.contains(&fix), "{asked:?}");
    }
    // What is published needs no rights of its owner's.
    assert_eq!(problems(&facts(theirs(found())), &create), []);
}
