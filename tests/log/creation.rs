//! How a table is made, and which tables that are there already are taken for what the configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::error::{Error, Kind};
use alluvium::log::{Log, maintain};
use alluvium::position::Lane;
use alluvium::table::{Lanes, Merge, Mode, Table};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use deltalake::TableProperty;
use deltalake::kernel::{DataType as Delta, StructField};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::support::delta::{
    COLUMNS, PIPELINE, append_table, assert_replays, by_hand, change, data_file, library, opened, table, upsert_table, url,
};

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

async fn refused(store: &Arc<dyn ObjectStore>, table: &Table) -> Error {
    let error = Log::open_or_create(&url(), Arc::clone(store), table, PIPELINE)
        .await
        .expect_err("refused");
    assert_eq!(error.kind, Kind::Config, "{error}");
    error
}

#[tokio::test]
async fn there_is_no_log_where_there_is_no_table() {
    assert!(Log::open(&url(), in_memory(), PIPELINE).await.expect("a look").is_none());
}

#[tokio::test]
async fn a_new_table_asks_of_readers_only_what_it_uses() {
    for (table, reader, writer) in [
        (append_table(), None, None),
        (
            table(Mode::Upsert {
                key: vec!["id".to_owned()],
                merge: Merge::Rewrite,
            }),
            None,
            None,
        ),
        (
            upsert_table(),
            Some(vec!["deletionVectors"]),
            Some(vec!["deletionVectors", "invariants"]),
        ),
    ] {
        let store = in_memory();
        let log = opened(&store, &table).await;
        let protocol = &log.snapshot().protocol;
        let versions = if reader.is_some() { (3, 7) } else { (1, 2) };
        assert_eq!((protocol.min_reader_version, protocol.min_writer_version), versions);
        let owned = |features: Option<Vec<&str>>| features.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            (protocol.reader_features.clone(), protocol.writer_features.clone()),
            (owned(reader), owned(writer))
        );
        assert_replays(&log, &store).await;
    }
}

#[tokio::test]
async fn a_new_table_keeps_thirty_days_and_only_grows_if_it_appends() {
    let store = in_memory();
    let mut table = append_table();
    table.properties = BTreeMap::from([("delta.logRetentionDuration".to_owned(), "interval 60 days".to_owned())]);
    let log = opened(&store, &table).await;
    let properties = &log.snapshot().properties;
    assert_eq!(properties["delta.deletedFileRetentionDuration"], "interval 30 days");
    assert_eq!(properties["delta.logRetentionDuration"], "interval 60 days");
    assert_eq!(
        (
            properties["delta.appendOnly"].as_str(),
            properties["delta.checkpointInterval"].as_str()
        ),
        ("true", "100")
    );
}

#[tokio::test]
async fn every_type_of_a_table_goes_to_delta_and_back() {
    let field = |name: &str, kind| Field::new(name, kind, true);
    let pair = DataType::Struct(vec![Field::new("key", DataType::Utf8, false), field("value", DataType::Date32)].into());
    let columns = vec![
        Field::new("id", DataType::Int64, false).with_metadata([("comment".to_owned(), "the \"key\"".to_owned())].into()),
        field("flag", DataType::Boolean),
        field("small", DataType::Int32),
        field("ratio", DataType::Float32),
        field("exact", DataType::Float64),
        field("price", DataType::Decimal128(38, 9)),
        field("text", DataType::Utf8),
        field("bytes", DataType::Binary),
        field("day", DataType::Date32),
        field("moment", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("wall", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field(
            "nested",
            DataType::Struct(vec![field("deep", DataType::List(Arc::new(field("element", DataType::Int32))))].into()),
        ),
        field("map", DataType::Map(Arc::new(Field::new("key_value", pair, false)), false)),
    ];
    let schema = Arc::new(Schema::new(columns));
    let store = in_memory();
    let table = Table {
        schema: Arc::clone(&schema),
        partition_by: vec!["day".to_owned()],
        comment: Some("orders".to_owned()),
        ..append_table()
    };
    let log = opened(&store, &table).await;
    assert_eq!(log.snapshot().schema, schema);
    assert_eq!(log.snapshot().partition_by, ["day"]);
    assert!(
        log.snapshot()
            .protocol
            .writer_features
            .clone()
            .expect("features")
            .contains(&"timestampNtz".to_owned())
    );
    assert_replays(&log, &store).await;
    // The library sees the same types and the same comment.
    let theirs = library(&store).await;
    let theirs = theirs.snapshot().expect("a state").schema();
    let arrow: Schema =
        deltalake::kernel::engine::arrow_conversion::TryIntoArrow::try_into_arrow(theirs.as_ref()).expect("an Arrow schema");
    for (ours, theirs) in schema.fields().iter().zip(arrow.fields()) {
        assert_eq!(ours.name(), theirs.name());
        if !matches!(ours.data_type(), DataType::Map(..)) {
            assert_eq!(
                (ours.data_type(), ours.metadata()),
                (theirs.data_type(), theirs.metadata()),
                "column {}",
                ours.name()
            );
        }
    }
}

#[tokio::test]
async fn a_type_that_delta_does_not_hold_is_refused_by_column() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::UInt64, true)]));
    let error = refused(&in_memory(), &Table { schema, ..append_table() }).await;
    assert!(error.to_string().contains("`n`"), "{error}");
}

