//! A table of values at the edges of their types, each in small files of its own, and what filters must find in it.
//!
//! Readers pass over files by their statistics, and none may pass over a file with a row in it that it is asked for. The values of a column
//! stand here in their order, so that a value is its place, and what a filter must find is known without comparing values.

use std::sync::Arc;

use alluvium::batch::{ChangeBatch, Op};
use alluvium::log::{Log, store};
use alluvium::position::{Checkpoint, Lane, Position};
use alluvium::sinks::Sink;
use alluvium::sinks::delta::DeltaSink;
use alluvium::table::{Merge, Mode, Table, TableId};
use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Fields, Schema};
use url::Url;

use super::program::Site;
use super::python::{Condition, Question, Reader};
use super::readback::texts;
use super::{bank, history};

/// One column: its values in their order, and how each is written in SQL; None is not asked for, as it has no literal that all readers know.
struct Column {
    /// With its field, where it lies within a column.
    name: &'static str,
    kind: &'static str,
    values: ArrayRef,
    texts: Vec<Option<String>>,
}

impl Column {
    fn new(name: &'static str, kind: &'static str, values: impl Array + 'static, texts: &[&str]) -> Self {
        assert_eq!(values.len(), texts.len(), "{name}");
        let text = |text: &&str| (!text.is_empty() || kind == "string").then(|| (*text).to_owned());
        Self {
            name,
            kind,
            values: Arc::new(values),
            texts: texts.iter().map(text).collect(),
        }
    }

    /// Both zeros are equal, and nothing else is to its neighbour.
    fn rank(&self, place: usize) -> usize {
        let is_zero = |place: usize| ["0.0", "-0.0"].map(|zero| Some(zero.to_owned())).contains(&self.texts[place]);
        if is_zero(place) && is_zero(place - 1) { place - 1 } else { place }
    }
}

fn columns() -> Vec<Column> {
    let doubles = [
        "-Infinity",
        "-1.7976931348623157e308",
        "-1.5",
        "-0.0",
        "0.0",
        "5e-324",
        "0.1",
        "1.5",
        "1.7976931348623157e308",
    ];
    let floats = [
        "-Infinity",
        "-3.4028235e38",
        "-1.5",
        "-0.0",
        "0.0",
        "1e-45",
        "0.1",
        "1.5",
        "3.4028235e38",
    ];
    let above = ["Infinity", "NaN"];
    let doubles = [&doubles[..], &above].concat();
    let floats = [&floats[..], &above].concat();
    let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse::<f64>().unwrap()).collect::<Vec<_>>();
    // The years 0 and 10000 lie outside of what statistics can say, and times between two milliseconds are rounded there.
    let times = [
        "",
        "0001-01-01T00:00:00",
        "0001-01-01T00:00:00.000001",
        "1969-12-31T23:59:59.999999",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00:00.000001",
        "2024-02-29T12:34:56.789012",
        "9999-12-31T23:59:59.999000",
        "9999-12-31T23:59:59.999999",
        "",
    ];
    let zoned = times.map(|text| if text.is_empty() { String::new() } else { format!("{text}+00:00") });
    let micros = vec![
        -62_135_596_800_000_001,
        -62_135_596_800_000_000,
        -62_135_596_799_999_999,
        -1,
        0,
        1,
        1_709_210_096_789_012,
        253_402_300_799_999_000,
        253_402_300_799_999_999,
        253_402_300_800_000_000,
    ];
    let days = ["", "0001-01-01", "1582-10-10", "1969-12-31", "1970-01-01", "9999-12-31", ""];
    // More digits than a floating point number holds.
    let decimals = [
        "-9999999999999999999999999999.9999999999",
        "-1.0000000001",
        "-1.0000000000",
        "0.0000000000",
        "0.0000000001",
        "12345678901234567.8901234567",
        "12345678901234567.8901234568",
        "9999999999999999999999999999.9999999999",
    ];
    let units = decimals.map(|text| text.replace('.', "").parse::<i128>().unwrap());
    let integers = [
        i64::MIN,
        -9_007_199_254_740_993,
        -1,
        0,
        9_007_199_254_740_992,
        9_007_199_254_740_993,
        i64::MAX,
    ];
    // Statistics keep 32 characters, and Parquet's own 64 bytes.
    let strings = [
        String::new(),
        "a".to_owned(),
        "a ".to_owned(),
        format!("b{}", "\u{10ffff}".repeat(35)),
        "it's".to_owned(),
        "z".repeat(32),
        "z".repeat(33),
        "z".repeat(70),
        "é".repeat(40),
        "\u{d7ff}".repeat(33),
        "\u{e000}".to_owned(),
        "\u{1f600}".repeat(40),
        "\u{10ffff}".repeat(33),
    ];
    fn borrowed(texts: &[String]) -> Vec<&str> {
        texts.iter().map(String::as_str).collect()
    }
    let numbers = integers.map(|value| value.to_string());
    let within = [-7, 0, 7].map(|value: i64| value.to_string());
    vec![
        Column::new("d", "double", Float64Array::from(parsed(&doubles)), &doubles),
        Column::new(
            "f",
            "float",
            Float32Array::from(floats.iter().map(|text| text.parse().unwrap()).collect::<Vec<f32>>()),
            &floats,
        ),
        Column::new(
            "t",
            "timestamp",
            TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC"),
            &borrowed(&zoned),
        ),
        Column::new("w", "timestamp_ntz", TimestampMicrosecondArray::from(micros), &times),
        Column::new(
            "day",
            "date",
            Date32Array::from(vec![-719_163, -719_162, -141_432, -1, 0, 2_932_896, 2_932_897]),
            &days,
        ),
        Column::new(
            "m",
            "decimal(38,10)",
            Decimal128Array::from(units.to_vec()).with_precision_and_scale(38, 10).unwrap(),
            &decimals,
        ),
        Column::new("n", "bigint", Int64Array::from(integers.to_vec()), &borrowed(&numbers)),
        Column::new("s", "string", StringArray::from(strings.to_vec()), &borrowed(&strings)),
        Column::new("deep.n", "bigint", Int64Array::from(vec![-7, 0, 7]), &borrowed(&within)),
    ]
}

