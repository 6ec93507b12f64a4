//! Messages that do not fit together: no server sends them, and nothing may become of them.

use arrow::array::AsArray;

use super::*;
use crate::sources::postgres::catalog::{Column, Identity, PgTable};
use crate::sources::postgres::followed::Metadata;
use crate::sources::postgres::pgoutput;

/// Of table `t` with the columns `id`, its key on the server, and `v`.
fn source() -> PgTable {
    let column = |name: &str, number, type_oid| Column {
        name: name.to_owned(),
        number,
        type_oid,
        type_modifier: -1,
        has_default: false,
    };
    PgTable {
        relation: 1,
        oid: 16,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        columns: vec![column("id", 1, 23), column("v", 2, 25)],
        identity: Identity::Default,
        primary_key: vec!["id".to_owned()],
        identity_index: Vec::new(),
        unique: Vec::new(),
        untold: Vec::new(),
    }
}

fn changes() -> Changes {
    following(&[], true, &Learned::default())
}

/// By the key that was chosen, or that of the server.
fn following(key: &[String], binary: bool, learned: &Learned) -> Changes {
    let followed = Followed::new(TableId::new("t"), &source(), &Types::new([]), key, false, Vec::new());
    to(followed.unwrap(), binary, learned)
}

/// A table of changes with these columns beside the row's own.
fn changes_of(metadata: &[Metadata]) -> Changes {
    let followed = Followed::new(TableId::new("t"), &source(), &Types::new([]), &[], true, metadata.to_vec());
    to(followed.unwrap(), true, &Learned::default())
}

fn to(followed: Followed, binary: bool, learned: &Learned) -> Changes {
    let names = ["id", "v"].map(str::to_owned);
    let known = Known {
        same: names.to_vec(),
        all: names.into_iter().collect(),
    };
    let reading = Reading {
        types: Types::new([]),
        binary,
        specials: Specials::Null,
        learned: learned.clone(),
    };
    Changes::new(
        Lane::new("slot@1"),
        vec![Begin { followed, held: 0, known }],
        reading,
        DeadLetters::new(&"p".into(), &Default::default()),
        TableId::new("letters"),
    )
}

/// The relation with columns of these names and types.
fn relation(columns: &[(&str, u32)]) -> Vec<u8> {
    identified(b'd', &["id"], columns)
}