#[tokio::test]
async fn a_table_that_differs_is_refused_by_the_names_of_its_columns() {
    let store = in_memory();
    opened(&store, &append_table()).await;
    let columns = vec![Field::new("id", DataType::Utf8, false), Field::new("extra", DataType::Date32, true)];
    let other = Table {
        schema: Arc::new(Schema::new(columns)),
        partition_by: vec!["extra".to_owned()],
        ..append_table()
    };
    let text = refused(&store, &other).await.to_string();
    for part in [
        "column `id` is Int64 in the table and Utf8 here",
        "partitioned",
        "change the configuration",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Nobody has configured the columns of a database's tables, but somebody their partitions.
    let of_server = Table {
        lanes: Lanes::Slot(Lane::new("slot@1")),
        ..other
    };
    let error = refused(&store, &of_server).await;
    assert_eq!(error.code, "partition_mismatch", "{error}");
    let of_server = Table {
        partition_by: append_table().partition_by,
        ..of_server
    };
    let error = refused(&store, &of_server).await;
    assert_eq!(error.code, "schema_mismatch", "{error}");
    let text = error.to_string();
    assert!(text.contains("change it back there") && !text.contains("configuration"), "{text}");
}

#[tokio::test]
async fn a_table_without_the_key_is_no_table_of_its_rows() {
    let store = in_memory();
    opened(&store, &append_table()).await;
    let other = Table {
        schema: Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)])),
        mode: Mode::Upsert {
            key: vec!["number".to_owned()],
            merge: Merge::Rewrite,
        },
        ..append_table()
    };
    let text = refused(&store, &other).await.to_string();
    assert!(text.contains("`number` is not in the table"), "{text}");
}

#[tokio::test]
async fn append_and_upsert_are_not_taken_for_each_other() {
    let (grows, keyed) = (in_memory(), in_memory());
    opened(&grows, &append_table()).await;
    opened(&keyed, &upsert_table()).await;
    for (store, table) in [
        (&grows, upsert_table()),
        (&keyed, append_table()),
        (
            &keyed,
            self::table(Mode::Upsert {
                key: vec!["v".to_owned()],
                merge: Merge::Vectors,
            }),
        ),
    ] {
        assert_eq!(refused(store, &table).await.code, "mode_mismatch");
    }
    let rewritten = in_memory();
    opened(
        &rewritten,
        &self::table(Mode::Upsert {
            key: vec!["id".to_owned()],
            merge: Merge::Rewrite,
        }),
    )
    .await;
    let error = refused(&rewritten, &upsert_table()).await;
    assert!(error.to_string().contains("delta.enableDeletionVectors"), "{error}");
}

/// A table made by the Delta library with one property.
async fn made_by_the_library(property: &str, value: &str) -> Arc<dyn ObjectStore> {
    let store = in_memory();
    let root = url::Url::parse("memory://made/").expect("a URL");
    let made = deltalake::DeltaTableBuilder::from_url(root.clone())
        .expect("a URL")
        .with_storage_backend(Arc::clone(&store), root)
        .build()
        .expect("a table");
    let columns = vec![StructField::not_null("id", Delta::LONG), StructField::nullable("v", Delta::STRING)];
    made.create()
        .with_columns(columns)
        .with_configuration([(property, Some(value))])
        .await
        .expect("made");
    store
}

#[tokio::test]
async fn a_table_of_another_program_is_written_to_if_it_asks_for_nothing_strange() {
    let store = made_by_the_library(TableProperty::EnableDeletionVectors.as_ref(), "true").await;
    let mut log = opened(&store, &upsert_table()).await;
    let change = alluvium::log::Change {
        adds: vec![data_file(&store, 0..3, "a").await],
        ..change(None, 2)
    };
    log.commit(&change).await.expect("a commit");
    assert_replays(&log, &store).await;
}

