//! Other programs on the same table: what they may do without harm, what makes a commit be planned again, and what stops it.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::error::Kind;
use alluvium::log::{Change, Log, Outcome};
use deltalake::datafusion::prelude::{col, lit};
use deltalake::kernel::{DataType, StructField};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::support::delta::{
    PIPELINE, append_table, assert_replays, change, data_file, library, opened, row_numbers, rows, rows_of, table, upsert_table, url,
};
use alluvium::table::{Merge, Mode, Table};

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// A table that holds three small files, ids 0 to 29, and stands at mark 29.
async fn filled(store: &Arc<dyn ObjectStore>, table: &Table) -> Log {
    let mut log = opened(store, table).await;
    for (n, base) in [(0, None), (1, Some(9)), (2, Some(19))] {
        let file = data_file(store, n * 10..n * 10 + 10, "a").await;
        log.commit(&Change {
            adds: vec![file],
            ..change(base, n as u64 * 10 + 9)
        })
        .await
        .expect("a commit");
    }
    log
}

fn rewritten_table() -> Table {
    table(Mode::Upsert {
        key: vec!["id".to_owned()],
        merge: Merge::Rewrite,
    })
}

async fn append_by_the_library(store: &Arc<dyn ObjectStore>, ids: std::ops::Range<i64>) {
    library(store).await.write(vec![rows(ids, "x")]).await.expect("an append");
}

#[tokio::test]
async fn c8_an_append_goes_on_beside_an_optimize() {
    let store = in_memory();
    let mut log = filled(&store, &append_table()).await;
    library(&store).await.optimize().await.expect("an OPTIMIZE");
    let file = data_file(&store, 30..40, "b").await;
    assert!(matches!(
        log.commit(&Change {
            adds: vec![file],
            ..change(Some(29), 39)
        })
        .await,
        Ok(Outcome::Committed(5))
    ));
    assert_replays(&log, &store).await;
    assert_eq!(rows_of(library(&store).await).await.len(), 40);
}

#[tokio::test]
async fn c9_an_optimize_of_the_same_files_makes_an_upsert_be_planned_again() {
    let store = in_memory();
    let mut log = filled(&store, &upsert_table()).await;
    let old: Vec<Arc<str>> = log.snapshot().files.keys().cloned().collect();
    library(&store).await.optimize().await.expect("an OPTIMIZE");
    let vectors = BTreeMap::from([(Arc::clone(&old[0]), row_numbers([1]))]);
    let (added, removed) = match log
        .commit(&Change {
            vectors,
            ..change(Some(29), 30)
        })
        .await
        .expect("a value")
    {
        Outcome::Conflict { latest: 4, added, removed } => (added, removed),
        other => panic!("{other:?}"),
    };
    assert_eq!((added.len(), removed.len()), (1, 3));
    assert!(removed.iter().all(|path| old.contains(path)));
    assert_eq!(rows_of(library(&store).await).await.len(), 30, "nothing was published");
    let vectors = BTreeMap::from([(Arc::clone(&added[0]), row_numbers([1, 2]))]);
    assert!(matches!(
        log.commit(&Change {
            vectors,
            ..change(Some(29), 30)
        })
        .await,
        Ok(Outcome::Committed(5))
    ));
    assert_replays(&log, &store).await;
    assert_eq!(rows_of(library(&store).await).await.len(), 28);
}

#[tokio::test]
async fn a_delete_and_an_append_of_others_are_conflicts_for_an_upsert() {
    let store = in_memory();
    let mut log = filled(&store, &rewritten_table()).await;
    append_by_the_library(&store, 100..105).await;
    let upsert = Change {
        adds: vec![data_file(&store, 40..41, "b").await],
        ..change(Some(29), 40)
    };
    assert!(matches!(log.commit(&upsert).await, Ok(Outcome::Conflict { latest: 4, .. })));
    library(&store)
        .await
        .delete()
        .with_predicate(col("id").lt(lit(5)))
        .await
        .expect("a DELETE");
    assert!(matches!(log.commit(&upsert).await, Ok(Outcome::Conflict { latest: 5, .. })));
    assert!(matches!(log.commit(&upsert).await, Ok(Outcome::Committed(6))));
    assert_replays(&log, &store).await;
    assert_eq!(rows_of(library(&store).await).await.len(), 30 - 5 + 5 + 1);
}