/// What stands in a row: for all columns the same number, which each takes modulo its values. None: all is null.
type Row = Option<usize>;

/// Rows of these ids.
fn batch(columns: &[Column], rows: &[(i64, Row)]) -> RecordBatch {
    let mut cells: Vec<(String, ArrayRef, bool)> = vec![(
        "id".to_owned(),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        false,
    )];
    for column in columns {
        let places = rows.iter().map(|(_, row)| row.map(|number| (number % column.values.len()) as u64));
        let places = UInt64Array::from_iter(places);
        let values = arrow::compute::take(&column.values, &places, None).unwrap();
        cells.push(match column.name.split_once('.') {
            None => (column.name.to_owned(), values, true),
            Some((outer, inner)) => {
                let fields: Fields = vec![Field::new(inner, values.data_type().clone(), true)].into();
                let nulls = values.nulls().cloned();
                (outer.to_owned(), Arc::new(StructArray::new(fields, vec![values], nulls)), true)
            }
        });
    }
    let fields: Vec<Field> = cells
        .iter()
        .map(|(name, cells, nullable)| Field::new(name, cells.data_type().clone(), *nullable))
        .collect();
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        cells.into_iter().map(|(_, cells, _)| cells).collect(),
    )
    .unwrap()
}

/// Makes the table: a file for each value and for each two that follow each other (so that the last, NaN, stands beside the first), one of
/// nulls, one of a null and values. Some rows are deleted again, by deletion vectors. Returns the rows that are left.
async fn make(site: &Site, columns: &[Column]) -> Vec<(i64, Row)> {
    let most = columns.iter().map(|column| column.values.len()).max().unwrap();
    let mut files: Vec<Vec<Row>> = (0..most).map(|number| vec![Some(number)]).collect();
    files.extend((0..most).map(|number| vec![Some(number), Some(number + 1)]));
    // The last and the first of each column, whatever its length.
    files.extend(
        columns
            .iter()
            .map(|column| vec![Some(column.values.len() - 1), Some(column.values.len())]),
    );
    files.extend([vec![None], vec![None, Some(0), Some(most - 1)]]);

    let url = Url::from_directory_path(site.table("edges")).unwrap();
    let mode = Mode::Upsert {
        key: vec!["id".to_owned()],
        merge: Merge::Vectors,
    };
    let table = Table::new(TableId::new("edges"), url.clone(), mode, batch(columns, &[]).schema());
    let log = Log::open_or_create(&url, store::open(&url, &Default::default()).unwrap(), &table, "edges")
        .await
        .unwrap();
    let mut sink = DeltaSink::open(&table, log, "edges", 64 << 20, &site.path("state")).await.unwrap();
    let (mut left, mut next, mut at) = (Vec::new(), 0, 0);
    let mark = |at: u64| -> Checkpoint { [(Lane::new("edges/0"), Position(at))].into_iter().collect() };
    for file in files {
        let rows: Vec<(i64, Row)> = file.into_iter().enumerate().map(|(at, row)| (next + at as i64, row)).collect();
        next += rows.len() as i64;
        at += 1;
        sink.write(ChangeBatch::puts(table.id.clone(), batch(columns, &rows)))
            .await
            .unwrap();
        sink.commit(&mark(at)).await.unwrap();
        left.extend(rows);
    }
    let gone = left.extract_if(.., |(id, _)| *id % 5 == 4).collect::<Vec<_>>();
    let deletes = ChangeBatch {
        ops: vec![Op::Delete; gone.len()],
        ..ChangeBatch::puts(table.id.clone(), batch(columns, &gone))
    };
    sink.write(deletes).await.unwrap();
    sink.commit(&mark(at + 1)).await.unwrap();
    sink.close();
    let last = history::read(&site.table("edges")).pop().unwrap();
    assert!(last.vectors > 3, "deletion vectors take rows away");
    left
}

