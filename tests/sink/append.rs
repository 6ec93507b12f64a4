//! Append tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use alluvium::batch::{ChangeBatch, Gap};
use alluvium::sinks::Sink;
use alluvium::table::Mode;
use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use object_store::ObjectStoreExt;

use super::bed::{AMPLE, Bed, mark, texts};
use super::changes::{batch, put, schema};

#[tokio::test]
async fn rows_are_seen_with_their_mark_and_not_before() {
    let bed = Bed::new(schema(), Mode::Append);
    let mut sink = bed.open(AMPLE).await;
    assert!(sink.checkpoint().is_empty());
    sink.write(batch(&[put(1, "a"), put(1, "a"), put(2, "b")])).await.unwrap();
    assert_eq!(bed.library(None).await.version(), Some(0), "nothing is published before the commit");
    let version = sink.commit(&mark(&[("orders/0", 7)])).await.unwrap();
    assert_eq!((version, sink.checkpoint()), (1, &mark(&[("orders/0", 7)])));
    assert_eq!(
        bed.rows_at(1).await,
        ["1|p|a|body of 1", "1|p|a|body of 1", "2|p|b|body of 2"],
        "every change is a row"
    );
    assert_eq!(
        sink.commit(&mark(&[("orders/0", 9)])).await.unwrap(),
        2,
        "a mark alone is a version"
    );
    assert_eq!(bed.rows_at(2).await.len(), 3);
    let again = bed.open(AMPLE).await;
    assert_eq!(again.checkpoint(), &mark(&[("orders/0", 9)]), "a sink is opened where the table is");
}

#[tokio::test]
async fn c1_what_was_not_committed_is_forgotten() {
    let bed = Bed::new(schema(), Mode::Append);
    let mut sink = bed.open(AMPLE).await;
    sink.write(batch(&[put(1, "lost")])).await.unwrap();
    drop(sink);
    let mut sink = bed.open(AMPLE).await;
    sink.write(batch(&[put(2, "kept")])).await.unwrap();
    sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
    assert_eq!(bed.rows_at(1).await, ["2|p|kept|body of 2"]);
}

#[tokio::test]
async fn c5_of_two_sinks_on_a_lane_one_is_fenced() {
    let bed = Bed::new(schema(), Mode::Append);
    let (mut one, mut other) = (bed.open(AMPLE).await, bed.open(AMPLE).await);
    one.write(batch(&[put(1, "one")])).await.unwrap();
    other.write(batch(&[put(1, "other")])).await.unwrap();
    one.commit(&mark(&[("orders/0", 3)])).await.unwrap();
    let error = other.commit(&mark(&[("orders/0", 3)])).await.unwrap_err();
    assert_eq!(error.kind, alluvium::error::Kind::Fenced, "{error}");
    assert_eq!(bed.rows_at(1).await, ["1|p|one|body of 1"]);
}

#[tokio::test]
async fn a_gap_is_told_in_the_next_commit() {
    let bed = Bed::new(schema(), Mode::Append);
    let mut sink = bed.open(AMPLE).await;
    sink.note(Gap {
        table: bed.table.id.clone(),
        lane: alluvium::position::Lane::new("orders/0"),
        missing: 5..90,
    });
    sink.commit(&mark(&[("orders/0", 100)])).await.unwrap();
    let commit = bed
        .store
        .get(&"_delta_log/00000000000000000001.json".into())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let text = String::from_utf8(commit.to_vec()).unwrap();
    assert!(
        text.contains(r#"\"gaps\":[{\"from\":5,\"lane\":\"orders/0\",\"until\":90}]"#),
        "{text}"
    );
}

#[tokio::test]
async fn v18_partitions_are_read_back_by_value_and_their_files_lie_in_folders_of_their_names() {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("day", DataType::Date32, true),
        Field::new("city", DataType::Utf8, true),
    ];
    let schema = Arc::new(Schema::new(fields));
    let mut bed = Bed::new(Arc::clone(&schema), Mode::Append);
    bed.table.partition_by = vec!["city".to_owned(), "day".to_owned()];
    let cities = [Some("a/b=c"), Some(""), None, Some("50 % é"), Some("a/b=c")];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..5)),
        Arc::new(Date32Array::from(vec![Some(0), None, Some(19_000), Some(-1), Some(0)])),
        Arc::new(StringArray::from(cities.to_vec())),
    ];
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    let mut sink = bed.open(AMPLE).await;
    sink.write(ChangeBatch::puts(bed.table.id.clone(), rows.clone())).await.unwrap();
    sink.write(ChangeBatch::puts(bed.table.id.clone(), rows.slice(0, 1))).await.unwrap();
    sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
    // The empty text is null in a partition column: Delta has no other way to say it.
    let expected = [
        "0|1970-01-01|a/b=c",
        "0|1970-01-01|a/b=c",
        "1|NULL|NULL",
        "2|2022-01-08|NULL",
        "3|1969-12-31|50 % é",
        "4|1970-01-01|a/b=c",
    ];
    assert_eq!(bed.rows_at(1).await, expected);
    let files: BTreeMap<_, _> = sink
        .log()
        .snapshot()
        .files
        .iter()
        .map(|(path, file)| (path.to_string(), file.rows))
        .collect();
    assert_eq!(files.len(), 4, "one file a partition: {files:?}");
    let folders: Vec<&str> = files.keys().map(|path| path.rsplit_once('/').unwrap().0).collect();
    // As the log tells them: encoded once for the folder's name, and once more for a URL.
    let expected = [
        "city=50%2520%2525%2520%25C3%25A9/day=1969-12-31",
        "city=__HIVE_DEFAULT_PARTITION__/day=2022-01-08",
        "city=__HIVE_DEFAULT_PARTITION__/day=__HIVE_DEFAULT_PARTITION__",
        "city=a%252Fb%253Dc/day=1970-01-01",
    ];
    assert_eq!(folders, expected);
}

