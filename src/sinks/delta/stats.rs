//! The statistics of a data file, as Delta's JSON: how many rows, how many nulls, and between which bounds each column lies.
//!
//! Readers skip files by them, so a bound that does not hold loses rows. What cannot be said truly in this JSON is left out: NaN and
//! infinities, times outside the years 1 to 9999, the upper bound of a text that cannot be rounded up. Times are kept to the
//! millisecond, rounded down in a lower bound and up in an upper one; texts are cut at 32 characters, and an upper bound that was cut is
//! rounded up.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Utc};

use crate::error::{Error, Result};
use crate::log::Indexed;

/// Characters kept of a text: what other writers of Delta keep.
const TEXT_CHARACTERS: usize = 32;
const MILLISECONDS_OF_DAY: i64 = 86_400_000;

/// Gathers the statistics of one file.
#[derive(Clone, Debug)]
pub struct Statistics {
    rows: u64,
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// A list, a map, or a column that is not among those that the table names.
    Nothing,
    Leaf {
        nulls: u64,
        bounds: Bounds,
    },
    Struct(Vec<Column>),
}

/// Lowest and highest value so far, or None before the first.
#[derive(Clone, Debug)]
enum Bounds {
    Unbounded,
    Integer(Option<(i64, i64)>),
    Date(Option<(i64, i64)>),
    Time {
        micros: Option<(i64, i64)>,
        utc: bool,
    },
    Decimal {
        units: Option<(i128, i128)>,
        scale: i8,
    },
    Float {
        ends: Option<(f64, f64)>,
        nan: bool,
    },
    /// The ends' first characters, and whether the upper one was cut.
    Text(Option<TextEnds>),
}

#[derive(Clone, Debug)]
struct TextEnds {
    low: String,
    high: String,
    high_was_cut: bool,
}

impl Statistics {
    /// For files of these columns, of which those that are indexed get statistics.
    pub fn new(columns: &Fields, indexed: &Indexed) -> Self {
        let (mut path, mut wants) = (Vec::new(), indexed.chooser());
        Self {
            rows: 0,
            columns: columns.iter().map(|field| Column::new(field, &mut path, &mut wants)).collect(),
        }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn update(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows() as u64;
        let columns = self.columns.iter_mut().zip(rows.columns());
        columns
            .into_iter()
            .try_for_each(|(column, values)| column.content.update(values, None))
    }

    /// The JSON of an `add` action's `stats`.
    pub fn to_json(&self) -> String {
        let mut json = format!("{{\"numRecords\":{}", self.rows);
        for (name, part) in [("minValues", Part::Low), ("maxValues", Part::High), ("nullCount", Part::Nulls)] {
            let _ = write!(json, ",\"{name}\":");
            write_object(&mut json, &self.columns, part);
        }
        json.push('}');
        json
    }
}

impl Column {
    /// `path`: the names of what it lies in.
    fn new<'f>(field: &'f Field, path: &mut Vec<&'f str>, wants: &mut dyn FnMut(&[&str]) -> bool) -> Self {
        path.push(field.name());
        let content = match field.data_type() {
            DataType::Struct(fields) => Content::Struct(fields.iter().map(|inner| Self::new(inner, path, wants)).collect()),
            kind if wants(path.as_slice()) => Content::leaf(kind),
            _ => Content::Nothing,
        };
        path.pop();
        Self {
            name: field.name().clone(),
            content,
        }
    }
}

impl Content {
    fn leaf(kind: &DataType) -> Self {
        let bounds = match kind {
            DataType::Int32 | DataType::Int64 => Bounds::Integer(None),
            DataType::Date32 => Bounds::Date(None),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Bounds::Time {
                micros: None,
                utc: zone.is_some(),
            },
            DataType::Decimal128(_, scale) => Bounds::Decimal {
                units: None,
                scale: *scale,
            },
            DataType::Float32 | DataType::Float64 => Bounds::Float { ends: None, nan: false },
            DataType::Utf8 => Bounds::Text(None),
            DataType::List(_) | DataType::Map(..) => return Content::Nothing,
            _ => Bounds::Unbounded,
        };
        Content::Leaf { nulls: 0, bounds }
    }