#[tokio::test]
async fn vectors_of_others_are_united_with_ours() {
    let store = in_memory();
    let (mut ours, mut theirs) = (filled(&store, &upsert_table()).await, opened(&store, &upsert_table()).await);
    let path = ours.snapshot().files.keys().min().expect("a file").clone();
    let delete = |row| BTreeMap::from([(Arc::clone(&path), row_numbers([row]))]);
    theirs
        .commit(&Change {
            vectors: delete(1),
            operation: "DELETE",
            ..Change::default()
        })
        .await
        .expect("a commit");
    assert!(matches!(
        ours.commit(&Change {
            vectors: delete(2),
            ..change(Some(29), 30)
        })
        .await,
        Ok(Outcome::Conflict { .. })
    ));
    ours.commit(&Change {
        vectors: delete(2),
        ..change(Some(29), 30)
    })
    .await
    .expect("a commit");
    assert_eq!(*ours.vector(&path).await.expect("a vector"), row_numbers([1, 2]));
    assert_replays(&ours, &store).await;
}

/// The commit after what others did must stop with this code, and publish nothing.
async fn stops(log: &mut Log, store: &Arc<dyn ObjectStore>, code: &str) -> String {
    let newest = library(store).await.version();
    let file = data_file(store, 30..31, "b").await;
    let error = log
        .commit(&Change {
            adds: vec![file],
            ..change(Some(29), 30)
        })
        .await
        .expect_err("stopped");
    assert_eq!((error.kind, error.code), (Kind::Config, code), "{error}");
    assert_eq!(library(store).await.version(), newest);
    error.to_string()
}

#[tokio::test]
async fn c10_a_nullable_column_added_by_others_is_adopted() {
    let store = in_memory();
    let mut log = filled(&store, &append_table()).await;
    let extra = StructField::nullable("extra", DataType::LONG);
    library(&store)
        .await
        .add_columns()
        .with_fields(vec![extra])
        .await
        .expect("a column");
    let file = data_file(&store, 30..31, "b").await;
    let commit = Change {
        adds: vec![file],
        ..change(Some(29), 30)
    };
    assert!(matches!(log.commit(&commit).await, Ok(Outcome::Committed(5))));
    assert_replays(&log, &store).await;
    opened(&store, &append_table()).await;
}

