//! How fast Postgres values become columns: values and bytes per second of one core's CPU time, in both forms.
//!
//! `cargo bench --profile release --bench values`, or `… -- numeric` for those whose name has the word. Runs of 8,192 values, one in
//! sixteen null; the same input in every round.

mod bed;

use alluvium::sources::postgres::types::{ColumnType, TypeRow, Types};
use alluvium::sources::postgres::values::{ColumnBuilder, Specials};

const RUN: u32 = 8192;
const ROUNDS: usize = 200;
const DAY_US: i64 = 86_400_000_000;

fn main() {
    println!("{:<28} {:>12} {:>8} {:>12} {:>8}", "", "binary/s", "MB/s", "text/s", "MB/s");
    let types = types();
    let column = |oid: u32, modifier: i32| types.column(oid, modifier);
    report("int4", &column(23, -1), |i| i.to_be_bytes().to_vec(), |i| i.to_string());
    report(
        "int8",
        &column(20, -1),
        |i| large(i).to_be_bytes().to_vec(),
        |i| large(i).to_string(),
    );
    report(
        "bool",
        &column(16, -1),
        |i| vec![(i % 2) as u8],
        |i| (if i % 2 == 1 { "t" } else { "f" }).to_owned(),
    );
    report(
        "float8",
        &column(701, -1),
        |i| amount(i).to_be_bytes().to_vec(),
        |i| amount(i).to_string(),
    );
    report("text of 20 bytes", &column(25, -1), |i| name(i).into_bytes(), name);
    report(
        "jsonb of 60 bytes",
        &column(3802, -1),
        |i| format!("\x01{}", json(i)).into_bytes(),
        json,
    );
    report(
        "uuid",
        &column(2950, -1),
        |i| uuid(i).to_be_bytes().to_vec(),
        |i| printed_uuid(uuid(i)),
    );
    report(
        "timestamptz",
        &column(1184, -1),
        |i| moment(i).to_be_bytes().to_vec(),
        printed_moment,
    );
    report(
        "date",
        &column(1082, -1),
        |i| (i as i32 % 20_000).to_be_bytes().to_vec(),
        |i| printed_moment(i)[..10].to_owned(),
    );
    report("numeric(12,2)", &column(1700, (12 << 16 | 2) + 4), numeric, printed_numeric);
    report("numeric", &column(1700, -1), numeric, printed_numeric);
    report("int4[] of 4", &column(1007, -1), ints, printed_ints);
    report("(int4, text, numeric)", &column(20_000, -1), record, |i| {
        format!("({i},\"{}\",{})", name(i), printed_numeric(i))
    });
}

fn types() -> Types {
    let row = |oid: u32, typtype: u8, element: u32, fields: &[u32]| TypeRow {
        oid,
        name: String::new(),
        typtype,
        category: b'U',
        element,
        delimiter: b',',
        base: 0,
        base_modifier: -1,
        range_of: 0,
        fields: fields.iter().map(|oid| (String::new(), *oid, -1)).collect(),
    };
    Types::new([row(1007, b'b', 23, &[]), row(20_000, b'c', 0, &[23, 25, 1700])])
}

fn large(i: u32) -> i64 {
    i64::from(i) * 7_919_000_000_007
}

fn amount(i: u32) -> f64 {
    f64::from(i * 31) / 100.0
}

fn name(i: u32) -> String {
    format!("customer number {i:04}")
}

fn json(i: u32) -> String {
    format!(r#"{{"id": {i:04}, "tags": ["new", "vip"], "note": "left at the door"}}"#)
}

fn uuid(i: u32) -> u128 {
    u128::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn printed_uuid(value: u128) -> String {
    let hex = format!("{value:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn moment(i: u32) -> i64 {
    i64::from(i % 20_000) * DAY_US + i64::from(i) * 1_000_003
}

fn printed_moment(i: u32) -> String {
    const EPOCH_US: i64 = 946_684_800_000_000;
    let moment = chrono::DateTime::from_timestamp_micros(EPOCH_US + moment(i)).expect("a moment of this century");
    moment.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// `i * 10,000 + 1234` and 50 hundredths: three digits to the base 10,000.
fn numeric(i: u32) -> Vec<u8> {
    let words = [3, 1, 0, 2, i as u16, 1234, 5000];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn printed_numeric(i: u32) -> String {
    format!("{}.50", i * 10_000 + 1234)
}

fn ints(i: u32) -> Vec<u8> {
    let head = [1, 0, 23, 4, 1].into_iter();
    let elements = (0..4).flat_map(|n| [4, i + n]);
    head.chain(elements).flat_map(u32::to_be_bytes).collect()
}

fn printed_ints(i: u32) -> String {
    format!("{{{},{},{},{}}}", i, i + 1, i + 2, i + 3)
}

fn record(i: u32) -> Vec<u8> {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    for (oid, value) in [(23u32, i.to_be_bytes().to_vec()), (25, name(i).into_bytes()), (1700, numeric(i))] {
        bytes.extend(oid.to_be_bytes());
        bytes.extend((value.len() as u32).to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

fn report(name: &str, column: &ColumnType, binary: impl Fn(u32) -> Vec<u8>, text: impl Fn(u32) -> String) {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if !words.iter().all(|word| name.contains(word)) {
        return;
    }
    let numbers = 1..=RUN;
    let binary: Vec<Option<Vec<u8>>> = numbers.clone().map(|i| (i % 16 != 0).then(|| binary(i))).collect();
    let text: Vec<Option<Vec<u8>>> = numbers.map(|i| (i % 16 != 0).then(|| text(i).into_bytes())).collect();
    let (a, b) = (round(column, &binary, true), round(column, &text, false));
    assert_eq!(&a, &b, "{name} is the same in both forms");
    let (binary_rate, binary_mb) = rate(column, &binary, true);
    let (text_rate, text_mb) = rate(column, &text, false);
    println!("{name:<28} {binary_rate:>12.0} {binary_mb:>8.0} {text_rate:>12.0} {text_mb:>8.0}");
}

fn rate(column: &ColumnType, values: &[Option<Vec<u8>>], binary: bool) -> (f64, f64) {
    let bytes: usize = values.iter().flatten().map(Vec::len).sum();
    let start = bed::cpu();
    for _ in 0..ROUNDS {
        std::hint::black_box(round(column, values, binary));
    }
    let seconds = bed::cpu() - start;
    let rounds = ROUNDS as f64;
    (values.len() as f64 * rounds / seconds, bytes as f64 * rounds / seconds / 1e6)
}

fn round(column: &ColumnType, values: &[Option<Vec<u8>>], binary: bool) -> arrow::array::ArrayRef {
    let mut builder = ColumnBuilder::new(column, Specials::Reject);
    for value in values {
        match value {
            None => builder.append_null(),
            Some(value) if binary => builder.append_binary(value).expect("a value of the column"),
            Some(value) => builder.append_text(value).expect("a value of the column"),
        }
    }
    builder.finish().expect("a column")
}