/// Each of these readers finds the rows that meet a condition, for conditions at all values.
pub async fn are_found_by(readers: &[Reader]) {
    let (site, columns) = (Site::new(), columns());
    let left = make(&site, &columns).await;
    let mut asked = Vec::new();
    for column in &columns {
        let condition = |is, value: Option<&String>| Condition {
            column: column.name,
            kind: column.kind,
            is,
            value: value.cloned(),
        };
        let place = |number: usize| column.rank(number % column.values.len());
        let ids = |meets: &dyn Fn(Option<usize>) -> bool| {
            let met = left.iter().filter(|(_, row)| meets(row.map(place)));
            let mut ids: Vec<String> = met.map(|(id, _)| id.to_string()).collect();
            ids.sort();
            ids
        };
        asked.push((condition("null", None), ids(&|at| at.is_none())));
        asked.push((condition("not null", None), ids(&|at| at.is_some())));
        for (number, text) in column.texts.iter().enumerate().filter(|(_, text)| text.is_some()) {
            let value = column.rank(number);
            asked.push((condition("=", text.as_ref()), ids(&|at| at == Some(value))));
            asked.push((condition(">=", text.as_ref()), ids(&|at| at.is_some_and(|at| at >= value))));
            asked.push((condition("<=", text.as_ref()), ids(&|at| at.is_some_and(|at| at <= value))));
        }
    }
    for reader in readers {
        // Spark takes a third of a second for each; a value is found by what equals it only where both bounds of its file hold. It also looks
        // into the dictionaries of Parquet, where the two zeros are two values, and so loses the rows of the other one, whoever wrote them.
        let is_bound = |condition: &Condition| [">=", "<="].contains(&condition.is);
        let is_zero = |condition: &Condition| matches!(condition.value.as_deref(), Some("0.0" | "-0.0"));
        // Nor does it find the days that the calendar left out when it was mended, for Java's dates do not have them.
        let is_left_out = |condition: &Condition| condition.value.as_deref() == Some("1582-10-10");
        let is_asked =
            |condition: &Condition| *reader != Reader::Spark || !(is_bound(condition) || is_zero(condition) || is_left_out(condition));
        let asked: Vec<_> = asked.iter().filter(|(condition, _)| is_asked(condition)).collect();
        let found = found(*reader, &site, asked.iter().map(|(condition, _)| condition)).await;
        let answers = asked.into_iter().zip(found);
        let wrong: Vec<_> = answers.filter(|((_, expected), found)| found != expected).collect();
        assert!(wrong.is_empty(), "{reader:?}: {wrong:#?}");
    }
}

/// The ids of the rows that meet each of these, sorted as texts.
async fn found<'c>(reader: Reader, site: &Site, conditions: impl Iterator<Item = &'c Condition>) -> Vec<Vec<String>> {
    if reader == Reader::Alluvium {
        // Its process would start once for each.
        let mut found = Vec::new();
        for condition in conditions {
            let sql = format!("select id from edges where {}", condition.sql());
            found.push(bank::read(site, &sql, &["edges"]).await.concat());
        }
        return found;
    }
    let questions: Vec<Question> = conditions.cloned().map(Question::Where).collect();
    let answers = reader.ask(&site.table("edges"), &questions, &site.out()).await;
    answers.iter().map(|files| texts(files, &["id"])).collect()
}
