//! No filter is lost on its way to the files, whatever the scan makes of it.

use std::sync::Arc;

use alluvium::log::When;
use alluvium::query::Named;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use deltalake::kernel::{DataType, StructField};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::{lake, text};
use crate::support::delta::{library, url};

/// A table `t` as the Delta library makes it, with one commit for each of the batches.
pub(super) async fn made(columns: Vec<StructField>, partition_by: &[&str], batches: Vec<RecordBatch>) -> [Named; 1] {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let root = url::Url::parse("memory://made/").expect("a URL");
    let table = deltalake::DeltaTableBuilder::from_url(root.clone())
        .expect("a URL")
        .with_storage_backend(Arc::clone(&store), root)
        .build()
        .expect("a table");
    let create = table.create().with_columns(columns);
    create.with_partition_columns(partition_by.iter().copied()).await.expect("made");
    for rows in batches {
        library(&store).await.write(vec![rows]).await.expect("written");
    }
    [Named {
        name: "t".to_owned(),
        url: url(),
        store,
    }]
}

/// Six rows: `id`, and the columns `f` and `s` that they are partitioned by.
async fn partitioned() -> [Named; 1] {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..6));
    let numbers: ArrayRef = Arc::new(Float64Array::from(vec![
        Some(1.5),
        Some(1.5),
        Some(2.5),
        Some(2.5),
        None,
        Some(1.5),
    ]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("a"), Some("b"), Some("a"), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("f", numbers, true), ("s", texts, true)]);
    let columns = vec![
        StructField::nullable("id", DataType::LONG),
        StructField::nullable("f", DataType::DOUBLE),
        StructField::nullable("s", DataType::STRING),
    ];
    made(columns, &["f", "s"], vec![rows.expect("columns fit")]).await
}

#[tokio::test]
async fn filters_of_partition_columns_hold_even_where_no_file_can_be_passed_over() {
    let tables = partitioned().await;
    for (condition, count) in [
        ("true", 6),
        ("f = 1.5", 3),
        ("f < 2", 3),
        ("f > 2", 2),
        ("f <> 1.5", 2),
        ("f in (1.5, 7)", 3),
        ("f between 2 and 3", 2),
        ("f = cast('NaN' as double)", 0),
        ("f is distinct from 1.5", 3),
        ("f is null", 1),
        ("f = 1.5 and id >= 1", 2),
        ("f < f", 0),
        ("s < s", 0),
        ("s <> s", 0),
        ("s = 'a'", 3),
        ("s in ('a', 'c')", 3),
        ("s not in ('a', 'c')", 2),
        ("s is null", 1),
        ("s is not null and f is not null", 4),
        ("s = 'a' or f = 1.5", 5),
        ("upper(s) = 'A'", 3),
        ("case when s = 'a' then true else false end", 3),
        ("case when s = 'a' then true else false end and id >= 1", 2),
        ("f in (select f from t where f = 2.5)", 2),
        ("exists (select 1 from t as u where u.f = t.f and u.f < u.f)", 0),
        ("exists (select 1 from t as u where u.f = t.f and u.f > 2)", 2),
    ] {
        let sql = format!("select count(*) from t where {condition}");
        let text = text(&sql, &tables, &When::Latest)
            .await
            .unwrap_or_else(|e| panic!("{condition}: {e}"));
        assert!(text.contains(&format!("| {count} ")), "{condition}: {text}");
    }
}

#[tokio::test]
async fn a_condition_that_is_null_holds_for_no_row() {
    let (mut tables, _) = lake().await;
    tables.extend(partitioned().await);
    for sql in [
        "select count(*) from audit where id = 5 and null",
        "select count(*) from audit where id = 5 and v = null",
        "select count(*) from audit where id = 5 and null > v",
        "select count(*) from audit where id < 5 and nullif(1, 1) = 1",
        "select count(*) from audit where id < 5 and cast(null as boolean)",
        "select count(*) from audit where id < 5 and id between id and null",
        "select count(*) from audit where null",
        "select count(*) from audit as a join audit as b on a.id = b.id and null",
        "select count(*) from t where id < 9 and not (f = f)",
        "select count(*) from t where id < 9 and not (s = s)",
        "select count(*) from t where s = 'a' and f > null",
    ] {
        let text = text(sql, &tables, &When::Latest).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert!(text.contains("| 0 "), "{sql}: {text}");
    }
}

#[tokio::test]
async fn a_limit_counts_the_rows_that_a_filter_leaves() {
    let tables = partitioned().await;
    for (inner, count) in [
        ("select id from t where upper(s) = 'B' limit 2", 2),
        ("select id from t where s = 'b' limit 2", 2),
        ("select id from t where f = 2.5 limit 1", 1),
        ("select id from t where id = 5 limit 1", 1),
        ("select id from t where s = 'b' limit 1 offset 1", 1),
        ("select * from (select id from t limit 6) as u where id > 3", 2),
    ] {
        let sql = format!("select count(*) from ({inner}) as o");
        let text = text(&sql, &tables, &When::Latest).await.unwrap_or_else(|e| panic!("{inner}: {e}"));
        assert!(text.contains(&format!("| {count} ")), "{inner}: {text}");
    }
}