/// With these columns as its replica identity.
fn identified(identity: u8, key: &[&str], columns: &[(&str, u32)]) -> Vec<u8> {
    let mut bytes = b"R\0\0\0\x10public\0t\0".to_vec();
    bytes.push(identity);
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (name, type_oid) in columns {
        bytes.push(u8::from(key.contains(name)));
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(type_oid.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
    }
    bytes
}

/// An update of the whole row; an empty text is null.
fn update(before: [&str; 2], after: [&str; 2]) -> Vec<u8> {
    let mut bytes = b"U\0\0\0\x10".to_vec();
    for (letter, cells) in [(b'O', before), (b'N', after)] {
        bytes.extend([letter, 0, 2]);
        for cell in cells {
            if cell.is_empty() {
                bytes.push(b'n');
                continue;
            }
            bytes.push(b't');
            bytes.extend(u32::try_from(cell.len()).unwrap().to_be_bytes());
            bytes.extend(cell.as_bytes());
        }
    }
    bytes
}

/// What became of table `t`, and of how many rows there are letters.
fn drained(changes: &mut Changes) -> (Vec<Op>, usize) {
    let (mut ready, mut ops, mut letters) = (VecDeque::new(), Vec::new(), 0);
    changes.drain(&mut ready).unwrap();
    for flow in ready {
        match flow {
            Flow::Rows(batch) if batch.table.as_str() == "t" => ops.extend(batch.ops),
            Flow::Rows(batch) => letters += batch.ops.len(),
            _ => {}
        }
    }
    (ops, letters)
}

/// An insert of so many values.
fn insert(values: u8) -> Vec<u8> {
    let mut bytes = b"I\0\0\0\x10N\0".to_vec();
    bytes.push(values);
    (0..values).for_each(|_| bytes.extend(b"t\0\0\0\x017"));
    bytes
}

const OF: Transaction = Transaction {
    commit_lsn: 0,
    xid: 7,
    time: 0,
};

fn take(changes: &mut Changes, bytes: &[u8]) -> Result<()> {
    let (message, _) = pgoutput::message(bytes, false).unwrap();
    changes.take(&message, &OF, 1)
}

fn doubt_of(lost: &[&str]) -> Doubt {
    Doubt {
        table: TableId::new("t"),
        xid: OF.xid,
        lost: lost.iter().map(|name| (*name).to_owned()).collect(),
    }
}

#[test]
fn a_row_that_has_not_its_relation_s_columns_is_refused() {
    for (values, fits) in [(0, false), (1, false), (2, true), (3, false)] {
        let mut changes = changes();
        take(&mut changes, &relation(&[("id", 23), ("v", 25)])).unwrap();
        assert_eq!(take(&mut changes, &insert(values)).is_ok(), fits, "{values}");
        changes.drain(&mut VecDeque::new()).unwrap();
    }
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let error = take(&mut changes(), &relation(&[("id", 23), ("v", 25), ("v", 25)])).unwrap_err();
    assert!(error.to_string().contains("same name"), "{error}");
}

#[test]
fn a_table_is_known_by_its_number_whatever_its_name() {
    let mut changes = changes();
    let mut renamed = relation(&[("id", 23), ("v", 25)]);
    renamed[12] = b'u';
    take(&mut changes, &renamed).unwrap();
    take(&mut changes, &insert(2)).unwrap();
    assert_eq!(std::mem::take(changes.doubts()), [doubt_of(&[])]);
    // Another one that has its name, and what is told of that.
    let (mut other, mut of_other) = (relation(&[("id", 23), ("v", 25), ("w", 25)]), insert(3));
    (other[4], of_other[4]) = (0x11, 0x11);
    take(&mut changes, &other).unwrap();
    take(&mut changes, &of_other).unwrap();
    assert_eq!(*changes.doubts(), []);
    assert_eq!(drained(&mut changes), (vec![Op::Put], 0));
}

#[test]
fn a_key_that_changes_no_longer_tell_stops_its_table() {
    let columns = [("id", 23), ("v", 25)];
    let (server, chosen): (&[String], &[String]) = (&[], &["id".to_owned()]);
    let cases: [(&[String], u8, &[&str], bool); 8] = [
        (server, b'd', &["id"], true),
        (server, b'd', &[], false),
        (server, b'd', &["id", "v"], false),
        (server, b'i', &["v"], false),
        (server, b'f', &["id", "v"], true),
        (chosen, b'd', &["id", "v"], true),
        (chosen, b'i', &["v"], false),
        (chosen, b'n', &[], false),
    ];
    for (key, identity, told, fits) in cases {
        let mut changes = following(key, true, &Learned::default());
        let taken = take(&mut changes, &identified(identity, told, &columns));
        assert_eq!(taken.is_ok(), fits, "{told:?}");
        if let Err(error) = taken {
            assert_eq!((error.code, error.table), ("schema_changed", Some(TableId::new("t"))));
        }
        // Of all columns, only the catalog knows which are the key.
        assert_eq!(changes.doubts().len(), usize::from(identity == b'f'), "{told:?}");
    }
}

#[test]
fn a_row_goes_and_comes_where_only_one_of_its_keys_can_be_read() {
    let mut changes = changes();
    take(&mut changes, &identified(b'f', &["id", "v"], &[("id", 23), ("v", 25)])).unwrap();
    let cases = [
        (["1", "a"], ["2", "a"], vec![Op::Delete, Op::Put], 0),
        (["", "a"], ["2", "a"], vec![Op::Put], 0),
        (["x", "a"], ["2", "a"], vec![Op::Put], 0),
        (["1", "a"], ["", "a"], vec![Op::Delete], 1),
        (["1", "a"], ["x", "a"], vec![Op::Delete], 1),
        (["", "a"], ["x", "a"], vec![], 1),
    ];
    for (before, after, ops, letters) in cases {
        take(&mut changes, &update(before, after)).unwrap();
        assert_eq!(drained(&mut changes), (ops, letters), "{before:?} {after:?}");
    }
}

/// An update that does not send `v`, for it is large and did not change.
#[test]
fn a_change_with_a_value_that_nothing_tells_is_a_dead_letter() {
    let new = b"N\0\x02t\0\0\0\x011u";
    let cases: [(&[Metadata], &[u8], usize); 4] = [
        (&[Metadata::Op], b"", 1),
        // Of the row that was there, the key is told, and all of it.
        (&[Metadata::Op], b"K\0\x02t\0\0\0\x019n", 1),
        (&[Metadata::Op], b"O\0\x02t\0\0\0\x011t\0\0\0\x01x", 0),
        (&[Metadata::Op, Metadata::Unchanged], b"", 0),
    ];
    for (metadata, old, letters) in cases {
        let mut changes = changes_of(metadata);
        take(&mut changes, &relation(&[("id", 23), ("v", 25)])).unwrap();
        take(&mut changes, &[b"U\0\0\0\x10", old, new].concat()).unwrap();
        assert_eq!(drained(&mut changes), (vec![Op::Put; 1 - letters], letters), "{metadata:?} {old:?}");
    }
}

#[test]
fn a_dead_letter_has_the_values_of_its_row_as_the_server_prints_them() {
    let cases: [(&[u8], &str, &str); 4] = [
        (
            b"I\0\0\0\x10N\0\x02b\0\0\0\x04\0\0\0\x07b\0\0\0\x01\xff",
            r#"{"id":"7"}"#,
            r#"{"id":"7","v":{"hex":"ff"}}"#,
        ),
        (b"I\0\0\0\x10N\0\x02t\0\0\0\x01xn", r#"{"id":"x"}"#, r#"{"id":"x","v":null}"#),
        (b"U\0\0\0\x10N\0\x02t\0\0\0\x01xu", r#"{"id":"x"}"#, r#"{"id":"x"}"#),
        // What is not of its key, it does not tell.
        (b"D\0\0\0\x10K\0\x02t\0\0\0\x01xn", r#"{"id":"x"}"#, r#"{"id":"x"}"#),
    ];
    for (message, key, row) in cases {
        let (mut changes, mut ready) = (changes(), VecDeque::new());
        take(&mut changes, &relation(&[("id", 23), ("v", 25)])).unwrap();
        take(&mut changes, message).unwrap();
        changes.drain(&mut ready).unwrap();
        let Some(Flow::Rows(letters)) = ready.pop_front() else {
            panic!("no letter for {row}")
        };
        let kept = |name: &str| {
            let bytes = letters.rows.column_by_name(name).unwrap().as_binary::<i32>();
            String::from_utf8(bytes.value(0).to_vec()).unwrap()
        };
        assert_eq!((letters.ops.len(), kept("key").as_str(), kept("value").as_str()), (1, key, row));
    }
}

#[test]
fn columns_that_are_there_under_another_name_are_lost() {
    let named = |names: &[&str]| -> Vec<(String, u32)> { names.iter().map(|name| ((*name).to_owned(), 25)).collect() };
    let cases: [(&[&[&str]], &[&str]); 7] = [
        (&[&["id", "v"]], &[]),
        // It is yet to come, or has been dropped.
        (&[&["id"]], &[]),
        (&[&["id", "w"]], &["v"]),
        (&[&["id", "v"], &["id", "w"]], &["v"]),
        (&[&["id", "v"], &["id"]], &["v"]),
        (&[&["v", "id"]], &["id", "v"]),
        (&[&["id", "v"], &["v", "id"]], &["id", "v"]),
    ];
    for (relations, expected) in cases {
        let mut changes = changes();
        for names in relations {
            let columns = named(names);
            let columns: Vec<_> = columns
                .iter()
                .map(|(name, oid)| (name.as_str(), if name == "id" { 23 } else { *oid }))
                .collect();
            take(&mut changes, &relation(&columns)).unwrap();
        }
        let lost: Vec<String> = changes.doubts().iter().flat_map(|doubt| doubt.lost.clone()).collect();
        assert_eq!(lost, expected, "{relations:?}");
    }
}

#[test]
fn a_type_that_came_later_is_read_anew_and_then_as_text() {
    let (learned, columns) = (Learned::default(), [("id", 23), ("v", 25), ("mood", 70_000)]);
    for (binary, as_text, reopens) in [(true, false, true), (true, true, true), (false, true, false)] {
        let mut changes = following(&[], binary, &learned);
        take(&mut changes, &relation(&columns)).unwrap();
        take(&mut changes, &insert(3)).unwrap();
        assert_eq!(changes.reopen().is_some(), reopens);
        assert_eq!(learned.as_text(), as_text);
        assert_eq!(drained(&mut changes), (vec![Op::Put; usize::from(!reopens)], 0));
    }
}

#[test]
fn a_type_that_makes_other_values_of_those_that_were_there_is_asked_about() {
    let (text, varchar, character) = (25, 1043, 1042);
    let cases: [(&[u32], _); 6] = [
        (&[text], Vec::new()),
        (&[varchar], Vec::new()),
        // The catalog may have what came later: it tells.
        (&[character], vec![doubt_of(&[])]),
        (&[text, varchar], Vec::new()),
        (&[text, character], vec![doubt_of(&["v"])]),
        (&[varchar, varchar, text, text], Vec::new()),
    ];
    for (types, expected) in cases {
        let mut changes = changes();
        for kind in types {
            take(&mut changes, &relation(&[("id", 23), ("v", *kind)])).unwrap();
        }
        assert_eq!(*changes.doubts(), expected, "{types:?}");
    }
    // A log of changes has each row as it was.
    let mut changes = changes_of(&[Metadata::Op]);
    for kind in [text, character] {
        take(&mut changes, &relation(&[("id", 23), ("v", kind)])).unwrap();
    }
    assert_eq!(*changes.doubts(), []);
}