    /// `parent`: where the enclosing structs are null, and the value with them.
    fn update(&mut self, values: &ArrayRef, parent: Option<&NullBuffer>) -> Result<()> {
        let nulls = NullBuffer::union(parent, values.nulls());
        match self {
            Content::Nothing => Ok(()),
            Content::Struct(columns) => {
                let inner = values.as_struct().columns();
                columns
                    .iter_mut()
                    .zip(inner)
                    .try_for_each(|(column, values)| column.content.update(values, nulls.as_ref()))
            }
            Content::Leaf { nulls: count, bounds } => {
                let null_count = nulls.as_ref().map_or(0, NullBuffer::null_count);
                *count += null_count as u64;
                if null_count == values.len() {
                    return Ok(());
                }
                if parent.is_some() {
                    bounds.update(&masked(values, nulls)?)
                } else {
                    bounds.update(values)
                }
            }
        }
    }
}

/// The values with other nulls.
fn masked(values: &ArrayRef, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let data = values.to_data().into_builder().nulls(nulls).build();
    data.map(make_array)
        .map_err(|e| Error::bug("a struct and its columns differ in length").because(e))
}

/// Widens the ends by those of further values.
fn widen<T: PartialOrd + Copy>(ends: &mut Option<(T, T)>, low: Option<T>, high: Option<T>) {
    let (Some(low), Some(high)) = (low, high) else { return };
    *ends = Some(match *ends {
        None => (low, high),
        Some((lowest, highest)) => (if low < lowest { low } else { lowest }, if high > highest { high } else { highest }),
    });
}

impl Bounds {
    fn update(&mut self, values: &ArrayRef) -> Result<()> {
        match (self, values.data_type()) {
            (Bounds::Unbounded, _) => {}
            (Bounds::Integer(ends), DataType::Int32) => {
                let values = values.as_primitive::<Int32Type>();
                widen(ends, min(values).map(i64::from), max(values).map(i64::from));
            }
            (Bounds::Integer(ends), DataType::Int64) => {
                let values = values.as_primitive::<Int64Type>();
                widen(ends, min(values), max(values));
            }
            (Bounds::Date(ends), DataType::Date32) => {
                let values = values.as_primitive::<Date32Type>();
                widen(ends, min(values).map(i64::from), max(values).map(i64::from));
            }
            (Bounds::Time { micros, .. }, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                let values = values.as_primitive::<TimestampMicrosecondType>();
                widen(micros, min(values), max(values));
            }
            (Bounds::Decimal { units, .. }, DataType::Decimal128(..)) => {
                let values = values.as_primitive::<Decimal128Type>();
                widen(units, min(values), max(values));
            }
            (Bounds::Float { ends, nan }, DataType::Float32) => {
                let values = values.as_primitive::<Float32Type>();
                widen_floats(ends, nan, values.iter().flatten().map(f64::from));
            }
            (Bounds::Float { ends, nan }, DataType::Float64) => {
                let values = values.as_primitive::<Float64Type>();
                widen_floats(ends, nan, values.iter().flatten());
            }
            (Bounds::Text(ends), DataType::Utf8) => {
                let values = values.as_string::<i32>();
                if let (Some(low), Some(high)) = (min_string(values), max_string(values)) {
                    widen_texts(ends, low, high);
                }
            }
            (_, kind) => return Err(Error::bug(format!("statistics were not made for a column of type {kind}"))),
        }
        Ok(())
    }