#[tokio::test]
async fn c10_any_other_change_of_the_columns_by_others_stops_with_choices() {
    let with = |fields: &str| format!(r#"{{"type":"struct","fields":[{fields}]}}"#);
    let id = r#"{"name":"id","type":"long","nullable":false,"metadata":{}}"#;
    let v = r#"{"name":"v","type":"string","nullable":true,"metadata":{}}"#;
    let column =
        |name: &str, kind: &str, nullable: bool| format!(r#"{{"name":"{name}","type":"{kind}","nullable":{nullable},"metadata":{{}}}}"#);
    let cases = [
        with(id),
        with(&format!("{v},{id}")),
        with(&format!("{id},{}", column("v", "binary", true))),
        with(&format!("{id},{v},{}", column("w", "long", false))),
        with(&format!("{id},{v},{}", column("V", "long", true))),
        with(&format!("{id},{}", column("v", "string", false))),
    ];
    for schema in cases {
        let store = in_memory();
        let mut log = filled(&store, &append_table()).await;
        let id = &log.snapshot().table_id;
        let metadata = serde_json::json!({"metaData": {
            "id": id, "format": {"provider": "parquet", "options": {}}, "schemaString": schema, "partitionColumns": [],
            "configuration": log.snapshot().properties,
        }});
        let path = "_delta_log/00000000000000000004.json".into();
        store.put(&path, metadata.to_string().into()).await.expect("put");
        let file = data_file(&store, 30..31, "b").await;
        let commit = Change {
            adds: vec![file],
            ..change(Some(29), 30)
        };
        let error = log.commit(&commit).await.expect_err("stopped");
        assert_eq!((error.kind, error.code), (Kind::Config, "schema_changed"), "{schema}: {error}");
        assert!(
            error.to_string().contains("version 4") && error.to_string().contains("change the configuration"),
            "{error}"
        );
        let of = error.of(&append_table().id).table;
        assert_eq!(of, None, "it is not what the source sends: the pipeline stops, not the table alone");
    }
}

#[tokio::test]
async fn c12_a_feature_added_by_others_changes_nothing_if_alluvium_writes_it() {
    let store = in_memory();
    let mut log = filled(&store, &append_table()).await;
    let features = vec![deltalake::kernel::TableFeatures::DeletionVectors];
    library(&store)
        .await
        .add_feature()
        .with_features(features)
        .with_allow_protocol_versions_increase(true)
        .await
        .expect("a feature");
    assert!(matches!(log.commit(&change(Some(29), 30)).await, Ok(Outcome::Committed(5))));
    assert_replays(&log, &store).await;
}

#[tokio::test]
async fn c12_a_feature_or_property_added_by_others_stops_by_its_name_if_alluvium_does_not_write_it() {
    for (feature, property, says) in [
        ("rowTracking", "delta.enableRowTracking", "the writer feature `rowTracking`"),
        (
            "inCommitTimestamp",
            "delta.enableInCommitTimestamps",
            "the writer feature `inCommitTimestamp`",
        ),
        ("changeDataFeed", "delta.enableChangeDataFeed", "`delta.enableChangeDataFeed`"),
    ] {
        let store = in_memory();
        let mut log = filled(&store, &upsert_table()).await;
        let now = log.snapshot();
        let mut protocol = serde_json::json!({"protocol": now.protocol});
        protocol["protocol"]["writerFeatures"]
            .as_array_mut()
            .expect("features")
            .push(feature.into());
        let mut properties = now.properties.clone();
        properties.insert(property.to_owned(), "true".to_owned());
        let schema = r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":false,"metadata":{}},
            {"name":"v","type":"string","nullable":true,"metadata":{}}]}"#;
        let metadata = serde_json::json!({"metaData": {
            "id": now.table_id, "format": {"provider": "parquet", "options": {}}, "schemaString": schema, "partitionColumns": [],
            "configuration": properties,
        }});
        let path = "_delta_log/00000000000000000004.json".into();
        store.put(&path, format!("{protocol}\n{metadata}").into()).await.expect("put");
        let error = log.commit(&change(Some(29), 30)).await.expect_err("stopped");
        assert!(error.kind == Kind::Config && error.to_string().contains(says), "{feature}: {error}");
        assert!(
            store.get(&"_delta_log/00000000000000000005.json".into()).await.is_err(),
            "nothing was published"
        );
    }
}

#[tokio::test]
async fn c12_the_same_features_in_another_order_change_nothing() {
    let store = in_memory();
    let mut log = filled(&store, &upsert_table()).await;
    let features = log.snapshot().protocol.writer_features.clone().expect("it has features");
    assert!(features.len() > 1, "an order needs two: {features:?}");
    let mut protocol = serde_json::json!({"protocol": log.snapshot().protocol});
    protocol["protocol"]["writerFeatures"].as_array_mut().expect("features").reverse();
    let path = "_delta_log/00000000000000000004.json".into();
    store.put(&path, protocol.to_string().into()).await.expect("put");
    assert!(matches!(log.commit(&change(Some(29), 30)).await, Ok(Outcome::Committed(5))));
}

