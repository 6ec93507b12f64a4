//! The schema that Kafka Connect's JSON converter puts into its messages, with the logical types of Connect and of Debezium.
//!
//! | logical name | column |
//! |---|---|
//! | Connect Decimal | decimal(`connect.decimal.precision`, or 38, scale); a string beyond 38 digits |
//! | Connect Date, Debezium Date | date |
//! | Connect Timestamp | timestamp: an instant, by Connect's definition |
//! | Debezium Timestamp, MicroTimestamp | timestamp_ntz: the database's type has no zone |
//! | Debezium ZonedTimestamp | timestamp; a string of SQL Server, whose type is finer than that |
//! | Connect Time, Debezium Time, MicroTime | long: microseconds since midnight |
//! | Debezium NanoTimestamp, NanoTime | string, exact: ISO 8601, as in 2024-02-29T12:34:56.1234567 |
//! | Debezium VariableScaleDecimal | string, exact |
//! | Json, Xml, Uuid, Enum, EnumSet, ZonedTime, IsoDate, IsoTime, IsoTimestamp, Interval … | string |
//! | Bits, and bytes without a name | binary |
//! | Point, Geometry, Geography | struct, as they come |

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use serde::Deserialize;

use super::{Kind, instant, join, local_time, refuse};
use crate::error::Result;
use crate::sources::decode::encoding::Encoding;

/// The `source` of SQL Server's envelopes.
const SQL_SERVER: &str = "io.debezium.connector.sqlserver.Source";
const ZONED_TIMESTAMP: &str = "io.debezium.time.ZonedTimestamp";

#[derive(Debug, Deserialize)]
pub(crate) struct ConnectSchema {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    optional: bool,
    name: Option<String>,
    doc: Option<String>,
    field: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    #[serde(default)]
    fields: Vec<ConnectSchema>,
    items: Option<Box<ConnectSchema>>,
    keys: Option<Box<ConnectSchema>>,
    values: Option<Box<ConnectSchema>>,
}

impl ConnectSchema {
    /// The part of an envelope's schema that describes this member, or None if it has none.
    pub fn member(&self, name: &str) -> Option<&ConnectSchema> {
        self.fields.iter().find(|field| field.field.as_deref() == Some(name))
    }

    /// Takes times with a zone for the text that they are where the envelope is of a database whose times may be finer than a table's.
    pub fn with_fine_times(mut self) -> Self {
        if self.member("source").and_then(|source| source.name.as_deref()) != Some(SQL_SERVER) {
            return self;
        }
        let is_image = |part: &&mut ConnectSchema| matches!(part.field.as_deref(), Some("before" | "after"));
        let columns = self.fields.iter_mut().filter(is_image).flat_map(|row| &mut row.fields);
        columns
            .filter(|column| column.name.as_deref() == Some(ZONED_TIMESTAMP))
            .for_each(|column| column.name = None);
        self
    }

    /// Whether it describes an object of columns.
    pub fn is_row(&self) -> bool {
        self.kind == "struct" && self.logical().is_none()
    }

    /// Whether it describes text.
    pub fn is_text(&self) -> bool {
        self.kind == "string"
    }

    /// Whether it is one of Debezium's envelopes, which it calls so.
    pub fn is_envelope(&self) -> bool {
        self.name.as_deref().is_some_and(|name| name.ends_with(".Envelope"))
    }