#[tokio::test]
async fn v18_an_empty_partition_value_lets_nulls_into_a_column_that_had_none() {
    let columns = vec![Field::new("id", DataType::Int64, false), Field::new("city", DataType::Utf8, false)];
    let schema = Arc::new(Schema::new(columns));
    let mut bed = Bed::new(Arc::clone(&schema), Mode::Append);
    bed.table.partition_by = vec!["city".to_owned()];
    let mut sink = bed.open(AMPLE).await;
    for (turn, city) in ["a", ""].into_iter().enumerate() {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![turn as i64]));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![id, Arc::new(StringArray::from(vec![city]))]).unwrap();
        sink.write(ChangeBatch::puts(bed.table.id.clone(), rows)).await.unwrap();
        let version = sink.commit(&mark(&[("orders/0", turn as u64)])).await.unwrap();
        assert_eq!(bed.rows_at(version).await, ["0|a", "1|NULL"][..=turn]);
    }
}

#[tokio::test]
async fn many_partitions_are_written_with_few_open_files() {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("part", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(fields));
    let mut bed = Bed::new(Arc::clone(&schema), Mode::Append);
    bed.table.partition_by = vec!["part".to_owned()];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..1000)),
        Arc::new(Int64Array::from_iter_values((0..1000).map(|id| id % 300))),
    ];
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    let mut sink = bed.open(1).await;
    sink.write(ChangeBatch::puts(bed.table.id.clone(), rows.clone())).await.unwrap();
    sink.commit(&mark(&[("orders/0", 1)])).await.unwrap();
    let mut expected = texts(&rows);
    expected.sort();
    assert_eq!(bed.rows_at(1).await, expected);
}

#[tokio::test]
async fn the_columns_that_the_table_names_get_statistics_and_no_others() {
    for (name, value, counted) in [
        ("delta.dataSkippingStatsColumns", "v", "{\"v\":0}"),
        ("delta.dataSkippingNumIndexedCols", "1", "{\"id\":0}"),
        ("delta.dataSkippingNumIndexedCols", "0", "{}"),
    ] {
        let mut bed = Bed::new(schema(), Mode::Append);
        bed.table.properties.insert(name.to_owned(), value.to_owned());
        let mut sink = bed.open(AMPLE).await;
        sink.write(batch(&[put(1, "a")])).await.unwrap();
        sink.commit(&mark(&[("orders/0", 7)])).await.unwrap();
        let files: Vec<_> = sink.log().snapshot().files.values().collect();
        let stats = files[0].stats.as_deref().unwrap();
        assert!(stats.contains(&format!("\"nullCount\":{counted}")), "{name}: {stats}");
        assert_eq!((files.len(), files[0].rows), (1, Some(1)));
    }
}

#[tokio::test]
async fn c13_a_checkpoint_is_due_every_so_many_versions_until_it_is_made() {
    let mut bed = Bed::new(schema(), Mode::Append);
    bed.table.properties.insert("delta.checkpointInterval".to_owned(), "4".to_owned());
    let mut sink = bed.open(AMPLE).await;
    let mut asked = Vec::new();
    for turn in 0..9 {
        let version = sink.commit(&mark(&[("orders/0", turn)])).await.unwrap();
        if let Some(upkeep) = sink.upkeep() {
            asked.push(version);
            // The first is lost.
            if asked.len() > 1 {
                upkeep.work.await.unwrap();
            }
        }
    }
    assert_eq!(asked, [4, 5, 8]);
    assert!(
        bed.store
            .head(&"_delta_log/00000000000000000004.checkpoint.parquet".into())
            .await
            .is_ok()
    );
    assert_eq!(bed.open(AMPLE).await.checkpoint(), &mark(&[("orders/0", 8)]));
}
