//! `date_bin` of times that it cannot bin. It reckons in nanoseconds, and of what lies outside of the years 1677 to 2262 DataFusion's own makes
//! null without a word: rows would be counted under no time. Here it is an error.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::DataType;
use deltalake::datafusion::common::{Result, exec_err};
use deltalake::datafusion::functions::datetime;
use deltalake::datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

/// The function, which takes the place of DataFusion's.
pub(super) fn date_bin() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateBin(datetime::date_bin()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin(Arc<ScalarUDF>);

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (given, rows) = (arguments.args.clone(), arguments.number_rows);
        let binned = self.0.invoke_with_args(arguments)?;
        let has_null = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(value) if value.is_null());
        // The step, the times, and where the first step begins.
        if let Some(times) = given.get(1).filter(|_| !given.iter().any(has_null))
            && binned.to_array(rows)?.null_count() > times.to_array(rows)?.null_count()
        {
            return exec_err!("date_bin cannot bin times outside of the years 1677 to 2262: leave them out with WHERE");
        }
        Ok(binned)
    }
}