    /// Those columns, as far as they are wanted.
    pub fn columns(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Field>> {
        let is_wanted = |field: &&ConnectSchema| field.field.as_deref().is_none_or(wanted);
        self.fields.iter().filter(is_wanted).map(|field| field.named("")).collect()
    }

    /// This alone as a column of this name.
    pub fn column(&self, name: &str) -> Result<Field> {
        self.at(name, name)
    }

    fn named(&self, path: &str) -> Result<Field> {
        let name = self.field.as_deref().ok_or_else(|| refuse(path, "a field without a name"))?;
        self.at(&join(path, name), name)
    }

    fn at(&self, path: &str, name: &str) -> Result<Field> {
        // Debezium documents its own types (`Variable scaled decimal`), which is no comment on the column.
        let comment = self.doc.as_deref().filter(|_| self.name.is_none());
        Ok(self.kind(path)?.field(name, comment))
    }

    fn kind(&self, path: &str) -> Result<Kind> {
        let kind = match self.logical() {
            Some(kind) => kind,
            None => self.plain(path)?,
        };
        Ok(Kind {
            nullable: self.optional,
            ..kind
        })
    }

    /// What the schema's name says beyond its type.
    fn logical(&self) -> Option<Kind> {
        let name = self.name.as_deref()?;
        let data = match (name.rsplit_once('.')?, self.kind.as_str()) {
            (("org.apache.kafka.connect.data", "Decimal"), "bytes") => return self.decimal(),
            (("io.debezium.data", "VariableScaleDecimal"), "struct") => Kind::written(DataType::Utf8, Encoding::VariableScale),
            (("org.apache.kafka.connect.data" | "io.debezium.time", "Date"), "int32") => Kind::written(DataType::Date32, Encoding::Days),
            (("org.apache.kafka.connect.data", "Timestamp"), "int64") => Kind::written(instant(), Encoding::Millis),
            (("io.debezium.time", "Timestamp"), "int64") => Kind::written(local_time(), Encoding::Millis),
            (("io.debezium.time", "MicroTimestamp"), "int64") => Kind::written(local_time(), Encoding::Micros),
            (("io.debezium.time", "NanoTimestamp"), "int64") => Kind::written(DataType::Utf8, Encoding::NanoTimestamp),
            (("io.debezium.time", "ZonedTimestamp"), "string") => Kind::new(instant()),
            (("org.apache.kafka.connect.data" | "io.debezium.time", "Time"), "int32") => Kind::written(DataType::Int64, Encoding::Millis),
            (("io.debezium.time", "MicroTime"), "int64") => Kind::written(DataType::Int64, Encoding::Micros),
            (("io.debezium.time", "NanoTime"), "int64") => Kind::written(DataType::Utf8, Encoding::NanoTime),
            _ => return None,
        };
        Some(data)
    }

    fn decimal(&self) -> Option<Kind> {
        let scale: i64 = self.parameters.get("scale")?.parse().ok()?;
        let precision: i64 = self
            .parameters
            .get("connect.decimal.precision")
            .and_then(|p| p.parse().ok())
            .unwrap_or(38);
        // More decimal places than digits (0.00012 of numeric(2, 5)) is a number that Delta writes with as many digits as places.
        let data = match (u8::try_from(precision.max(scale)), i8::try_from(scale)) {
            (Ok(precision @ 1..=38), Ok(scale @ 0..)) => DataType::Decimal128(precision, scale),
            _ => DataType::Utf8,
        };
        Some(Kind::written(data, Encoding::Unscaled(scale)))
    }

    fn plain(&self, path: &str) -> Result<Kind> {
        let part = |part: &Option<Box<ConnectSchema>>, name: &str| match part {
            Some(schema) => schema.kind(&join(path, name)),
            None => Err(refuse(path, format!("an array or map whose schema has no {name}"))),
        };
        Ok(match self.kind.as_str() {
            "boolean" => Kind::new(DataType::Boolean),
            "int8" | "int16" | "int32" => Kind::new(DataType::Int32),
            "int64" => Kind::new(DataType::Int64),
            "float" | "float32" => Kind::new(DataType::Float32),
            "double" | "float64" => Kind::new(DataType::Float64),
            "string" => Kind::new(DataType::Utf8),
            "bytes" => Kind::new(DataType::Binary),
            "array" => part(&self.items, "element")?.list(),
            "map" => match part(&self.keys, "key")?.data {
                DataType::Utf8 => part(&self.values, "value")?.map(),
                _ => return Err(refuse(path, "the keys of a map must be text")),
            },
            "struct" => {
                let fields = self.fields.iter().map(|field| field.named(path)).collect::<Result<Vec<_>>>()?;
                Kind::new(DataType::Struct(fields.into()))
            }
            other => return Err(refuse(path, format!("Kafka Connect has no type `{other}`"))),
        })
    }
}
