//! Messages that do not fit together: no server sends them, and nothing may become of them.

use super::*;
use crate::sources::postgres::catalog::{Column, Identity, PgTable};
use crate::sources::postgres::pgoutput;

fn changes() -> Changes {
    let column = |name: &str, type_oid| Column {
        name: name.to_owned(),
        number: 1,
        type_oid,
        type_modifier: -1,
        has_default: false,
    };
    let source = PgTable {
        relation: 1,
        oid: 16,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        columns: vec![column("id", 23), column("v", 25)],
        identity: Identity::Default,
        primary_key: vec!["id".to_owned()],
        identity_index: Vec::new(),
    };
    let types = Types::new([]);
    let id = TableId::new("t");
    let followed = Followed::new(id.clone(), &source, &types, &source.primary_key, false, Vec::new()).unwrap();
    let lane = Lane::new("slot@1");
    Changes::new(
        lane,
        vec![(followed, 0)],
        types,
        Specials::Reject,
        DeadLetters::new(&"p".into(), &Default::default()),
        TableId::new("letters"),
    )
}

/// The relation with columns of these names and types.
fn relation(columns: &[(&str, u32)]) -> Vec<u8> {
    let mut bytes = b"R\0\0\0\x10public\0t\0d".to_vec();
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (name, type_oid) in columns {
        bytes.push(u8::from(*name == "id"));
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(type_oid.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
    }
    bytes
}

/// An insert of so many values.
fn insert(values: u8) -> Vec<u8> {
    let mut bytes = b"I\0\0\0\x10N\0".to_vec();
    bytes.push(values);
    (0..values).for_each(|_| bytes.extend(b"t\0\0\0\x017"));
    bytes
}

fn take(changes: &mut Changes, bytes: &[u8]) -> Result<()> {
    let (message, _) = pgoutput::message(bytes, false).unwrap();
    changes.take(&message, &Transaction::default(), 1)
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
fn a_relation_that_another_of_its_name_has_followed_feeds_nothing() {
    let mut changes = changes();
    take(&mut changes, &relation(&[("id", 23), ("v", 25)])).unwrap();
    let mut other = relation(&[("id", 23), ("v", 25), ("w", 25)]);
    other[4] = 0x11;
    take(&mut changes, &other).unwrap();
    let error = take(&mut changes, &insert(2)).unwrap_err();
    assert!(error.to_string().contains("was not introduced"), "{error}");
    changes.drain(&mut VecDeque::new()).unwrap();
}