#[tokio::test]
async fn a_property_of_no_concern_changes_nothing_and_a_dangerous_one_stops() {
    let store = in_memory();
    let mut log = filled(&store, &append_table()).await;
    let set = async |name: &str, value: &str| {
        let properties = [(name.to_owned(), value.to_owned())].into();
        library(&store)
            .await
            .set_tbl_properties()
            .with_properties(properties)
            .with_raise_if_not_exists(false)
            .await
            .expect("a property");
    };
    set("delta.checkpointInterval", "50").await;
    assert!(matches!(log.commit(&change(Some(29), 30)).await, Ok(Outcome::Committed(5))));
    assert_eq!(log.checkpoint_interval(), 50);
    set("delta.setTransactionRetentionDuration", "interval 1 days").await;
    let error = log.commit(&change(Some(30), 31)).await.expect_err("stopped");
    assert!(
        error.kind == Kind::Config && error.to_string().contains("setTransactionRetentionDuration"),
        "{error}"
    );
}

#[tokio::test]
async fn c15_a_restore_stops_until_it_is_accepted() {
    let store = in_memory();
    let mut log = filled(&store, &rewritten_table()).await;
    library(&store).await.restore().with_version_to_restore(2).await.expect("a RESTORE");
    let text = stops(&mut log, &store, "taken_back").await;
    assert!(text.contains("RESTORE") && text.contains("'alluvium.accept' = '4'"), "{text}");
    // A process that starts later sees it as well, even behind a checkpoint.
    alluvium::log::maintain::checkpoint(&url(), Arc::clone(&store), 4)
        .await
        .expect("a checkpoint");
    let error = Log::open_or_create(&url(), Arc::clone(&store), &rewritten_table(), PIPELINE)
        .await
        .expect_err("stopped");
    assert_eq!(error.code, "taken_back");
    let accept = [("alluvium.accept".to_owned(), "4".to_owned())].into();
    library(&store)
        .await
        .set_tbl_properties()
        .with_properties(accept)
        .with_raise_if_not_exists(false)
        .await
        .expect("a property");
    let mut log = opened(&store, &rewritten_table()).await;
    assert!(matches!(log.commit(&change(Some(29), 30)).await, Ok(Outcome::Committed(6))));
    assert_replays(&log, &store).await;
    // The next one stops again.
    library(&store).await.restore().with_version_to_restore(3).await.expect("a RESTORE");
    let error = log.commit(&change(Some(30), 31)).await.expect_err("stopped");
    assert_eq!(error.code, "taken_back");
}

#[tokio::test]
async fn c15_a_restore_of_what_the_pipeline_left_undoes_what_others_took_back() {
    let store = in_memory();
    drop(filled(&store, &rewritten_table()).await);
    let restore = async |version: u64| {
        let restore = library(&store).await.restore().with_version_to_restore(version);
        restore.await.expect("a RESTORE");
    };
    let open = async || Log::open_or_create(&url(), Arc::clone(&store), &rewritten_table(), PIPELINE).await;
    let whole = rows_of(library(&store).await).await;
    restore(2).await;
    let error = open().await.expect_err("stopped");
    assert!(error.to_string().contains("restore version 3 and start again"), "{error}");
    restore(1).await;
    restore(4).await;
    assert_eq!(open().await.expect_err("version 4 had taken rows back, too").code, "taken_back");
    restore(3).await;
    let mut log = open().await.expect("opens");
    assert_eq!(rows_of(library(&store).await).await, whole);
    assert!(matches!(log.commit(&change(Some(29), 30)).await, Ok(Outcome::Committed(8))));
    assert_replays(&log, &store).await;
}

