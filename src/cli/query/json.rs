//! Rows as lines of JSON, in which every value can be told from every other: a null is there as `null`, and what JSON has no number for is
//! its name as a text (`"NaN"`, `"Infinity"`, `"-Infinity"`), as Postgres and Debezium write it.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, LineDelimited, NullableEncoder};
use arrow::json::{LineDelimitedWriter, WriterBuilder};

use crate::error::{self, Error};

pub(super) fn writer<W: Write>(schema: &Schema, out: W) -> error::Result<LineDelimitedWriter<W>> {
    let mut seen = HashSet::new();
    if let Some(twice) = schema.fields().iter().find(|field| !seen.insert(field.name())) {
        let name = twice.name();
        let what = format!("two columns are called `{name}`, of which readers of JSON keep one: call one otherwise (`{name} AS other`)");
        return Err(Error::config("usage", what));
    }
    Ok(WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(Floats))
        .build::<_, LineDelimited>(out))
}

/// Writes floating point numbers; everything else is the library's.
#[derive(Debug)]
struct Floats;

impl EncoderFactory for Floats {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        Ok(match array.data_type() {
            DataType::Float32 => Some(of::<Float32Type>(array, f32::is_finite)),
            DataType::Float64 => Some(of::<Float64Type>(array, f64::is_finite)),
            _ => None,
        })
    }
}

struct Float<'a, T: ArrowPrimitiveType> {
    values: &'a PrimitiveArray<T>,
    is_finite: fn(T::Native) -> bool,
}

fn of<T: ArrowPrimitiveType>(array: &dyn Array, is_finite: fn(T::Native) -> bool) -> NullableEncoder<'_>
where
    T::Native: serde::Serialize + Into<f64>,
{
    let values = array.as_primitive::<T>();
    NullableEncoder::new(Box::new(Float { values, is_finite }), values.nulls().cloned())
}

impl<T: ArrowPrimitiveType> Encoder for Float<'_, T>
where
    T::Native: serde::Serialize + Into<f64>,
{
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.values.value(row);
        if (self.is_finite)(value) {
            // Writing a number to memory cannot fail.
            let _ = serde_json::to_writer(out, &value);
            return;
        }
        let wide: f64 = value.into();
        out.extend_from_slice(match wide {
            wide if wide.is_nan() => br#""NaN""#.as_slice(),
            wide if wide > 0.0 => br#""Infinity""#,
            _ => br#""-Infinity""#,
        });
    }
}
