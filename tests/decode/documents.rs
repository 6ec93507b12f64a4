//! Events whose rows are no objects of columns: MongoDB's, whose documents are text, and whatever else stands there. None becomes a row of nulls.

use alluvium::batch::Op;
use alluvium::config::{Format, KeyFrom};
use alluvium::sources::decode::{DecodeSpec, decoder, discover, rows_among};
use arrow::datatypes::{DataType, Field};
use serde_json::json;

use super::{account, columns, message, row, spec, upsert, value};

/// As Debezium's MongoDB connector writes it.
pub(super) const CREATE: &str = r#"{"before":null,"after":"{\"_id\":{\"$oid\":\"0a\"},\"id\":1}","updateDescription":null,"source":{"connector":"mongodb","lsn":7},"op":"c","ts_ms":1}"#;

const FLATTEN: &str = "`ExtractNewDocumentState`";

/// The schema that the connector writes in front, and a payload.
pub(super) fn in_schema(payload: &str) -> String {
    let image = |name: &str| json!({"type": "string", "optional": true, "name": "io.debezium.data.Json", "version": 1, "field": name});
    let source = json!({"type": "struct", "field": "source", "fields": [{"type": "string", "field": "connector"}]});
    let op = json!({"type": "string", "optional": true, "field": "op"});
    let fields = json!([image("before"), image("after"), source, op]);
    let schema = json!({"type": "struct", "optional": false, "name": "shop.orders.Envelope", "fields": fields});
    format!(r#"{{"schema":{schema},"payload":{payload}}}"#)
}

/// Tables that keep every event, and those of a key in the value or the message.
fn tables() -> [DecodeSpec; 3] {
    let fields = vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
    let mut events = spec(Format::DebeziumJson, columns(fields));
    events.metadata = vec!["__op".to_owned(), "__lsn".to_owned()];
    let by_value = upsert(events.clone(), &["id"]);
    let by_message = DecodeSpec {
        key_from: KeyFrom::MessageKey,
        ..by_value.clone()
    };
    [events, by_value, by_message]
}

/// That every table refuses the message and says why, and takes the one behind it.
fn is_refused(text: &str, what: &str) {
    for table in tables() {
        let good = r#"{"op":"c","before":null,"after":{"id":5,"name":"e"}}"#;
        let messages = [text, good].map(|text| message(Some(br#"{"id":5}"#), Some(text.as_bytes())));
        let decoded = decoder(&table).unwrap().decode(&messages).unwrap();
        account(&decoded, 2);
        assert_eq!(
            (decoded.ops.as_slice(), decoded.origins.as_slice()),
            (&[Op::Put][..], &[1][..]),
            "{text}"
        );
        let reject = &decoded.rejects[0];
        assert_eq!((reject.index, reject.code), (0, "unexpected"), "{text}: {}", reject.message);
        assert!(reject.message.contains(what), "{text}: {}", reject.message);
    }
}

#[test]
fn documents_as_text_are_rejected_with_the_transform_that_flattens_them() {
    let events = [
        CREATE,
        r#"{"before":null,"after":"{}","source":{},"op":"r","ts_ms":1}"#,
        r#"{"before":null,"after":"{}","op":"c"}"#,
        r#"{"after":"{}","op":"u","updateDescription":{"updatedFields":"{}"}}"#,
        r#"{"kafka_offset":7,"before":null,"after":"{}","source":{},"op":"u"}"#,
        r#"{"op":"u","before":"{}","after":"{}","source":{},"kafka_offset":7}"#,
        r#"{"op":"d","before":"{}","after":null,"source":{},"updateDescription":null}"#,
    ];
    for event in events {
        is_refused(event, FLATTEN);
        is_refused(&in_schema(event), FLATTEN);
        is_refused(&format!(r#"{{"schema":null,"payload":{event}}}"#), FLATTEN);
    }
    // The schema says it where the event has nothing to say it with.
    is_refused(&in_schema(r#"{"before":null,"after":null,"source":{},"op":"c"}"#), FLATTEN);
}

#[test]
fn an_event_whose_row_is_nothing_like_an_object_is_rejected() {
    for image in ["7", "-1.5", "true", "[]", r#"[{"id":1}]"#] {
        for others in ["", r#","source":{}"#, r#","source":{},"kafka_offset":7"#] {
            let of = |name: &str, op: &str| format!(r#"{{"op":"{op}","{name}":{image}{others}}}"#);
            is_refused(&of("after", "c"), "`after`: an object");
            is_refused(&of("after", "u"), "`after`: an object");
            is_refused(&of("before", "d"), "`before`: an object");
        }
    }
    let lacking = [
        r#"{"op":"c"}"#,
        r#"{"op":"u","source":{},"ts_ms":1}"#,
        r#"{"op":"r","before":null,"source":{},"kafka_offset":7}"#,
        r#"{"op":"u","before":{"id":5},"source":{},"kafka_offset":7}"#,
        r#"{"op":"u","before":null,"after":null,"updateDescription":{"updatedFields":"{}"}}"#,
    ];
    lacking
        .into_iter()
        .for_each(|event| is_refused(event, "`after`: the event has no row"));
}

#[test]
fn an_object_without_any_of_the_tables_columns_is_no_row() {
    let [events, by_value, by_message] = tables();
    for object in [
        "{}",
        r#"{"Id":1}"#,
        r#"{"op":"c","source":{},"kafka_offset":7}"#,
        r#"{"before":null,"after":"{}","op":"c","kafka_offset":7}"#,
        r#"{"schema":null,"payload":{"x":{"id":1}}}"#,
    ] {
        for table in [&events, &by_message] {
            let keyed = message(Some(br#"{"id":5}"#), Some(object.as_bytes()));
            let decoded = decoder(table).unwrap().decode(&[keyed]).unwrap();
            // Nothing is said of the row of its key, either.
            assert_eq!((decoded.rows.num_rows(), decoded.rejects[0].code), (0, "unexpected"), "{object}");
            assert!(
                decoded.rejects[0].message.contains("none of its members"),
                "{}",
                decoded.rejects[0].message
            );
        }
        let decoded = decoder(&by_value).unwrap().decode(&[value(object)]).unwrap();
        assert_eq!((decoded.rows.num_rows(), decoded.rejects[0].code), (0, "missing_key"), "{object}");
    }
    // One is enough, be it null, and be it the key that is not read out of the value.
    for (object, name) in [
        (r#"{"x":1,"name":null}"#, json!(null)),
        (r#"{"name":"a"}"#, json!("a")),
        (r#"{"id":5}"#, json!(null)),
    ] {
        for table in [&events, &by_message] {
            let keyed = message(Some(br#"{"id":5}"#), Some(object.as_bytes()));
            let decoded = decoder(table).unwrap().decode(&[keyed]).unwrap();
            assert_eq!((decoded.ops.as_slice(), decoded.rejects.len()), (&[Op::Put][..], 0), "{object}");
            assert_eq!(row(&decoded, 0)["name"], name, "{object}");
        }
    }
}

#[test]
fn no_table_is_made_of_an_envelope_for_a_row() {
    let delete = r#"{"before":null,"after":null,"source":{},"op":"d"}"#;
    let unclear = r#"{"op":"c","source":"shop","before":null,"after":"{}","kafka_offset":7}"#;
    for (payload, what) in [(CREATE, FLATTEN), (delete, FLATTEN), (unclear, "describes no row")] {
        let text = in_schema(payload);
        let messages = [value(&text), message(Some(b"{}"), None)];
        assert_eq!(discover(Format::DebeziumJson, &messages).unwrap(), None, "{payload}");
        let among = rows_among(&messages);
        assert!(among.rows, "{payload}");
        let why = among.unreadable.unwrap();
        assert!(why.contains(what), "{payload}: {why}");
        is_refused(&text, what);
    }
    let flattened = r#"{"schema":{"type":"struct","name":"shop.orders.Value","fields":[{"type":"string","field":"after"}]},"payload":{"after":"{}","id":1}}"#;
    assert_eq!(
        rows_among(&[value(flattened), value(CREATE)])
            .unreadable
            .map(|why| why.contains(FLATTEN)),
        Some(true)
    );
    assert_eq!(rows_among(&[value(flattened), value(r#"{"id":1}"#)]).unreadable, None);
    assert!(discover(Format::DebeziumJson, &[value(flattened)]).unwrap().is_some());
}