#[tokio::test]
async fn a_restore_that_does_not_tell_what_it_restored_stops() {
    for named in [
        "{}",
        r#"{"timestamp":"2026-11-23 10:00:00"}"#,
        r#"{"version":"4"}"#,
        r#"{"version":9}"#,
        r#"{"version":2}"#,
    ] {
        let store = in_memory();
        drop(filled(&store, &append_table()).await);
        let info = format!(r#"{{"commitInfo":{{"operation":"RESTORE","operationParameters":{named}}}}}"#);
        store
            .put(&"_delta_log/00000000000000000004.json".into(), info.into())
            .await
            .expect("put");
        let opened = Log::open_or_create(&url(), Arc::clone(&store), &append_table(), PIPELINE).await;
        assert_eq!(opened.err().map(|error| error.code), Some("taken_back"), "{named}");
    }
}

#[tokio::test]
async fn a_whole_overwrite_stops_because_its_marks_say_more_than_its_rows() {
    let store = in_memory();
    let mut log = filled(&store, &rewritten_table()).await;
    let overwrite = library(&store)
        .await
        .write(vec![rows(0..3, "x")])
        .with_save_mode(deltalake::protocol::SaveMode::Overwrite);
    overwrite.await.expect("an overwrite");
    stops(&mut log, &store, "taken_back").await;
}

#[tokio::test]
async fn a_stream_of_others_that_writes_its_whole_answer_each_time_stops_and_one_that_appends_does_not() {
    for (output, stops) in [("Complete", true), ("Append", false)] {
        let store = in_memory();
        let mut log = filled(&store, &append_table()).await;
        let info = format!(r#"{{"commitInfo":{{"operation":"STREAMING UPDATE","operationParameters":{{"outputMode":"{output}"}}}}}}"#);
        store
            .put(&"_delta_log/00000000000000000004.json".into(), info.into())
            .await
            .expect("put");
        let code = log.commit(&change(Some(29), 30)).await.err().map(|error| error.code);
        assert_eq!(code, stops.then_some("taken_back"), "{output}");
    }
}

#[tokio::test]
async fn c16_a_table_that_was_made_anew_under_us_is_not_written_to() {
    let store = in_memory();
    let mut log = filled(&store, &append_table()).await;
    let delete = async |version: u64| {
        store
            .delete(&format!("_delta_log/{version:020}.json").as_str().into())
            .await
            .expect("deleted")
    };
    for version in 0..=3 {
        delete(version).await;
    }
    let error = log.commit(&change(Some(29), 30)).await.expect_err("stopped");
    assert_eq!((error.kind, error.code), (Kind::Config, "table_replaced"));
    // Made anew and grown to the same length.
    let mut new = filled(&store, &append_table()).await;
    let error = log.commit(&change(Some(29), 30)).await.expect_err("stopped");
    assert_eq!((error.kind, error.code), (Kind::Config, "table_replaced"));
    // And beyond it: the versions that follow are not of the table that is known here.
    new.commit(&change(Some(29), 30)).await.expect("a commit");
    let known = log.snapshot().table_id.clone();
    let error = log.refresh().await.expect_err("stopped");
    assert_eq!((error.kind, error.code), (Kind::Config, "table_replaced"));
    assert_eq!((log.snapshot().version, &log.snapshot().table_id), (3, &known));
}

#[tokio::test]
async fn c16_a_replaced_table_is_told_by_its_id() {
    let store = in_memory();
    let mut log = filled(&store, &append_table()).await;
    let other = in_memory();
    opened(&other, &append_table()).await;
    let first = other
        .get(&"_delta_log/00000000000000000000.json".into())
        .await
        .expect("a version")
        .bytes()
        .await
        .expect("bytes");
    store
        .put(&"_delta_log/00000000000000000004.json".into(), first.into())
        .await
        .expect("put");
    stops(&mut log, &store, "table_replaced").await;
}

#[tokio::test]
async fn c17_rows_of_ours_without_a_mark_stop_the_start() {
    let store = in_memory();
    filled(&store, &append_table()).await;
    // The marks expire: somebody writes the log again without them.
    for version in 1..=3_u64 {
        let path = format!("_delta_log/{version:020}.json").as_str().into();
        let text = store.get(&path).await.expect("a version").bytes().await.expect("bytes");
        let text = String::from_utf8(text.to_vec()).expect("text");
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("{\"txn\"")).collect();
        store.put(&path, kept.join("\n").into()).await.expect("put");
    }
    let error = Log::open_or_create(&url(), Arc::clone(&store), &append_table(), PIPELINE)
        .await
        .expect_err("stopped");
    assert_eq!((error.kind, error.code), (Kind::Config, "marks_missing"));
    // Another pipeline has no rows there, and may begin.
    Log::open_or_create(&url(), Arc::clone(&store), &append_table(), "another")
        .await
        .expect("opens");
}
