//! Files that wait for their commit for so long that a vacuum may take them.

use std::time::Duration;

use alluvium::error::Kind;
use alluvium::sinks::Sink;
use alluvium::table::{Merge, Mode};
use tokio::time::advance;

use super::bed::{AMPLE, Bed, mark};
use super::changes::{batch, put, schema};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// Tables of both kinds, with this retention or with the one that alluvium sets.
fn beds(retention: Option<&str>) -> [Bed; 3] {
    [
        Bed::new(schema(), Mode::Append),
        Bed::upsert(schema(), &["id"], Merge::Vectors),
        Bed::upsert(schema(), &["id"], Merge::Rewrite),
    ]
    .map(|mut bed| {
        let set = |text: &str| ("delta.deletedFileRetentionDuration".to_owned(), text.to_owned());
        bed.table.properties = retention.map(set).into_iter().collect();
        bed
    })
}

#[tokio::test(start_paused = true)]
async fn c11_files_older_than_half_the_retention_are_given_up_and_read_again() {
    for (retention, half) in [(None, HOUR * 24 * 15), (Some("interval 2 hours"), HOUR)] {
        for (bed, share) in beds(retention).iter().flat_map(|bed| [(bed, 1), (bed, AMPLE)]) {
            let mut sink = bed.open(share).await;
            let held = sink.checkpoint().clone();
            let version = sink.log().snapshot().version;
            sink.write(batch(&[put(1, "old")])).await.unwrap();
            advance(half - SECOND).await;
            sink.write(batch(&[put(2, "young")])).await.unwrap();
            advance(SECOND * 2).await;
            let error = sink.commit(&mark(&[("orders/0", version + 9)])).await.unwrap_err();
            assert_eq!((error.kind, error.code), (Kind::Transient, "staged_too_long"));
            for word in ["`orders`", "memory://lake/orders/", "delta.deletedFileRetentionDuration"] {
                assert!(error.to_string().contains(word), "{word}: {error}");
            }
            let error = sink.write(batch(&[put(3, "more")])).await.unwrap_err();
            assert_eq!(error.code, "staged_too_long", "nor is more put beside them: {error}");
            // From the log, once more.
            let mut sink = bed.open(share).await;
            assert_eq!(*sink.checkpoint(), held, "nothing of it was published");
            sink.write(batch(&[put(version as i64 + 10, "new")])).await.unwrap();
            advance(half).await;
            let made = sink.commit(&mark(&[("orders/0", version + 9)])).await.unwrap();
            assert_eq!((made, bed.rows_at(made).await.len() as u64), (version + 1, version + 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c11_what_was_committed_does_not_age() {
    for bed in beds(Some("interval 2 hours")) {
        let mut sink = bed.open(1).await;
        for step in 0..5 {
            sink.write(batch(&[put(step, "a")])).await.unwrap();
            advance(HOUR - SECOND).await;
            let version = sink.commit(&mark(&[("orders/0", step as u64)])).await.unwrap();
            advance(HOUR * 3).await;
            assert_eq!(version, step as u64 + 1);
        }
    }
}

#[tokio::test]
async fn c11_a_retention_that_cannot_be_read_is_refused() {
    for bed in beds(Some("for ever")) {
        let error = bed.try_open(AMPLE).await.err().expect("refused");
        assert_eq!((error.kind, error.code), (Kind::Config, "bad_property"));
        assert!(error.to_string().contains("interval 30 days"), "{error}");
    }
}
