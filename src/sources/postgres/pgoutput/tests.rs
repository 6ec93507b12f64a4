//! Messages as the server writes them, and bytes that nobody has written.

use proptest::prelude::*;

use super::*;

/// Writes what the server would.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes()).bytes(&[0])
    }
    fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }
    fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }
    fn tuple(self, cells: &[Cell<'_>]) -> Self {
        let count = u16::try_from(cells.len()).unwrap().to_be_bytes();
        cells.iter().fold(self.bytes(&count), |out, cell| match cell {
            Cell::Null => out.bytes(b"n"),
            Cell::Unchanged => out.bytes(b"u"),
            Cell::Text(value) => out.bytes(b"t").u32(value.len() as u32).bytes(value),
            Cell::Binary(value) => out.bytes(b"b").u32(value.len() as u32).bytes(value),
        })
    }
}

const ROW: [Cell<'static>; 4] = [Cell::Binary(&[0, 0, 0, 7]), Cell::Text("é".as_bytes()), Cell::Null, Cell::Unchanged];
const KEY: [Cell<'static>; 2] = [Cell::Binary(&[0, 0, 0, 6]), Cell::Null];

fn read(bytes: &[u8]) -> Message<'_> {
    message(bytes, false).unwrap().0
}

#[test]
fn a_transaction_is_read_message_by_message() {
    let begin = Writer::default().bytes(b"B").u64(9).u64(77).u32(5).0;
    assert_eq!(
        read(&begin),
        Message::Begin {
            final_lsn: 9,
            time: 77,
            xid: 5
        }
    );
    let commit = Writer::default().bytes(b"C\0").u64(9).u64(12).u64(77).0;
    assert_eq!(
        read(&commit),
        Message::Commit {
            commit_lsn: 9,
            end_lsn: 12,
            time: 77
        }
    );
    let truncate = Writer::default().bytes(b"T").u32(2).bytes(&[3]).u32(16).u32(17).0;
    assert_eq!(read(&truncate), Message::Truncate { relations: vec![16, 17] });
    let logical = Writer::default().bytes(b"M\x01").u64(9).text("heart").u32(4).bytes(b"beat").0;
    assert_eq!(
        read(&logical),
        Message::Logical {
            transactional: true,
            lsn: 9,
            prefix: b"heart",
            content: b"beat"
        }
    );
}

#[test]
fn rows_come_with_what_was_there_before() {
    let cells = |tuple: Tuple<'_>| format!("{:?}", tuple.cells().collect::<Vec<_>>());
    let insert = Writer::default().bytes(b"I").u32(16).bytes(b"N").tuple(&ROW).0;
    let Message::Insert { relation: 16, new } = read(&insert) else {
        panic!("{insert:?}")
    };
    assert_eq!((new.len(), cells(new)), (4, format!("{ROW:?}")));
    for (letter, full) in [(b"K", false), (b"O", true)] {
        let update = Writer::default()
            .bytes(b"U")
            .u32(16)
            .bytes(letter)
            .tuple(&KEY)
            .bytes(b"N")
            .tuple(&ROW)
            .0;
        let Message::Update { old: Some(old), new, .. } = read(&update) else {
            panic!("{update:?}")
        };
        assert_eq!((cells(old.tuple()), cells(new)), (format!("{KEY:?}"), format!("{ROW:?}")));
        assert_eq!(matches!(old, Old::Full(_)), full);
        let delete = Writer::default().bytes(b"D").u32(16).bytes(letter).tuple(&KEY).0;
        let Message::Delete { old, .. } = read(&delete) else {
            panic!("{delete:?}")
        };
        assert_eq!(matches!(old, Old::Full(_)), full);
    }
    let update = Writer::default().bytes(b"U").u32(16).bytes(b"N").tuple(&ROW).0;
    assert!(matches!(read(&update), Message::Update { old: None, .. }));
}

#[test]
fn a_relation_tells_its_columns_and_its_identity() {
    let bytes = Writer::default()
        .bytes(b"R")
        .u32(16)
        .text("")
        .text("orders \"x\"")
        .bytes(b"f\0\x02");
    let bytes = bytes
        .bytes(&[1])
        .text("id")
        .u32(23)
        .u32(u32::MAX)
        .bytes(&[0])
        .text("total")
        .u32(1700)
        .u32(655_366)
        .0;
    let Message::Relation(relation) = read(&bytes) else {
        panic!("{bytes:?}")
    };
    assert_eq!(
        (&*relation.namespace, &*relation.name, relation.identity),
        ("pg_catalog", "orders \"x\"", b'f')
    );
    let total = Column {
        key: false,
        name: "total".to_owned(),
        type_oid: 1700,
        type_modifier: 655_366,
    };
    assert_eq!(
        relation.columns,
        [
            Column {
                key: true,
                name: "id".to_owned(),
                type_oid: 23,
                type_modifier: -1
            },
            total
        ]
    );
}

#[test]
fn within_a_stream_changes_tell_their_transaction() {
    let insert = Writer::default().bytes(b"I").u32(801).u32(16).bytes(b"N").tuple(&ROW).0;
    let (read, of) = message(&insert, true).unwrap();
    assert!(matches!(read, Message::Insert { relation: 16, .. }));
    assert_eq!(of, Some(801));
    let start = Writer::default().bytes(b"S").u32(800).bytes(&[1]).0;
    assert_eq!(
        message(&start, true).unwrap(),
        (Message::StreamStart { xid: 800, first: true }, None)
    );
    // With streaming = parallel it is 16 bytes longer.
    for more in [0, 16] {
        let abort = Writer::default().bytes(b"A").u32(800).u32(801).bytes(&vec![0; more]).0;
        assert_eq!(message(&abort, false).unwrap().0, Message::StreamAbort { xid: 800, subxid: 801 });
    }
    let commit = Writer::default().bytes(b"c").u32(800).bytes(&[0]).u64(9).u64(12).u64(77).0;
    assert_eq!(
        message(&commit, false).unwrap().0,
        Message::StreamCommit {
            xid: 800,
            commit_lsn: 9,
            end_lsn: 12,
            time: 77
        }
    );
}

/// A message of two-phase commit with this letter.
fn two_phase(letter: u8, xid: u32, gid: &str) -> Vec<u8> {
    let head = Writer::default().bytes(&[letter]);
    let head = if letter == b'b' { head } else { head.bytes(&[0]) };
    let head = head.u64(9).u64(12);
    let head = if letter == b'r' { head.u64(76) } else { head };
    head.u64(77).u32(xid).text(gid).0
}

#[test]
fn two_phase_commits_are_read_message_by_message() {
    let gid = "gid \u{e9}";
    let prepared = Prepared {
        prepare_lsn: 9,
        end_lsn: 12,
        time: 77,
        xid: 800,
        gid,
    };
    let resolved = Resolved {
        lsn: 9,
        end_lsn: 12,
        time: 77,
        xid: 800,
        gid,
    };
    let cases = [
        (b'b', Message::BeginPrepare(prepared)),
        (b'P', Message::Prepare(prepared)),
        (b'p', Message::StreamPrepare(prepared)),
        (b'K', Message::CommitPrepared(resolved)),
        (b'r', Message::RollbackPrepared(resolved)),
    ];
    for (letter, expected) in cases {
        let bytes = two_phase(letter, 800, gid);
        assert_eq!(read(&bytes), expected);
        for length in 1..bytes.len() {
            let cut = message(&bytes[..length], false).unwrap_err();
            assert!(
                ["cut short", "a name without an end"].contains(&cut.what),
                "{letter} cut at {length}: {cut}"
            );
        }
    }
}

#[test]
fn what_cannot_be_read_is_said_and_never_guessed() {
    assert_eq!(message(b"", false).unwrap_err().what, "no bytes");
    assert_eq!(message(b"?", false).unwrap_err().to_string(), "message `?` of pgoutput: not known");
    let whole = Writer::default()
        .bytes(b"U")
        .u32(16)
        .bytes(b"K")
        .tuple(&KEY)
        .bytes(b"N")
        .tuple(&ROW)
        .0;
    for length in 1..whole.len() {
        assert_eq!(message(&whole[..length], false).unwrap_err().what, "cut short", "{length}");
    }
}

proptest! {
    #[test]
    fn a_prepared_transaction_keeps_its_number_and_its_name(letter in prop::sample::select(b"bPpKr".to_vec()), xid: u32, gid in "[^\\x00]{0,200}") {
        let bytes = two_phase(letter, xid, &gid);
        let (
            Message::BeginPrepare(Prepared { xid: read_xid, gid: read_gid, .. })
            | Message::Prepare(Prepared { xid: read_xid, gid: read_gid, .. })
            | Message::StreamPrepare(Prepared { xid: read_xid, gid: read_gid, .. })
            | Message::CommitPrepared(Resolved { xid: read_xid, gid: read_gid, .. })
            | Message::RollbackPrepared(Resolved { xid: read_xid, gid: read_gid, .. })
        ) = read(&bytes) else { panic!("{bytes:?}") };
        prop_assert_eq!((read_xid, read_gid), (xid, gid.as_str()));
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), letter in prop::sample::select(b"BCORYIUDTMSEcAbPKrp".to_vec()), in_stream: bool) {
        let _ = message(&bytes, in_stream);
        let bytes = [&[letter][..], &bytes].concat();
        if let Ok((Message::Insert { new, .. } | Message::Update { new, .. }, _)) = message(&bytes, in_stream) {
            prop_assert_eq!(new.cells().count(), new.len());
        }
    }
}
