//! What a table becomes, and what it cannot hold.

use arrow::datatypes::{DataType, TimeUnit};

use super::*;

const STAY: Widening = Widening {
    allowed: false,
    written: Vec::new(),
};

fn widening(written: &[&str]) -> Widening {
    Widening {
        allowed: true,
        written: written.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn columns(fields: &[(&str, DataType, bool)]) -> Schema {
    Schema::new(
        fields
            .iter()
            .map(|(name, kind, nullable)| Field::new(*name, kind.clone(), *nullable))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn s5_s6_s11_columns_are_added_nullable_and_others_let_nulls_in() {
    let table = Arc::new(columns(&[
        ("id", DataType::Int64, false),
        ("v", DataType::Utf8, false),
        ("w", DataType::Utf8, true),
    ]));
    let rows = columns(&[
        ("n", DataType::Date32, false),
        ("v", DataType::Utf8, true),
        ("id", DataType::Int32, false),
        ("w", DataType::Utf8, false),
    ]);
    let growth = Growth::between(&table, &rows, &STAY).unwrap();
    assert_eq!(growth.nullable, ["v"], "`w` stays nullable, `id` required");
    let grown = growth.applied_to(&table);
    let expected = columns(&[
        ("id", DataType::Int64, false),
        ("v", DataType::Utf8, true),
        ("w", DataType::Utf8, true),
        ("n", DataType::Date32, true),
    ]);
    assert_eq!(*grown, expected);
    assert!(
        Growth::between(&grown, &rows, &STAY).unwrap().is_empty(),
        "a grown table needs no more"
    );
    assert_eq!(grew(&table, &grown, &STAY), Some(growth));
    assert_eq!(grew(&grown, &table, &STAY), None, "nothing shrinks");
    assert_eq!(
        grew(
            &table,
            &columns(&[
                ("v", DataType::Utf8, false),
                ("id", DataType::Int64, false),
                ("w", DataType::Utf8, true)
            ]),
            &STAY
        ),
        None,
        "nor changes its order"
    );
}

#[test]
fn s9_s10_v17_what_a_table_cannot_hold_is_told_in_full() {
    let inner = |kind: DataType| DataType::List(Arc::new(Field::new("element", kind, true)));
    let table = columns(&[
        ("id", DataType::Int32, false),
        ("d", DataType::Decimal128(10, 2), true),
        ("l", inner(DataType::Int32), true),
    ]);
    let cases = [
        (
            ("id", DataType::Int64),
            "`id` is Int32 in the table and Int64 here, which the column could be widened to: set `type_widening = true`",
        ),
        (("d", DataType::Decimal128(11, 2)), "`d` is Decimal128(10, 2)"),
        (("l", inner(DataType::Utf8)), "`l.element` is Int32"),
        (("ID", DataType::Int32), "`ID` differs from `id` in case only"),
        (("a b", DataType::Int32), "`a b` has a name that Delta does not allow"),
        (("u", DataType::UInt64), "`u` has the type UInt64"),
    ];
    let all = columns(&cases.clone().map(|((name, kind), _)| (name, kind, true)));
    let differences = Growth::between(&table, &all, &STAY).unwrap_err();
    assert_eq!(differences.len(), cases.len(), "{differences:?}");
    for ((_, part), difference) in cases.iter().zip(differences) {
        assert!(difference.contains(part), "{difference}");
    }
}

#[test]
fn s10_a_column_that_holds_what_comes_stays_as_it_is() {
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    let inner = |kind: DataType| DataType::List(Arc::new(Field::new("element", kind, true)));
    let cases = [
        (DataType::Int64, DataType::Int32),
        (DataType::Float64, DataType::Float32),
        (DataType::Float64, DataType::Int32),
        (DataType::Decimal128(10, 2), DataType::Decimal128(9, 1)),
        (DataType::Decimal128(12, 2), DataType::Int32),
        (local, DataType::Date32),
        (inner(DataType::Int64), inner(DataType::Int32)),
    ];
    for (there, coming) in cases {
        let (table, rows) = (columns(&[("c", there.clone(), true)]), columns(&[("c", coming.clone(), true)]));
        for widening in [STAY, widening(&[]), widening(&["c"])] {
            let growth = Growth::between(&table, &rows, &widening);
            assert!(growth.is_ok_and(|growth| growth.is_empty()), "{coming} in {there}");
        }
    }
}

#[test]
fn what_is_written_of_the_columns_stays_as_it_is() {
    let text = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":false,"metadata":{"delta.identity.start":1, "x":[1.50]}},{"name":"v","type":"string","nullable":false,"metadata":{}}]}"#;
    let before = MetaData {
        schema_string: text.to_owned(),
        ..MetaData::default()
    };
    let growth = Growth {
        added: vec![Arc::new(Field::new("n", DataType::Date32, true))],
        nullable: vec!["v".to_owned()],
        ..Growth::default()
    };
    let after = growth.metadata(&before).unwrap().schema_string;
    let expected = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":false,"metadata":{"delta.identity.start":1, "x":[1.50]}},{"metadata":{},"name":"v","nullable":true,"type":"string"},{"metadata":{},"name":"n","nullable":true,"type":"date"}]}"#;
    assert_eq!(after, expected);
}

#[test]
fn a_timestamp_without_zone_needs_its_feature_beside_those_that_were_unnamed() {
    let ntz = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    let growth = Growth {
        added: vec![Arc::new(Field::new("t", ntz, true))],
        ..Growth::default()
    };
    let before: Protocol = serde_json::from_str(r#"{"minReaderVersion":1,"minWriterVersion":2}"#).unwrap();
    let after = growth.protocol(&before).unwrap();
    assert_eq!((after.min_reader_version, after.min_writer_version), (3, 7));
    assert_eq!(after.reader_features.as_deref(), Some(&["timestampNtz".to_owned()][..]));
    assert_eq!(
        after.writer_features.as_deref(),
        Some(&["appendOnly", "invariants", "timestampNtz"].map(str::to_owned)[..])
    );
    assert_eq!(growth.protocol(&after), None, "once is enough");
    assert_eq!(Growth::default().protocol(&before), None);
}

#[test]
fn s9_columns_are_widened_where_that_is_asked_for_and_told_beside_their_fields() {
    let text = r#"{"type":"struct","fields":[
        {"name":"id","type":"integer","nullable":false,"metadata":{"comment":"c","delta.typeChanges":[{"fromType":"short","toType":"integer"}]}},
        {"name":"s","type":{"type":"struct","fields":[{"name":"d","type":"decimal(5,2)","nullable":true,"metadata":{}}]},"nullable":true,"metadata":{}},
        {"name":"m","type":{"type":"map","keyType":"string","valueType":{"type":"array","elementType":"float","containsNull":true},"valueContainsNull":true},"nullable":true,"metadata":{}},
        {"name":"v","type":"string","nullable":true,"metadata":{}}]}"#;
    let before = MetaData {
        schema_string: text.to_owned(),
        ..MetaData::default()
    };
    let table = Arc::new(schema::from_delta(text).unwrap());
    let rows = text
        .replace("\"integer\",\"nullable", "\"long\",\"nullable")
        .replace("decimal(5,2)", "decimal(4,3)")
        .replace("float", "double");
    let rows = schema::from_delta(&rows).unwrap();
    let growth = Growth::between(&table, &rows, &widening(&["id"])).unwrap();
    let after = growth.metadata(&before).unwrap();
    assert_eq!(after.configuration["delta.enableTypeWidening"], "true");
    let schema: serde_json::Value = serde_json::from_str(&after.schema_string).unwrap();
    let changes = |field: &serde_json::Value| field["metadata"]["delta.typeChanges"].clone();
    let fields = &schema["fields"];
    let told = serde_json::json!([{"fromType": "short", "toType": "integer"}, {"fromType": "integer", "toType": "long"}]);
    assert_eq!((&fields[0]["type"], changes(&fields[0])), (&"long".into(), told));
    assert_eq!(fields[0]["metadata"]["comment"], "c");
    let inner = &fields[1]["type"]["fields"][0];
    let told = serde_json::json!([{"fromType": "decimal(5,2)", "toType": "decimal(6,3)"}]);
    assert_eq!((&inner["type"], changes(inner)), (&"decimal(6,3)".into(), told));
    let told = serde_json::json!([{"fromType": "float", "toType": "double", "fieldPath": "value.element"}]);
    assert_eq!(changes(&fields[2]), told);
    assert_eq!((changes(&fields[1]), changes(&fields[3])), Default::default());
    let grown = growth.applied_to(&table);
    let read = schema::from_delta(&after.schema_string).unwrap();
    assert_eq!(
        grew(&table, &read, &widening(&[])),
        Some(growth.clone()),
        "as another instance sees it"
    );
    assert_eq!(grew(&table, &read, &STAY), None);
    assert!(
        Growth::between(&grown, &rows, &widening(&["id"])).unwrap().is_empty(),
        "once is enough"
    );
    let protocol = growth.protocol(&Protocol::default()).unwrap();
    assert_eq!(protocol.reader_features.as_deref(), Some(&["typeWidening".to_owned()][..]));
    assert_eq!(growth.protocol(&protocol), None);
}

#[test]
fn s9_values_of_keys_and_partitions_are_written_alike_or_stay_as_they_are() {
    let table = columns(&[("i", DataType::Int32, false), ("d", DataType::Decimal128(5, 2), true)]);
    let cases = [
        ("i", DataType::Int64, true),
        ("i", DataType::Decimal128(10, 0), false),
        ("d", DataType::Decimal128(9, 2), true),
        ("d", DataType::Decimal128(9, 3), false),
    ];
    for (name, kind, fits) in cases {
        let rows = columns(&[(name, kind.clone(), false)]);
        let of_key = Growth::between(&table, &rows, &widening(&["i", "d"]));
        assert_eq!(of_key.is_ok(), fits, "{kind}: {of_key:?}");
        assert!(Growth::between(&table, &rows, &widening(&[])).is_ok(), "{kind}");
    }
}

#[test]
fn s5_s6_s7_s11_structs_gain_fields_and_let_nulls_in_wherever_they_stand() {
    let field = |name: &str, kind: DataType, nullable: bool| Arc::new(Field::new(name, kind, nullable));
    let object = |fields: Vec<FieldRef>| DataType::Struct(fields.into());
    let list = |item: DataType, nullable: bool| DataType::List(field("element", item, nullable));
    let wrap = |inner: DataType| columns(&[("s", inner.clone(), true), ("l", list(inner, true), true)]);
    let table = Arc::new(wrap(object(vec![
        field("a", DataType::Int32, false),
        field("b", DataType::Utf8, false),
        field("gone", DataType::Utf8, true),
    ])));
    // In another order, one field more, one optional, one that is not there any more.
    let ntz = DataType::Timestamp(TimeUnit::Microsecond, None);
    let rows = wrap(object(vec![
        field("new", ntz.clone(), false),
        field("b", DataType::Utf8, true),
        field("a", DataType::Int32, false),
    ]));
    let growth = Growth::between(&table, &rows, &STAY).unwrap();
    assert_eq!(growth.fields_added, ["s.new", "l.element.new"]);
    assert_eq!(growth.fields_nullable, ["s.b", "l.element.b"]);
    assert_eq!((growth.added.len(), growth.widened.len(), growth.nullable.len()), (0, 0, 0));
    let grown = growth.applied_to(&table);
    let expected = wrap(object(vec![
        field("a", DataType::Int32, false),
        field("b", DataType::Utf8, true),
        field("gone", DataType::Utf8, true),
        field("new", ntz, true),
    ]));
    assert_eq!(*grown, expected);
    assert!(Growth::between(&grown, &rows, &STAY).unwrap().is_empty(), "once is enough");
    assert_eq!(grew(&table, &grown, &STAY), Some(growth.clone()), "as another instance sees it");
    // As it is written.
    let before = MetaData {
        schema_string: schema::to_delta(&table).unwrap(),
        ..MetaData::default()
    };
    let after = growth.metadata(&before).unwrap();
    assert_eq!(schema::from_delta(&after.schema_string).unwrap(), expected);
    assert!(!after.configuration.contains_key(ENABLE_TYPE_WIDENING));
    let protocol = growth.protocol(&Protocol::default()).unwrap();
    assert_eq!(
        protocol.reader_features.as_deref(),
        Some(&["timestampNtz".to_owned()][..]),
        "it needs only this"
    );
    // What cannot be added there, cannot be added here.
    for (name, part) in [("A", "in case only"), ("x y", "does not allow")] {
        let rows = wrap(object(vec![field(name, DataType::Int32, true)]));
        let differences = Growth::between(&table, &rows, &STAY).unwrap_err();
        assert!(
            differences.len() == 2 && differences.iter().all(|each| each.contains(part)),
            "{differences:?}"
        );
    }
}

#[test]
fn a_maps_values_gain_no_fields_for_older_files_could_not_be_read_by_many() {
    let map = |names: &[&str]| {
        let value: Fields = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
        let pair = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Struct(value), true),
        ]);
        let entries = Arc::new(Field::new("key_value", DataType::Struct(pair), false));
        columns(&[("m", DataType::Map(entries, false), true)])
    };
    let differences = Growth::between(&map(&["a"]), &map(&["a", "b"]), &STAY).unwrap_err();
    assert!(differences.len() == 1 && differences[0].contains("`m.value.b`"), "{differences:?}");
    assert!(Growth::between(&map(&["a", "b"]), &map(&["a"]), &STAY).unwrap().is_empty());
}

#[test]
fn an_array_lets_nulls_in() {
    let list = |nullable: bool| {
        columns(&[(
            "l",
            DataType::List(Arc::new(Field::new("element", DataType::Int32, nullable))),
            true,
        )])
    };
    let growth = Growth::between(&list(false), &list(true), &STAY).unwrap();
    let before = MetaData {
        schema_string: schema::to_delta(&list(false)).unwrap(),
        ..MetaData::default()
    };
    let after = growth.metadata(&before).unwrap();
    assert_eq!(schema::from_delta(&after.schema_string).unwrap(), list(true));
}

#[test]
fn what_people_say_of_a_column_is_no_other_column() {
    let with = |key: &str| {
        let field = Field::new("v", DataType::Utf8, true);
        Arc::new(Schema::new(vec![field.with_metadata([(key.to_owned(), "x".to_owned())].into())]))
    };
    let table = Arc::new(columns(&[("v", DataType::Utf8, true)]));
    assert_eq!(grew(&table, &with("comment"), &STAY), Some(Growth::default()));
    assert_eq!(grew(&with("comment"), &table, &STAY), Some(Growth::default()));
    assert_eq!(grew(&table, &with("delta.generationExpression"), &STAY), None);
}
