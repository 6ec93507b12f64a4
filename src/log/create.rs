//! Version 0: a new table.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Fields};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::log::actions::{Action, CommitInfo, Format, MetaData, Protocol, UserMetadata};
use crate::log::check::KEY_PROPERTY;
use crate::log::features::{
    CHANGE_DATA_FEED, DELETION_VECTORS, ENABLE_CHANGE_DATA_FEED, ENABLE_DELETION_VECTORS, TIMESTAMP_NTZ, V2_CHECKPOINT,
};
use crate::log::indexed::{self, Indexed};
use crate::log::plan::ENGINE;
use crate::log::replay::CHECKPOINT_INTERVAL;
use crate::log::{Log, properties, schema};
use crate::table::{Merge, Mode, Table};

/// How long versions and the files that only they need are kept, unless the configuration says otherwise: the promised window of
/// time travel. Both properties carry it, because readers refuse to travel beyond the shorter one.
const RETENTION: &str = "interval 30 days";

impl Log {
    /// Whether a table can be made as the configuration asks for it.
    pub fn may_create(table: &Table) -> Result<()> {
        schema::to_delta(&table.schema)?;
        configured(table).map(drop)
    }
}

/// What makes a table: the actions of its version 0.
pub(super) fn first_actions(table: &Table, pipeline: &str, now_ms: i64) -> Result<Vec<Action>> {
    let properties = configured(table)?;
    let info = CommitInfo {
        timestamp: Some(now_ms),
        operation: Some("CREATE TABLE".to_owned()),
        operation_parameters: Some(json!({
            "isManaged": "false",
            "description": table.comment,
            "partitionBy": json!(table.partition_by).to_string(),
            "properties": json!(properties).to_string(),
        })),
        operation_metrics: Some(Value::Object(serde_json::Map::new())),
        engine_info: Some(ENGINE.to_owned()),
        txn_id: Some(Uuid::new_v4().to_string()),
        is_blind_append: Some(true),
        user_metadata: Some(
            json!(UserMetadata {
                pipeline: pipeline.to_owned(),
                ..UserMetadata::default()
            })
            .to_string(),
        ),
        in_commit_timestamp: None,
    };
    let metadata = MetaData {
        id: Uuid::new_v4().to_string(),
        name: Some(table.id.to_string()),
        description: table.comment.clone(),
        format: Format::default(),
        schema_string: schema::to_delta(&table.schema)?,
        partition_columns: table.partition_by.clone(),
        configuration: properties,
        created_time: Some(now_ms),
    };
    Ok(vec![info.into(), protocol(table).into(), metadata.into()])
}

/// The least that a reader and a writer must know for such a table, with the properties that it is asked for.
fn protocol(table: &Table) -> Protocol {
    let asks = |name: &str, value: &str| table.properties.get(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    let feed = asks(ENABLE_CHANGE_DATA_FEED, "true");
    let both: Vec<String> = [
        (DELETION_VECTORS, matches!(table.mode, Mode::Upsert { merge: Merge::Vectors, .. })),
        (TIMESTAMP_NTZ, schema::has_timestamp_ntz(table.schema.fields())),
        (V2_CHECKPOINT, asks("delta.checkpointPolicy", "v2")),
    ]
    .into_iter()
    .filter(|&(_, used)| used)
    .map(|(feature, _)| feature.to_owned())
    .collect();
    if both.is_empty() {
        return Protocol {
            min_reader_version: 1,
            min_writer_version: if feed { 4 } else { 2 },
            reader_features: None,
            writer_features: None,
        };
    }
    let mut writer = both.clone();
    // Spark refuses a table with a column that may not be null where this is not listed; version 2, above, includes it.
    writer.push("invariants".to_owned());
    if table.mode == Mode::Append {
        writer.push("appendOnly".to_owned());
    }
    if feed {
        writer.push(CHANGE_DATA_FEED.to_owned());
    }
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: Some(both),
        writer_features: Some(writer),
    }
}

fn configured(table: &Table) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::from([
        ("delta.logRetentionDuration".to_owned(), RETENTION.to_owned()),
        ("delta.deletedFileRetentionDuration".to_owned(), RETENTION.to_owned()),
        ("delta.checkpointInterval".to_owned(), CHECKPOINT_INTERVAL.to_string()),
    ]);
    properties.extend(table.properties.clone());
    let own = match &table.mode {
        Mode::Append => vec![("delta.appendOnly", "true".to_owned())],
        Mode::Upsert {
            key,
            merge: Merge::Vectors,
        } => vec![(ENABLE_DELETION_VECTORS, "true".to_owned()), (KEY_PROPERTY, key.join(","))],
        Mode::Upsert {
            key,
            merge: Merge::Rewrite,
        } => vec![(KEY_PROPERTY, key.join(","))],
    };
    for (name, value) in own {
        if let Some(asked) = properties.insert(name.to_owned(), value.clone()).filter(|asked| *asked != value) {
            let what = format!(
                "the property `{name}` of table `{}` is `{asked}` in the configuration, but must be `{value}`: leave it out",
                table.id
            );
            return Err(Error::config("bad_property", what));
        }
    }
    properties::check(&properties, table, "the configuration")?;
    if let Indexed::Named(names) = Indexed::of(&properties)
        && let Some(name) = names.iter().find(|name| !is_stored(table, name))
    {
        let what = format!(
            "the property `{}` names the column `{}`, which the data files of table `{}` do not have",
            indexed::NAMES,
            name.join("."),
            table.id
        );
        return Err(Error::config("bad_property", what));
    }
    Ok(properties)
}

/// Whether the table's data files have a column, or fields within one, of this path.
fn is_stored(table: &Table, path: &[String]) -> bool {
    fn has(fields: &Fields, path: &[String]) -> bool {
        let Some((name, rest)) = path.split_first() else { return true };
        let field = fields.iter().find(|field| field.name().eq_ignore_ascii_case(name));
        match field.map(|field| field.data_type()) {
            None => false,
            Some(DataType::Struct(inner)) => has(inner, rest),
            Some(_) => rest.is_empty(),
        }
    }
    let is_first = |column: &String| path.first().is_some_and(|first| first.eq_ignore_ascii_case(column));
    has(table.schema.fields(), path) && !table.partition_by.iter().any(is_first)
}
