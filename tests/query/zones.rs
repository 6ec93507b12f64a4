//! Instants and what clocks show.

use alluvium::error::Kind;
use alluvium::log::When;

use super::{answer_has, lake, text};

#[tokio::test]
async fn a_timestamptz_is_an_instant_and_is_told_in_utc() {
    let (tables, _) = lake().await;
    const TIMES: &str = "with t as (select arrow_cast('2024-01-01T12:34:00', 'Timestamp(Microsecond, Some(\"UTC\"))') at,
        timestamp '2024-01-01 12:34:00' as dt, '2024-01-01 13:34:00+01' as s)";
    for (ask, says) in [
        (
            "select timestamptz '2024-01-01 00:00:00+00' at time zone 'America/New_York' as x",
            "| 2023-12-31T19:00:00-05:00 |",
        ),
        (
            "select cast(dt as timestamptz) at time zone 'America/New_York' as x from t",
            "| 2024-01-01T07:34:00-05:00 |",
        ),
        (
            "select at at time zone 'America/New_York' as x from t",
            "| 2024-01-01T07:34:00-05:00 |",
        ),
        // What a clock showed, of the zone in which it hung.
        (
            "select dt at time zone 'America/New_York' as x from t",
            "| 2024-01-01T12:34:00-05:00 |",
        ),
        ("select timestamptz '2024-01-01 00:00:00+02' as x", "| 2023-12-31T22:00:00Z |"),
        (
            "select timestamp with time zone '2024-01-01 00:00:00' as x",
            "| 2024-01-01T00:00:00Z |",
        ),
        (
            "select '2024-01-01 00:00:00+02'::timestamptz::timestamp as x",
            "| 2023-12-31T22:00:00 |",
        ),
        (
            "select cast(s as timestamptz) = at, cast(s as timestamptz) = dt from t",
            "| true | true |",
        ),
        (
            "select count(*) from t where at = timestamptz '2024-01-01 13:34:00+01' and at < timestamptz '9999-12-31'",
            "| 1 |",
        ),
        (
            "select timestamptz '2024-01-01 00:00:00+01' = timestamptz '2023-12-31 23:00:00Z' as x",
            "| true |",
        ),
        (
            "select arrow_typeof(timestamptz '2024-01-01') a, arrow_typeof(cast(dt as timestamptz(3))) b, arrow_typeof(dt) c from t",
            "| Timestamp(µs, \"UTC\") | Timestamp(ms, \"UTC\") | Timestamp(µs) |",
        ),
        ("select arrow_typeof(now()) as x", "\"UTC\") |"),
    ] {
        answer_has(&format!("{TIMES} {ask}"), &tables, says).await;
    }
    for ask in [
        "select timestamptz '2024-01-01 00:00:00.0000014+00'",
        "select cast('2024-01-01 00:00:00.0000014Z' as timestamptz)",
    ] {
        let error = text(ask, &tables, &When::Latest).await.expect_err(ask);
        assert_eq!(error.kind, Kind::Config, "{ask}: {error}");
        assert!(
            error.to_string().contains("is finer than a timestamp of microseconds"),
            "{ask}: {error}"
        );
    }
}

#[tokio::test]
async fn at_time_zone_reaches_as_far_as_timestamps_do() {
    let (tables, _) = lake().await;
    const TIMES: &str = "with t as (select arrow_cast(s, 'Timestamp(Microsecond, Some(\"UTC\"))') at, cast(s as timestamp) dt from (values
        ('9999-12-31T00:00:00'), ('2024-01-01T12:34:00.000001'), ('1600-01-01T00:00:00'), (null)) as r(s))";
    for (ask, says) in [
        (
            "select at at time zone 'America/New_York' as x from t where at > '9999-01-01'",
            "| 9999-12-30T19:00:00-05:00 |",
        ),
        (
            "select dt at time zone 'America/New_York' as x from t where at > '9999-01-01'",
            "| 9999-12-31T00:00:00-05:00 |",
        ),
        (
            "select at at time zone 'America/New_York' as x from t where at between '2024-01-01' and '2024-12-31'",
            "| 2024-01-01T07:34:00.000001-05:00 |",
        ),
        (
            "select dt at time zone 'UTC' as x from t where at < '1700-01-01'",
            "| 1600-01-01T00:00:00Z |",
        ),
        (
            "select timestamp '9999-12-31 00:00:00' at time zone 'America/New_York' as x",
            "| 9999-12-31T00:00:00-05:00 |",
        ),
        (
            "select max(x) from (values (timestamp '9999-12-31' at time zone 'UTC'), (timestamp '1600-01-01' at time zone 'UTC')) as v(x)",
            "| 9999-12-31T00:00:00Z |",
        ),
        ("select count(at at time zone 'America/New_York') as x from t", "| 3 |"),
        (
            "select count(*) from t where dt at time zone 'UTC' > timestamptz '2500-01-01 00:00:00+00'",
            "| 1 |",
        ),
        (
            "select arrow_typeof(dt at time zone 'America/New_York') as x from t limit 1",
            "| Timestamp(µs, \"America/New_York\") |",
        ),
    ] {
        answer_has(&format!("{TIMES} {ask}"), &tables, says).await;
    }
}
