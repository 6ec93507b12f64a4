//! Values without a server: what PostgreSQL 15 has sent, what columns cannot hold, and what is no value at all.

mod hostile;
mod models;

use alluvium::sources::postgres::types::{ColumnType, TypeRow, Types};
use alluvium::sources::postgres::values::{ColumnBuilder, Specials};
use arrow::array::Array;
use arrow::datatypes::{DataType, TimeUnit};

use super::printed::render;

fn row(oid: u32, name: &str, typtype: u8) -> TypeRow {
    TypeRow {
        oid,
        name: name.to_owned(),
        typtype,
        category: b'U',
        element: 0,
        delimiter: if name == "box" { b';' } else { b',' },
        base: 0,
        base_modifier: -1,
        range_of: 0,
        fields: Vec::new(),
    }
}

fn array(oid: u32, name: &str, element: u32) -> TypeRow {
    TypeRow {
        element,
        ..row(oid, name, b'b')
    }
}

fn range(oid: u32, name: &str, typtype: u8, range_of: u32) -> TypeRow {
    TypeRow {
        range_of,
        ..row(oid, name, typtype)
    }
}

const HSTORE: u32 = 16_500;
const MOODS: u32 = 16_412;
const COMPOSITE: u32 = 16_424;
const DOMAIN: u32 = 16_420;
const NESTED: u32 = 16_600;

fn types() -> Types {
    Types::new([
        row(603, "box", b'b'),
        array(1005, "_int2", 21),
        array(1007, "_int4", 23),
        array(1009, "_text", 25),
        array(1020, "_box", 603),
        array(1115, "_timestamp", 1114),
        array(1231, "_numeric", 1700),
        range(3904, "int4range", b'r', 23),
        range(3910, "tstzrange", b'r', 1184),
        range(4451, "int4multirange", b'm', 3904),
        row(16_413, "mood", b'e'),
        array(MOODS, "_mood", 16_413),
        TypeRow {
            base: 23,
            ..row(DOMAIN, "positive", b'd')
        },
        TypeRow {
            fields: vec![("a".to_owned(), 23, -1), ("b".to_owned(), 25, -1)],
            ..row(COMPOSITE, "two", b'c')
        },
        TypeRow {
            fields: vec![
                ("a".to_owned(), COMPOSITE, -1),
                ("b".to_owned(), 1009, -1),
                ("c".to_owned(), HSTORE, -1),
            ],
            ..row(NESTED, "nested", b'c')
        },
        row(HSTORE, "hstore", b'b'),
        array(16_501, "_hstore", HSTORE),
        row(16_700, "geometry", b'b'),
        array(16_701, "_geometry", 16_700),
    ])
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// One value on its own, rendered.
fn read(column: &ColumnType, specials: Specials, value: &[u8], binary: bool) -> Result<String, &'static str> {
    let mut builder = ColumnBuilder::new(column, specials);
    let appended = if binary {
        builder.append_binary(value)
    } else {
        builder.append_text(value)
    };
    appended.map_err(|bad| bad.code)?;
    assert_eq!(builder.len(), 1);
    let array = builder.finish().unwrap();
    assert_eq!(array.data_type(), &column.data_type());
    Ok(match render(array.as_ref(), 0) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    })
}

