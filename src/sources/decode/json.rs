//! One JSON object a message, whose members are the columns.
//!
//! Kafka Connect's wrapper around it is opened, as it is around keys, unless a column has the name of one of its parts.
//!
//! Members that mean no column are passed over: the schema says what a table holds. A member that stands twice, a value of another
//! type than its column, a number that does not fit, and a required column that is missing are rejects.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::column::Dialect;
use super::fault::{Fault, Read};
use super::metadata::Metadata;
use super::rows::Rows;
use super::scanner::Scanner;
use super::{DecodeSpec, Decoded, Decoder, Message, Terms, metadata, wrapper};
use crate::batch::Op;
use crate::config::{KeyFrom, Tombstones};
use crate::error::{Error, Result};

pub(super) struct JsonDecoder {
    terms: Terms,
    schema: SchemaRef,
    rows: Rows,
    metadata: Metadata,
    may_be_wrapped: bool,
    upsert: bool,
    key_from: KeyFrom,
    tombstones: Tombstones,
}

/// What a message is to the table.
enum Outcome {
    Row(Op),
    Tombstone,
}

impl JsonDecoder {
    pub fn new(spec: &DecodeSpec, terms: Terms) -> Result<Self> {
        let upsert = !spec.key.is_empty();
        let keeps_tombstones = !upsert && spec.tombstones == Tombstones::Keep;
        let fields = super::record_fields(&spec.columns, keeps_tombstones);
        let schema = super::table_schema(&fields, &metadata::fields(&spec.metadata, spec.format)?)?;
        let mut rows = Rows::new(&fields, &[], &spec.key, spec.key_from, Dialect::Plain)?;
        rows.partition_by(&spec.partition_by, fields.len());
        if keeps_tombstones {
            rows.require(&spec.columns);
        }
        Ok(Self {
            terms,
            rows,
            schema,
            metadata: Metadata::new(&spec.metadata, &spec.partition_by),
            may_be_wrapped: !spec
                .columns
                .fields()
                .iter()
                .any(|column| wrapper::PARTS.contains(&column.name().as_str())),
            upsert,
            key_from: spec.key_from,
            tombstones: spec.tombstones,
        })
    }

    /// Reads a message as the next row, which the caller keeps or takes back.
    #[inline]
    fn read(&mut self, message: &Message<'_>) -> Read<Outcome> {
        self.terms.admit(message.bytes())?;
        let Some(value) = message.value else {
            return self.read_tombstone(message);
        };
        if self.upsert && self.key_from == KeyFrom::MessageKey {
            self.rows.read_message_key(message.key)?;
        }
        let wrapped = if self.may_be_wrapped { wrapper::open(value)? } else { None };
        let is_wrapped = wrapped.is_some();
        let mut scanner = wrapped.map_or_else(|| Scanner::new(value), |wrapped| wrapped.payload);
        match scanner.peek() {
            b'{' => self.rows.read(&mut scanner)?,
            0 if value.is_empty() => return Err(Fault::malformed("the value is empty")),
            _ => return Err(scanner.not_an_object()),
        }
        if is_wrapped {
            wrapper::close(&mut scanner)?;
        } else {
            scanner.end()?;
        }
        self.rows.close()?;
        self.rows.must_have_required()?;
        self.rows.must_have_partition()?;
        self.metadata.check(message)?;
        Ok(Outcome::Row(Op::Put))
    }

    fn read_tombstone(&mut self, message: &Message<'_>) -> Read<Outcome> {
        if self.upsert {
            self.rows.read_message_key(message.key)?;
            self.rows.close_key()?;
            return Ok(Outcome::Row(Op::Delete));
        }
        match self.tombstones {
            Tombstones::Skip => Ok(Outcome::Tombstone),
            Tombstones::Keep => {
                self.rows.close_void();
                self.metadata.check(message)?;
                Ok(Outcome::Row(Op::Put))
            }
        }
    }
}