    /// As a JSON value, or None where nothing true can be said.
    fn low(&self) -> Option<String> {
        match self {
            Bounds::Unbounded => None,
            Bounds::Integer(ends) => ends.map(|(low, _)| low.to_string()),
            Bounds::Date(ends) => date(ends.as_ref()?.0),
            Bounds::Time { micros, utc } => time(micros.as_ref()?.0.div_euclid(1000), *utc),
            Bounds::Decimal { units, scale } => units.map(|(low, _)| decimal(low, *scale)),
            // -0 lies below +0 for some readers and beside it for others.
            Bounds::Float { ends, .. } => float(if ends.as_ref()?.0 == 0.0 { -0.0 } else { ends.as_ref()?.0 }),
            Bounds::Text(ends) => ends.as_ref().map(|ends| text(&ends.low)),
        }
    }

    fn high(&self) -> Option<String> {
        match self {
            Bounds::Unbounded => None,
            Bounds::Integer(ends) => ends.map(|(_, high)| high.to_string()),
            Bounds::Date(ends) => date(ends.as_ref()?.1),
            Bounds::Time { micros, utc } => {
                let micros = micros.as_ref()?.1;
                time(micros.div_euclid(1000) + i64::from(micros.rem_euclid(1000) > 0), *utc)
            }
            Bounds::Decimal { units, scale } => units.map(|(_, high)| decimal(high, *scale)),
            // Readers hold NaN for larger than all numbers: with one in the file, no number bounds it.
            Bounds::Float { nan: true, .. } => None,
            Bounds::Float { ends, .. } => float(if ends.as_ref()?.1 == 0.0 { 0.0 } else { ends.as_ref()?.1 }),
            Bounds::Text(ends) => {
                let ends = ends.as_ref()?;
                if ends.high_was_cut {
                    rounded_up(&ends.high).map(|high| text(&high))
                } else {
                    Some(text(&ends.high))
                }
            }
        }
    }
}

fn widen_floats(ends: &mut Option<(f64, f64)>, nan: &mut bool, values: impl Iterator<Item = f64>) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        *nan |= value.is_nan();
        // `min` and `max` pass over a NaN.
        low = low.min(value);
        high = high.max(value);
    }
    if low <= high {
        widen(ends, Some(low), Some(high));
    }
}

fn widen_texts(ends: &mut Option<TextEnds>, low: &str, high: &str) {
    let (low, cut) = (prefix(low), prefix(high));
    let high_was_cut = cut.len() < high.len();
    let Some(ends) = ends else {
        *ends = Some(TextEnds {
            low: low.to_owned(),
            high: cut.to_owned(),
            high_was_cut,
        });
        return;
    };
    if low < ends.low.as_str() {
        low.clone_into(&mut ends.low);
    }
    if cut > ends.high.as_str() {
        cut.clone_into(&mut ends.high);
        ends.high_was_cut = high_was_cut;
    } else if cut == ends.high {
        ends.high_was_cut |= high_was_cut;
    }
}

/// The first characters of a text.
fn prefix(text: &str) -> &str {
    // Shorter in bytes is shorter in characters: most texts need not be walked through.
    if text.len() <= TEXT_CHARACTERS {
        return text;
    }
    text.char_indices().nth(TEXT_CHARACTERS).map_or(text, |(end, _)| &text[..end])
}