#[tokio::test]
async fn c12_what_alluvium_does_not_write_is_refused_by_name() {
    for (property, value, says) in [
        ("delta.columnMapping.mode", "name", "delta.columnMapping.mode"),
        ("delta.enableChangeDataFeed", "true", "delta.enableChangeDataFeed"),
        ("delta.setTransactionRetentionDuration", "interval 7 days", "marks would expire"),
    ] {
        let store = made_by_the_library(property, value).await;
        let text = refused(
            &store,
            &self::table(Mode::Upsert {
                key: vec!["id".to_owned()],
                merge: Merge::Rewrite,
            }),
        )
        .await
        .to_string();
        assert!(text.contains(says), "{text}");
    }
}

#[tokio::test]
async fn c12_what_older_protocols_and_features_ask_for_is_refused_by_name() {
    let old = r#"{"minReaderVersion":1,"minWriterVersion":6}"#;
    let with = |feature: &str| format!(r#"{{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["appendOnly",{feature}]}}"#);
    let v = |metadata: &str| format!(r#"{{"name":"v","type":"string","nullable":true,"metadata":{{{metadata}}}}}"#);
    let within = r#"{"name":"s","type":{"type":"array","containsNull":true,"elementType":{"type":"struct","fields":[
        {"name":"n","type":"long","nullable":true,"metadata":{"delta.invariants":"{}"}}]}},"nullable":true,"metadata":{}}"#;
    let plain = COLUMNS[1].to_owned();
    let columns = [
        (v(r#""delta.generationExpression":"id""#), "`delta.generationExpression`"),
        (v(r#""delta.identity.start":1"#), "`delta.identity.start`"),
        (v(r#""delta.invariants":"{}""#), "`delta.invariants`"),
        (format!("{plain},{within}"), "`s.element.n` has `delta.invariants`"),
    ]
    .map(|(column, says)| (old.to_owned(), column, ("x", "y"), says.to_owned()));
    let properties = [
        ("delta.constraints.positive", "id > 0"),
        ("delta.columnMapping.mode", "id"),
        ("delta.enableChangeDataFeed", "true"),
    ]
    .map(|property| (old.to_owned(), plain.clone(), property, format!("`{}`", property.0)));
    let features = [
        "rowTracking",
        "domainMetadata",
        "clustering",
        "inCommitTimestamp",
        "allowColumnDefaults",
        "icebergCompatV2",
        "checkpointProtection",
        "materializePartitionColumns",
        "collations-preview",
    ]
    .map(|feature| {
        (
            with(&format!("\"{feature}\"")),
            plain.clone(),
            ("x", "y"),
            format!("the writer feature `{feature}`"),
        )
    });
    let rewritten = self::table(Mode::Upsert {
        key: vec!["id".to_owned()],
        merge: Merge::Rewrite,
    });
    for (protocol, column, property, says) in columns.into_iter().chain(properties).chain(features) {
        let store = by_hand(&protocol, &[COLUMNS[0], &column], &[property]).await;
        let error = refused(&store, &rewritten).await;
        assert!(error.to_string().contains(&says), "{says}: {error}");
    }
    // Asked for by nothing, they ask for nothing.
    opened(&by_hand(old, &COLUMNS, &[]).await, &rewritten).await;
}

#[tokio::test]
async fn vectors_are_not_written_where_readers_are_not_told_to_look_for_them() {
    let property = [("delta.enableDeletionVectors", "true")];
    let store = by_hand(r#"{"minReaderVersion":1,"minWriterVersion":2}"#, &COLUMNS, &property).await;
    let error = refused(&store, &upsert_table()).await;
    assert_eq!(error.code, "mode_mismatch", "{error}");
    let features = r#"["deletionVectors"]"#;
    let protocol = format!(r#"{{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":{features},"writerFeatures":{features}}}"#);
    opened(&by_hand(&protocol, &COLUMNS, &property).await, &upsert_table()).await;
}

#[tokio::test]
async fn a_new_table_has_the_features_that_its_properties_ask_for() {
    let asking = |name: &str, value: &str| Table {
        properties: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        ..append_table()
    };
    let feed = asking("delta.enableChangeDataFeed", "true");
    let log = opened(&in_memory(), &feed).await;
    let protocol = &log.snapshot().protocol;
    assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (1, 4));
    let local = Table {
        schema: Arc::new(Schema::new(vec![Field::new(
            "t",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            true,
        )])),
        ..feed
    };
    let log = opened(&in_memory(), &local).await;
    let listed = log.snapshot().protocol.writer_features.clone().expect("features");
    assert!(listed.contains(&"changeDataFeed".to_owned()), "{listed:?}");

    let (store, v2) = (in_memory(), asking("delta.checkpointPolicy", "v2"));
    let mut log = opened(&store, &v2).await;
    assert_eq!(
        log.snapshot().protocol.reader_features.as_deref(),
        Some(&["v2Checkpoint".to_owned()][..])
    );
    let change = alluvium::log::Change {
        adds: vec![data_file(&store, 0..3, "a").await],
        ..change(None, 2)
    };
    log.commit(&change).await.expect("a commit");
    maintain::checkpoint(&url(), Arc::clone(&store), 1).await.expect("a checkpoint");
    assert_replays(&log, &store).await;
    assert_eq!(opened(&store, &v2).await.checkpointed(), 1);
}

#[tokio::test]
async fn c12_an_unknown_feature_is_refused_by_its_exact_name() {
    let store = in_memory();
    let actions = [
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["appendOnly","rowTracking","domainMetadata"]}}"#,
        r#"{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":[],"configuration":{}}}"#,
    ];
    object_store::ObjectStoreExt::put(&store, &"_delta_log/00000000000000000000.json".into(), actions.join("\n").into())
        .await
        .expect("put");
    let error = refused(&store, &append_table()).await;
    assert!(error.to_string().contains("`rowTracking`"), "{error}");

    let store = in_memory();
    let actions = actions[0].replace(
        "\"minReaderVersion\":1",
        "\"minReaderVersion\":3,\"readerFeatures\":[\"variantType\",\"catalogManaged\"]",
    ) + "\n"
        + actions[1];
    object_store::ObjectStoreExt::put(&store, &"_delta_log/00000000000000000000.json".into(), actions.into())
        .await
        .expect("put");
    let error = Log::open(&url(), store, "").await.expect_err("not even read");
    // The Delta library lists the other one whenever it sets a property: without a column of that type it asks for nothing.
    assert!(error.to_string().contains("`catalogManaged`"), "{error}");
}

#[tokio::test]
async fn properties_that_would_break_the_promises_are_refused_at_creation() {
    for (name, value) in [
        ("delta.appendOnly", "false"),
        ("delta.setTransactionRetentionDuration", "interval 1 day"),
        ("delta.columnMapping.mode", "name"),
    ] {
        let table = Table {
            properties: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            ..append_table()
        };
        assert!(refused(&in_memory(), &table).await.to_string().contains(name));
    }
}

#[tokio::test]
async fn properties_with_values_that_say_nothing_are_refused_at_creation() {
    let with = |name: &str, value: &str| Table {
        properties: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        ..append_table()
    };
    for (name, value, says) in [
        ("delta.dataSkippingNumIndexedCols", "many", "number of columns"),
        ("delta.dataSkippingNumIndexedCols", "-2", "number of columns"),
        ("delta.dataSkippingStatsColumns", "id,,v", "list of columns"),
        ("delta.dataSkippingStatsColumns", "id, vv", "the column `vv`"),
        ("delta.dataSkippingStatsColumns", "id.v", "the column `id.v`"),
        ("delta.checkpointPolicy", "v3", "none of classic, v2"),
        ("delta.isolationLevel", "None", "none of Serializable"),
        ("delta.enableExpiredLogCleanup", "yes", "none of true, false"),
        (
            "delta.compatibility.symlinkFormatManifest.enabled",
            "true",
            "does not write what it asks for",
        ),
        ("delta.enableIcebergWriterCompatV1", "true", "does not write what it asks for"),
    ] {
        let error = refused(&in_memory(), &with(name, value)).await;
        let said = error.to_string();
        assert_eq!(error.code, "bad_property", "{said}");
        assert!(said.contains(name) && said.contains(says), "{said}");
    }
    for (name, value) in [
        ("delta.dataSkippingNumIndexedCols", "-1"),
        ("delta.dataSkippingStatsColumns", "V, `id`"),
        ("delta.isolationLevel", "Serializable"),
        ("owner", "anybody"),
    ] {
        let log = opened(&in_memory(), &with(name, value)).await;
        assert_eq!(log.snapshot().properties[name], value);
    }
}
