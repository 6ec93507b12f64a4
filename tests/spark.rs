//! Spark with Delta Lake reads what the program wrote. A test binary of its own, which only `make test-spark` runs: Spark is large to fetch.

mod support;

use support::postgres::PostgresServer;
use support::python::Reader;
use support::{edges, kinds, million, widening};

#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_a_million_changes_back_at_any_moment() {
    million::is_read_by(&[Reader::Spark]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_finds_the_rows_at_the_edges_of_their_types() {
    edges::are_found_by(&[Reader::Spark]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_every_type_and_every_partition_as_it_was_produced() {
    kinds::are_read_by(&[Reader::Spark]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_columns_that_got_wider() {
    let bank = widening::copied(PostgresServer::shared(), "spark", widening::WIDENING).await;
    let version = bank.versions("public.grow").await;
    widening::alter(&bank).await;
    bank.catch_up().await;
    widening::read(Reader::Spark, &bank, version).await;
}