/// What a replication stream of PostgreSQL 15 held: type, modifier, bytes, and what the column holds of it. Dates count days and
/// timestamps microseconds since 1970; floats are shown by their bits.
const SENT: &[(u32, i32, &str, &str)] = &[
    (23, -1, "00000001", "1"),
    (21, -1, "fffe", "-2"),
    (20, -1, "0000011f71fb04cb", "1234567890123"),
    (700, -1, "3fc00000", "3ff8000000000000"),
    (701, -1, "c002000000000000", "c002000000000000"),
    (25, -1, "68c3a96c6c6f", "héllo"),
    (1043, 14, "7663", "vc"),
    (1042, 9, "6162202020", "ab   "),
    (1700, -1, "0003000100000003000109291a7c", "12345.678"),
    (1700, -1, "0002ffff40000005000107d0", "-0.00012"),
    (1700, -1, "00000000c0000000", "NaN"),
    (1700, -1, "00010001000000000001", "10000"),
    (1700, 655_366, "0002000000000002000c1388", "12.50"),
    (1184, -1, "0002b58341728614", "1709210096789012"),
    (1114, -1, "0002b58341728614", "1709210096789012"),
    (16, -1, "01", "t"),
    (17, -1, "deadbeef", "\\xdeadbeef"),
    (2950, -1, "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    (
        3802,
        -1,
        "017b2261223a205b312c20322e35302c206e756c6c5d7d",
        "{\"a\": [1, 2.50, null]}",
    ),
    (114, -1, "7b2261223a317d", "{\"a\":1}"),
    (
        1007,
        -1,
        "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
        "[\"1\",null,\"3\"]",
    ),
    (
        1009,
        -1,
        "0000000100000000000000190000000200000001000000016100000003622c63",
        "[\"a\",\"b,c\"]",
    ),
    (16_413, -1, "6f6b", "ok"),
    (
        MOODS,
        -1,
        "00000001000000000000401d000000020000000100000003736164000000056861707079",
        "[\"sad\",\"happy\"]",
    ),
    (1082, -1, "00002279", "19782"),
    (1083, -1, "0000000a8be62614", "12:34:56.789012"),
    (1266, -1, "0000000a8be1bd20ffffe3e0", "12:34:56.5+02"),
    (1186, -1, "000000036c97ca88000000030000000e", "1 year 2 mons 3 days 04:05:06.789"),
    (869, -1, "02180004c0a80105", "192.168.1.5/24"),
    (650, -1, "020801040a000000", "10.0.0.0/8"),
    (829, -1, "08002b010203", "08:00:2b:01:02:03"),
    (1560, 5, "00000005a8", "10101"),
    (1562, -1, "00000003a0", "101"),
    (790, -1, "00000000000004d2", "12.34"),
    (600, -1, "3ff00000000000004000000000000000", "(1,2)"),
    (3904, -1, "0200000004000000010000000400000005", "[1,5)"),
    (3910, -1, "12000000080002b0d5d4e94000", "[\"2024-01-01 00:00:00+00\",)"),
    (
        4451,
        -1,
        "00000002000000110200000004000000010000000400000003000000110200000004000000050000000400000007",
        "{[1,3),[5,7)}",
    ),
    (DOMAIN, -1, "00000007", "7"),
    (COMPOSITE, -1, "0000000200000017000000040000000100000019000000017a", "(1,z)"),
    (26, -1, "0000002a", "42"),
    (19, -1, "6e6d", "nm"),
    (18, -1, "63", "c"),
    (142, -1, "3c612f3e", "<a/>"),
    (3614, -1, "000000026361740000010001646f670000010002", "'cat':1 'dog':2"),
    (3220, -1, "00000016b374d848", "16/B374D848"),
];

#[test]
fn what_a_replication_stream_held_is_read() {
    for (oid, modifier, bytes, expected) in SENT {
        let column = types().column(*oid, *modifier);
        let held = read(&column, Specials::Reject, &unhex(bytes), true);
        assert_eq!(held.as_deref(), Ok(*expected), "{}", column.name());
    }
}