impl Decoder for JsonDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decode(&mut self, messages: &[Message<'_>]) -> Result<Decoded> {
        let mut ops = Vec::with_capacity(messages.len());
        let mut origins = Vec::with_capacity(messages.len());
        let mut rejects = Vec::new();
        let mut tombstones = 0;
        for (index, message) in messages.iter().enumerate() {
            match self.read(message) {
                Ok(Outcome::Row(op)) => {
                    self.metadata.push(message, message.value.is_none(), std::iter::empty());
                    self.rows.keep();
                    ops.push(op);
                    origins.push(super::origin(index)?);
                }
                Ok(Outcome::Tombstone) => tombstones += 1,
                Err(fault) => {
                    self.rows.take_back();
                    rejects.push(fault.into_reject(index));
                }
            }
        }
        let (mut columns, unchanged) = self.rows.finish()?;
        columns.extend(self.metadata.finish().into_iter().map(|(_, column)| column));
        let rows = RecordBatch::try_new(self.schema.clone(), columns);
        let rows = rows.map_err(|e| Error::bug("decoded rows do not fit their schema").because(e))?;
        Ok(Decoded {
            rows,
            ops,
            origins,
            unchanged,
            rejects,
            tombstones,
            filtered: 0,
            unknown_members: self.rows.take_unknown(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::config::Format;
    use crate::sources::decode::{Headers, NewColumns, decoder, decoder_under};

    fn message<'a>(value: &'a str) -> Message<'a> {
        let value = Some(value.as_bytes());
        Message {
            topic: "orders",
            partition: 0,
            offset: 7,
            timestamp_ms: Some(5),
            key: Some(b"{\"id\":1}"),
            value,
            headers: Headers(None),
        }
    }

    fn spec(fields: Vec<Field>) -> DecodeSpec {
        DecodeSpec {
            format: Format::Json,
            columns: Arc::new(Schema::new(fields)),
            new_columns: NewColumns::Ignore,
            key: Vec::new(),
            key_from: KeyFrom::Value,
            tombstones: Tombstones::Skip,
            metadata: vec!["__offset".to_owned()],
            partition_by: Vec::new(),
        }
    }

    #[test]
    fn k14_of_a_large_record_no_row_is_made() {
        let spec = spec(vec![Field::new("id", DataType::Int64, false)]);
        let terms = Terms {
            record_bytes_max: 16,
            ..Terms::default()
        };
        let mut decoder = decoder_under(&spec, terms).unwrap();
        let messages = [r#"{"id":1}"#, r#"{"id":2, "x":""}"#, r#"{"id":3}"#].map(message);
        let decoded = decoder.decode(&messages).unwrap();
        assert_eq!(decoded.origins, [0, 2]);
        let reject = &decoded.rejects[0];
        assert_eq!((reject.index, reject.stage, reject.code), (1, "size", "too_large"));
        assert!(reject.message.contains("24 bytes"), "with its key: {}", reject.message);
    }

    #[test]
    fn the_wrapper_of_kafka_connect_is_opened_unless_a_column_is_named_like_a_part_of_it() {
        let wrapped = r#"{"schema":{"type":"struct"},"payload":{"id":7}}"#;
        let mut plain = decoder(&spec(vec![Field::new("id", DataType::Int64, true)])).unwrap();
        let values = [
            r#"{"id":6}"#,
            wrapped,
            r#"{"schema":null,"payload":8}"#,
            r#"{"schema":"x","payload":{}}"#,
        ];
        let decoded = plain.decode(&values.map(message)).unwrap();
        let ids: Vec<_> = decoded.rows.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(ids, [Some(6), Some(7), None], "the last is an object of its own");
        assert_eq!(decoded.rejects[0].index, 2, "no object");
        let mut own = decoder(&spec(vec![Field::new("payload", DataType::Utf8, true)])).unwrap();
        let decoded = own.decode(&[message(r#"{"schema":null,"payload":"x"}"#)]).unwrap();
        assert_eq!(decoded.rows.column(0).as_string::<i32>().value(0), "x");
    }

    #[test]
    fn objects_become_rows_and_a_bad_one_leaves_no_trace() {
        let spec = spec(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]);
        let mut decoder = decoder(&spec).unwrap();
        let messages = [
            r#"{"id":1,"name":"a"}"#,
            r#"{"id":2,"name":7}"#,
            r#" { "name" : "\u00e9" , "x":[{}], "id" : 3 } "#,
            r#"{"id":4}"#,
        ];
        let decoded = decoder.decode(&messages.map(message)).unwrap();
        assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values().as_ref(), [1, 3, 4]);
        let names: Vec<_> = decoded.rows.column(1).as_string::<i32>().iter().collect();
        assert_eq!(names, [Some("a"), Some("é"), None]);
        assert_eq!(decoded.unknown_members, 1);
        assert_eq!(decoded.origins, [0, 2, 3]);
        assert_eq!(decoded.rejects.len(), 1);
        assert_eq!((decoded.rejects[0].index, decoded.rejects[0].code), (1, "type_mismatch"));
        assert_eq!(decoded.rejects[0].message, "column `name`: text is expected");
    }

    #[test]
    fn a_key_that_stands_in_the_value_too_is_no_unknown_member() {
        let columns = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
        let spec = DecodeSpec {
            key: vec!["id".to_owned()],
            key_from: KeyFrom::MessageKey,
            ..spec(columns)
        };
        let mut decoder = decoder(&spec).unwrap();
        let messages = [r#"{"id":1,"name":"a"}"#, r#"{"x":1,"id":1,"name":"b"}"#].map(message);
        let decoded = decoder.decode(&messages).unwrap();
        assert_eq!((decoded.rows.num_rows(), decoded.unknown_members), (2, 1));
    }
}