/// The lowest text above all that begin with this one: its last character that has a successor is replaced by it. Characters are in the order
/// of their UTF-8 bytes.
fn rounded_up(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = if last == '\u{d7ff}' {
            Some('\u{e000}')
        } else {
            char::from_u32(last as u32 + 1)
        };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

fn at(milliseconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(milliseconds).filter(|at| (1..=9999).contains(&at.year()))
}

fn date(days: i64) -> Option<String> {
    Some(format!("\"{}\"", at(days.checked_mul(MILLISECONDS_OF_DAY)?)?.format("%Y-%m-%d")))
}

fn time(milliseconds: i64, utc: bool) -> Option<String> {
    let zone = if utc { "Z" } else { "" };
    Some(format!("\"{}{zone}\"", at(milliseconds)?.format("%Y-%m-%dT%H:%M:%S%.3f")))
}

fn float(value: f64) -> Option<String> {
    value.is_finite().then(|| serde_json::to_string(&value).ok()).flatten()
}

/// All digits: a decimal has more than a float can hold.
pub(super) fn decimal(units: i128, scale: i8) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let digits = units.unsigned_abs().to_string();
    if scale <= 0 {
        let zeros = if units == 0 { 0 } else { usize::from(scale.unsigned_abs()) };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let scale = scale as usize;
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

#[derive(Clone, Copy)]
enum Part {
    Low,
    High,
    Nulls,
}

fn write_object(json: &mut String, columns: &[Column], part: Part) {
    json.push('{');
    let begin = json.len();
    for column in columns {
        let before = json.len();
        if before > begin {
            json.push(',');
        }
        let _ = write!(json, "{}:", text(&column.name));
        let written = match (&column.content, part) {
            (Content::Nothing, _) => None,
            (Content::Struct(inner), _) => {
                let start = json.len();
                write_object(json, inner, part);
                (json.len() > start + "{}".len()).then_some(String::new())
            }
            (Content::Leaf { nulls, .. }, Part::Nulls) => Some(nulls.to_string()),
            (Content::Leaf { bounds, .. }, Part::Low) => bounds.low(),
            (Content::Leaf { bounds, .. }, Part::High) => bounds.high(),
        };
        match written {
            Some(value) => json.push_str(&value),
            None => json.truncate(before),
        }
    }
    json.push('}');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
        StringArray, StructArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Schema;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn of(columns: Vec<(&str, ArrayRef)>) -> Value {
        serde_json::from_str(&raw(columns, &ALL)).unwrap()
    }

    const ALL: Indexed = Indexed::First(usize::MAX);

    fn raw(columns: Vec<(&str, ArrayRef)>, indexed: &Indexed) -> String {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, c)| Field::new(*name, c.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|c| c.1).collect()).unwrap();
        let mut statistics = Statistics::new(schema.fields(), indexed);
        // In two parts, so that the parts' ends must be brought together.
        let half = rows.num_rows() / 2;
        statistics.update(&rows.slice(0, half)).unwrap();
        statistics.update(&rows.slice(half, rows.num_rows() - half)).unwrap();
        statistics.to_json()
    }

    fn one(column: ArrayRef) -> (Value, Value) {
        let stats = of(vec![("c", column)]);
        (stats["minValues"]["c"].clone(), stats["maxValues"]["c"].clone())
    }

    #[test]
    fn rows_nulls_and_bounds_of_every_simple_type() {
        let stats = of(vec![
            ("i", Arc::new(Int32Array::from(vec![Some(3), None, Some(-2)]))),
            ("l", Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX]))),
            ("d", Arc::new(Date32Array::from(vec![0, 19_000, -1]))),
            ("b", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("x", Arc::new(BinaryArray::from(vec![&b"a"[..], b"b", b"c"]))),
            ("n", Arc::new(Int64Array::from(vec![None, None, None]))),
        ]);
        assert_eq!(
            stats,
            json!({"numRecords": 3,
                "minValues": {"i": -2, "l": i64::MIN, "d": "1969-12-31"},
                "maxValues": {"i": 3, "l": i64::MAX, "d": "2022-01-08"},
                "nullCount": {"i": 1, "l": 0, "d": 0, "b": 0, "x": 0, "n": 3}})
        );
    }

    #[test]
    fn v3_times_outside_of_years_1_to_9999_have_no_bound() {
        let times = |values: Vec<i64>| one(Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")));
        assert_eq!(times(vec![0, i64::MAX]), (json!("1970-01-01T00:00:00.000Z"), Value::Null));
        assert_eq!(times(vec![0, i64::MIN]), (Value::Null, json!("1970-01-01T00:00:00.000Z")));
        // The last millisecond of 9999 bounds itself; the last microsecond would have to be rounded up to the year 10000.
        let last = 253_402_300_799_999_000;
        assert_eq!(times(vec![last, last]).1, json!("9999-12-31T23:59:59.999Z"));
        assert_eq!(times(vec![last, last + 1]).1, Value::Null);
        assert_eq!(
            one(Arc::new(Date32Array::from(vec![i32::MIN, i32::MAX]))),
            (Value::Null, Value::Null)
        );
        assert_eq!(
            one(Arc::new(Date32Array::from(vec![-719_162, 2_932_896]))),
            (json!("0001-01-01"), json!("9999-12-31"))
        );
    }

    #[test]
    fn v6_nan_and_infinities_are_never_written() {
        let doubles = |values: Vec<f64>| one(Arc::new(Float64Array::from(values)));
        assert_eq!(doubles(vec![1.5, f64::NAN, -2.0]), (json!(-2.0), Value::Null));
        assert_eq!(doubles(vec![f64::NAN, f64::NAN]), (Value::Null, Value::Null));
        assert_eq!(doubles(vec![f64::NEG_INFINITY, 1.0]), (Value::Null, json!(1.0)));
        assert_eq!(doubles(vec![f64::INFINITY, 1.0]), (json!(1.0), Value::Null));
        assert_eq!(
            one(Arc::new(Float32Array::from(vec![0.1f32, -f32::NAN]))),
            (json!(f64::from(0.1f32)), Value::Null)
        );
        for zeros in [vec![0.0, -0.0], vec![-0.0, 0.0], vec![0.0, 0.0], vec![-0.0, -0.0]] {
            let (low, high) = doubles(zeros);
            assert!(low.as_f64().unwrap().is_sign_negative() && high.as_f64().unwrap().is_sign_positive());
        }
    }

    #[test]
    fn v7_times_are_rounded_outwards_to_milliseconds() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_001, 1_999, -1]));
        assert_eq!(one(times), (json!("1969-12-31T23:59:59.999"), json!("1970-01-01T00:00:00.002")));
    }

    #[test]
    fn v8_long_texts_are_cut_and_the_upper_bound_is_rounded_up() {
        let text = |values: Vec<String>| one(Arc::new(StringArray::from(values)));
        let long = "é".repeat(40);
        assert_eq!(
            text(vec![long.clone(), long.clone()]),
            (json!("é".repeat(32)), json!(format!("{}ê", "é".repeat(31))))
        );
        let exact = "z".repeat(32);
        assert_eq!(text(vec![exact.clone(), "a".into()]), (json!("a"), json!(exact)));
        assert_eq!(text(vec!["\u{10ffff}".repeat(33), "a".into()]), (json!("a"), Value::Null));
        let mixed = format!("b{}", "\u{10ffff}".repeat(35));
        assert_eq!(text(vec![mixed, "a".into()]).1, json!("c"));
        // Equal up to the cut, and only one of them longer.
        assert_eq!(
            text(vec![exact.clone(), format!("{exact}z")]).1,
            json!(format!("{}{{", "z".repeat(31)))
        );
        assert_eq!(rounded_up("\u{d7ff}").unwrap(), "\u{e000}");
    }

    #[test]
    fn v17_names_and_texts_are_escaped() {
        let stats = of(vec![("a \"b\"\n", Arc::new(StringArray::from(vec!["\u{0}\"\\", "é"])))]);
        assert_eq!(stats["minValues"]["a \"b\"\n"], json!("\u{0}\"\\"));
    }

    #[test]
    fn decimals_keep_all_their_digits() {
        let units = vec![Some(-12_345), Some(99_999_999_999_999_999_999_999_999_999_999_999_999), Some(5)];
        let column: ArrayRef = Arc::new(Decimal128Array::from(units).with_precision_and_scale(38, 3).unwrap());
        let json = raw(vec![("c", column)], &ALL);
        assert!(json.contains("\"minValues\":{\"c\":-12.345}"), "{json}");
        assert!(
            json.contains("\"maxValues\":{\"c\":99999999999999999999999999999999999.999}"),
            "{json}"
        );
        assert_eq!(
            (decimal(-5, 3).as_str(), decimal(7, 0).as_str(), decimal(7, -2).as_str()),
            ("-0.005", "7", "700")
        );
    }

    #[test]
    fn nested_columns_are_nested_and_lists_say_nothing() {
        let inner: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(99), None, Some(4)]));
        let fields: Fields = vec![Field::new("a", DataType::Int32, true)].into();
        // The second row's struct is null, so its 99 does not count.
        let outer = StructArray::new(fields, vec![inner], Some(vec![true, false, true, true].into()));
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, None, None]);
        let stats = of(vec![("s", Arc::new(outer)), ("l", Arc::new(list))]);
        assert_eq!(
            stats,
            json!({"numRecords": 4, "minValues": {"s": {"a": 1}}, "maxValues": {"s": {"a": 4}}, "nullCount": {"s": {"a": 2}}})
        );
    }

    #[test]
    fn only_the_first_leaves_have_statistics_or_those_that_are_named() {
        let column = || -> ArrayRef { Arc::new(Int32Array::from(vec![1, 2])) };
        let of =
            |indexed| -> Value { serde_json::from_str(&raw(vec![("a", column()), ("b", column()), ("c", column())], &indexed)).unwrap() };
        let json = of(Indexed::First(2));
        let named = of(Indexed::Named(vec![vec!["c".to_owned()], vec!["A".to_owned()]]));
        assert_eq!(
            (&named["minValues"], &named["nullCount"]),
            (&json!({"a": 1, "c": 1}), &json!({"a": 0, "c": 0}))
        );
        let within: Fields = vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Int32, true)].into();
        let outer: ArrayRef = Arc::new(StructArray::new(within, vec![column(), column()], None));
        let named = Indexed::Named(vec![vec!["s".to_owned(), "y".to_owned()]]);
        let inner: Value = serde_json::from_str(&raw(vec![("s", outer), ("b", column())], &named)).unwrap();
        assert_eq!(inner["maxValues"], json!({"s": {"y": 2}}));
        assert_eq!(
            json,
            json!({"numRecords": 2, "minValues": {"a": 1, "b": 1}, "maxValues": {"a": 2, "b": 2}, "nullCount": {"a": 0, "b": 0}})
        );
    }

    proptest! {
        #[test]
        fn bounds_hold_for_every_value(
            doubles in prop::collection::vec(prop::option::of(any::<f64>()), 1..40),
            texts in prop::collection::vec("[a-c\u{d7ff}\u{10ffff}é]{0,40}", 1..40),
            times in prop::collection::vec(prop_oneof![any::<i64>(), -5_000..5_000i64], 1..40),
        ) {
            let (low, high) = one(Arc::new(Float64Array::from(doubles.clone())));
            for value in doubles.into_iter().flatten() {
                prop_assert!(value.is_nan() || low.as_f64().is_none_or(|low| low <= value));
                prop_assert!(high.as_f64().is_none_or(|high| high >= value), "NaN is above all bounds");
            }
            let (low, high) = one(Arc::new(StringArray::from(texts.clone())));
            for value in &texts {
                prop_assert!(low.as_str().is_some_and(|low| low <= value.as_str()));
                prop_assert!(high.as_str().is_none_or(|high| high >= value.as_str()));
            }
            let (low, high) = one(Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")));
            let micros = |bound: &Value| bound.as_str().map(|t| DateTime::parse_from_rfc3339(t).unwrap().timestamp_micros());
            for value in times {
                prop_assert!(micros(&low).is_none_or(|low| low <= value));
                prop_assert!(micros(&high).is_none_or(|high| high >= value));
            }
        }
    }
}