/// Numbers by their modifier: ((precision << 16) | scale) + 4, the scale in eleven bits.
#[test]
fn types_become_the_columns_that_hold_them_exactly() {
    let modifier = |precision: i32, scale: i32| (precision << 16 | scale & 0x7ff) + 4;
    let decimal = DataType::Decimal128;
    let cases = [
        (1700, modifier(38, 38), decimal(38, 38)),
        (1700, modifier(39, 2), DataType::Utf8),
        (1700, modifier(5, -3), decimal(8, 0)),
        (1700, modifier(36, -3), DataType::Utf8),
        (1700, modifier(2, 4), decimal(4, 4)),
        (1700, modifier(2, 39), DataType::Utf8),
        (1700, modifier(1000, 1000), DataType::Utf8),
        (1700, modifier(1000, -1000), DataType::Utf8),
        (1700, -1, DataType::Utf8),
        (790, -1, decimal(19, 2)),
        (1114, 3 + 4, DataType::Timestamp(TimeUnit::Microsecond, None)),
        (1184, -1, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        (DOMAIN, -1, DataType::Int32),
        (16_413, -1, DataType::Utf8),
        (999_999, -1, DataType::Utf8),
    ];
    for (oid, modifier, expected) in cases {
        assert_eq!(types().column(oid, modifier).data_type(), expected, "{oid} {modifier}");
    }
    let money = |digits| types().with_money_digits(digits).column(790, -1).data_type();
    assert_eq!((money(0), money(3), money(127)), (decimal(19, 0), decimal(19, 3), decimal(19, 2)));
    assert_eq!(types().column(MOODS, -1).name(), "mood[]");
}

#[test]
fn types_that_nobody_knows_are_text_and_are_not_read_in_binary_form() {
    for (oid, kind) in [(16_700, "geometry"), (999_999, "type 999999"), (16_701, "geometry[]")] {
        let column = types().column(oid, -1);
        assert_eq!((column.name(), column.reads_binary()), (kind, false));
    }
    let column = types().column(16_700, -1);
    assert_eq!(read(&column, Specials::Null, b"0101", true), Err("no_binary_form"));
    assert_eq!(read(&column, Specials::Reject, b"0101", false).as_deref(), Ok("0101"));
    assert_eq!(
        read(&types().column(16_701, -1), Specials::Reject, b"{0101,NULL}", false).as_deref(),
        Ok("[\"0101\",null]")
    );
}

/// A type that holds itself cannot be made; a catalog that says so must not end in a stack overflow.
#[test]
fn types_nest_only_so_deep() {
    let endless = Types::new([
        array(20_000, "_endless", 20_000),
        TypeRow {
            base: 20_001,
            ..row(20_001, "domain", b'd')
        },
        TypeRow {
            fields: vec![("a".to_owned(), 20_002, -1)],
            ..row(20_002, "record", b'c')
        },
        range(20_003, "range", b'r', 20_003),
        range(20_004, "multirange", b'm', 20_004),
    ]);
    for oid in 20_000..20_005 {
        assert!(!endless.column(oid, -1).reads_binary());
    }
}

/// Each of these has four of the one before: the last one would have a thousand million parts.
#[test]
fn types_have_only_so_many_parts() {
    let fields = |oid: u32| (0..4).map(|name: u32| (name.to_string(), oid, -1)).collect();
    let rows = (20_001..20_016).map(|oid| TypeRow {
        fields: fields(if oid == 20_001 { 23 } else { oid - 1 }),
        ..row(oid, "record", b'c')
    });
    let types = Types::new(rows);
    assert!(types.column(20_006, -1).reads_binary());
    assert!(!types.column(20_015, -1).reads_binary());
}

const TWO_DIMENSIONS: &str =
    "000000020000000000000017000000020000000100000002000000010000000400000001000000040000000200000004000000030000000400000004";

/// The outermost days and moments that fit, and those beside them; bytes that are text, and some that are not.
#[test]
fn a_column_that_its_table_is_partitioned_by_holds_what_delta_can_write() {
    const DAY_US: i64 = 86_400_000_000;
    let (day, moment) = (|days: i32| days.to_be_bytes().to_vec(), |us: i64| us.to_be_bytes().to_vec());
    let (first, last) = (-730_119_i32, 2_921_939_i32);
    let (begin_us, end_us) = (i64::from(first) * DAY_US, i64::from(last + 1) * DAY_US);
    let cases = [
        (1082, day(first - 1), "0001-12-31 BC", false),
        (1082, day(first), "0001-01-01", true),
        (1082, day(last), "9999-12-31", true),
        (1082, day(last + 1), "10000-01-01", false),
        (1114, moment(begin_us - 1), "0001-12-31 23:59:59.999999 BC", false),
        (1114, moment(begin_us), "0001-01-01 00:00:00", true),
        (1184, moment(end_us - 1), "9999-12-31 23:59:59.999999+00", true),
        (1184, moment(end_us), "10000-01-01 00:00:00+00", false),
        (17, Vec::new(), "\\x", true),
        (17, vec![0, 0xc3, 0xa9], "\\x00c3a9", true),
        (17, vec![b'a', 0xff], "\\x61ff", false),
        (25, b"any".to_vec(), "any", true),
    ];
    for (oid, binary, text, fits) in cases {
        let column = types().column(oid, -1);
        for (value, is_binary) in [(binary.as_slice(), true), (text.as_bytes(), false)] {
            assert!(read(&column, Specials::Reject, value, is_binary).is_ok(), "{text}: of no partition");
            for specials in [Specials::Reject, Specials::Null] {
                let mut builder = ColumnBuilder::new(&column, specials).of_partition();
                let appended = match is_binary {
                    true => builder.append_binary(value),
                    false => builder.append_text(value),
                };
                let (is_kept, is_null) = (fits || specials == Specials::Null, !fits && specials == Specials::Null);
                let expected = if is_kept { Ok(()) } else { Err("out_of_range") };
                assert_eq!(appended.map_err(|bad| bad.code), expected, "{text}");
                let array = builder.finish().unwrap();
                assert_eq!(
                    (array.len(), array.null_count()),
                    (usize::from(is_kept), usize::from(is_null)),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn what_a_column_cannot_hold_is_refused_or_null_as_the_policy_says() {
    let decimal = (5 << 16 | 2) + 4;
    let binary = [
        (1082, -1, "7fffffff"),
        (1082, -1, "80000000"),
        (1114, -1, "7fffffffffffffff"),
        (1184, -1, "8000000000000000"),
        (1184, -1, "7ffca2fec4c82000"), // 2^63 microseconds behind 1970 and a bit
        (1700, decimal, "00000000c0000000"),
        (1700, decimal, "00000000d0000000"),
        (1700, decimal, "00000000f0000000"),
        (1700, decimal, "00010001000000000001"),
        (1007, -1, TWO_DIMENSIONS),
    ]
    .map(|(oid, modifier, bytes)| (oid, modifier, unhex(bytes), true));
    let text = [
        (1082, -1, "infinity"),
        (1114, -1, "-infinity"),
        (1184, -1, "294276-12-31 23:59:59.999999+00"),
        (1114, -1, "294247-01-10 04:00:54.775808"),
        (1700, decimal, "NaN"),
        (1700, decimal, "-Infinity"),
        (1700, decimal, "1000.00"),
        (1700, decimal, "100000000000000000000000000000000000000000000"),
        (1007, -1, "{{1,2},{3,4}}"),
        (1007, -1, "[0:1][1:2]={{1,2},{3,4}}"),
    ]
    .map(|(oid, modifier, text)| (oid, modifier, text.as_bytes().to_vec(), false));
    for (oid, modifier, value, binary) in binary.into_iter().chain(text) {
        let column = types().column(oid, modifier);
        assert_eq!(
            read(&column, Specials::Reject, &value, binary),
            Err("out_of_range"),
            "{oid} {value:x?}"
        );
        assert_eq!(
            read(&column, Specials::Null, &value, binary).as_deref(),
            Ok("null"),
            "{oid} {value:x?}"
        );
    }
    // Within an array it is the element.
    let column = types().column(1115, -1);
    let value = b"{infinity,\"1970-01-01 00:00:00.000001\"}";
    assert_eq!(read(&column, Specials::Reject, value, false), Err("out_of_range"));
    assert_eq!(read(&column, Specials::Null, value, false).as_deref(), Ok("[null,\"1\"]"));
}

/// Whatever the policy: these are no values of the type, and nobody may lose them silently.
#[test]
fn what_is_no_value_of_the_type_is_always_refused() {
    let decimal = (5 << 16 | 2) + 4;
    let texts: &[(u32, i32, &str, &str)] = &[
        (16, -1, "true", "malformed"),
        (21, -1, "32768", "malformed"),
        (23, -1, "+1", "malformed"),
        (23, -1, "", "malformed"),
        (701, -1, "nan", "malformed"),
        (701, -1, "inf", "malformed"),
        (1700, decimal, "1.234", "type_mismatch"),
        (1700, decimal, "1.23x", "malformed"),
        (1700, decimal, ".5", "malformed"),
        (1700, decimal, "1.", "malformed"),
        (17, -1, "\\\\336\\255", "malformed"),
        (17, -1, "\\xabc", "malformed"),
        (1082, -1, "29.02.2024", "malformed"),
        (1082, -1, "2024-02-30", "malformed"),
        (1082, -1, "0000-01-01", "malformed"),
        (1114, -1, "2024-02-29", "malformed"),
        (1114, -1, "2024-02-29 12:00:00+00", "malformed"),
        (1184, -1, "2024-02-29 12:00:00", "malformed"),
        (1184, -1, "2024-02-29 12:00:00.1234567+00", "malformed"),
        (1007, -1, "1,2", "malformed"),
        (1007, -1, "{1,}", "malformed"),
        (1007, -1, "{,1}", "malformed"),
        (1007, -1, "{1,2}}", "malformed"),
        (1009, -1, "{\"a}", "malformed"),
        (1009, -1, "{\"a\"b}", "malformed"),
        (1009, -1, "{a\"b}", "malformed"),
        (HSTORE, -1, "a=>1", "malformed"),
        (HSTORE, -1, "\"a\"=>1", "malformed"),
        (HSTORE, -1, "\"a\"=>\"1\",\"b\"=>\"2\"", "malformed"),
        (790, -1, "$", "malformed"),
        (790, -1, "$99999999999999999999.00", "malformed"),
    ];
    for (oid, modifier, text, code) in texts {
        let column = types().column(*oid, *modifier);
        assert_eq!(read(&column, Specials::Null, text.as_bytes(), false), Err(*code), "{oid} {text}");
    }
    let bytes: &[(u32, i32, &str, &str)] = &[
        (16, -1, "02", "malformed"),
        (23, -1, "0000000001", "malformed"),
        (25, -1, "ff", "malformed"),
        (3802, -1, "027b7d", "malformed"),
        (1700, decimal, "0001000000000002", "malformed"),
        (1700, decimal, "00010000000000022710", "malformed"),
        (1700, decimal, "0002000000000003000104d2", "type_mismatch"),
        (1700, -1, "0000000012340000", "malformed"),
        (1083, -1, "ffffffffffffffff", "malformed"),
        (869, -1, "02210004c0a80105", "malformed"),
        (869, -1, "04180004c0a80105", "malformed"),
        (1560, -1, "00000009a8", "malformed"),
        (1007, -1, "00000001000000000000001900000000", "type_mismatch"),
        (1007, -1, "000000010000000000000017ffffffff00000001", "malformed"),
        (
            1007,
            -1,
            "0000000100000000000000170000000200000001000000040000000100000003000000",
            "malformed",
        ),
        (COMPOSITE, -1, "000000010000401d0000000161", "new_type"),
        (HSTORE, -1, "00000001ffffffff00000000", "malformed"),
        (HSTORE, -1, "0000000100000001ff00000000", "malformed"),
    ];
    for (oid, modifier, bytes, code) in bytes {
        let column = types().column(*oid, *modifier);
        assert_eq!(read(&column, Specials::Null, &unhex(bytes), true), Err(*code), "{oid} {bytes}");
    }
}

#[test]
fn money_is_read_in_whatever_way_a_country_writes_it() {
    let column = types().column(790, -1);
    for (text, expected) in [
        ("$1,234.50", "1234.50"),
        ("-$0.01", "-0.01"),
        ("($5.00)", "-5.00"),
        ("1.234,50 €", "1234.50"),
        ("\u{2212}1 234,50 kr", "-1234.50"),
        ("$92,233,720,368,547,758.07", "92233720368547758.07"),
        ("-$92,233,720,368,547,758.08", "-92233720368547758.08"),
    ] {
        assert_eq!(
            read(&column, Specials::Reject, text.as_bytes(), false).as_deref(),
            Ok(expected),
            "{text}"
        );
    }
}

/// `ALTER TYPE … ADD ATTRIBUTE` changes the values of tables that the stream says nothing of.
#[test]
fn a_composite_value_with_more_fields_than_its_type_had_is_printed() {
    let column = types().column(COMPOSITE, -1);
    let value = concat!(
        "00000004",
        "00000017ffffffff",
        "00000019000000017a",
        "000000170000000400000002",
        "000006a40000000a00010000000000010005"
    );
    assert_eq!(read(&column, Specials::Reject, &unhex(value), true).as_deref(), Ok("(,z,2,5.0)"));
}

/// From PostgreSQL 17 on.
#[test]
fn an_infinite_interval_is_printed() {
    let column = types().column(1186, -1);
    for (bytes, expected) in [
        ("7fffffffffffffff7fffffff7fffffff", "infinity"),
        ("80000000000000008000000080000000", "-infinity"),
        (
            "80000000000000000000000080000000",
            "-178956970 years -8 mons -2562047788:00:54.775808",
        ),
    ] {
        assert_eq!(read(&column, Specials::Reject, &unhex(bytes), true).as_deref(), Ok(expected));
    }
}

#[test]
fn a_byte_that_is_no_character_is_printed_in_octal() {
    let column = types().column(18, -1);
    for (value, expected) in [(&[0xe9][..], "\\351"), (&[0x00], ""), (b"a", "a")] {
        assert_eq!(read(&column, Specials::Reject, value, true).as_deref(), Ok(expected));
    }
    for (value, expected) in [(&[0xe9][..], "\\351"), (b"\\351", "\\351"), (b"", "")] {
        assert_eq!(read(&column, Specials::Reject, value, false).as_deref(), Ok(expected));
    }
}
