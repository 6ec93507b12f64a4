//! The moment that a reader asks for, and the tables that it names.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use clap::Args;
use url::Url;

use super::ConfigArgument;
use crate::config::{Config, Document, Reach, url_of};
use crate::error::{Error, Result};
use crate::log::When;
use crate::pipeline::resolve::{Resolved, Source, Storage, resolve, storage};
use crate::pipeline::tables::open_store;
use crate::position::{Checkpoint, parse_position};
use crate::query::Named;

/// Which state of the tables is read [default: the latest].
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(super) struct Moment {
    /// The state at a version
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// The state at a time: 2026-11-23T10:00:00Z, "2026-11-23 10:00:00" or 2026-11-23, in UTC where nothing else is said
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    /// The first state that holds all of these source positions: orders/0:41 orders/1:17. Of a topic that was made anew, with its id as
    /// `history --format json` shows it: orders/0@3Krctj1_TkuvCDiAzlb6pQ:41. Of a table that several pipelines wrote, with the name of one
    /// before it: shop:orders/0:41
    #[arg(long, value_name = "LANE:POS", num_args = 1..)]
    position: Vec<String>,
}

impl Moment {
    pub(super) fn when(&self) -> Result<When> {
        if let Some(version) = self.version {
            return Ok(When::Version(version));
        }
        if let Some(time) = &self.timestamp {
            let no_time = || Error::config("usage", format!("`{time}` is not a time: write it like 2026-11-23T10:00:00Z"));
            return milliseconds(time).map(When::Time).ok_or_else(no_time);
        }
        if self.position.is_empty() {
            return Ok(When::Latest);
        }
        let mut positions = Checkpoint::default();
        for text in &self.position {
            let (lane, at) = parse_position(text)?;
            if positions.get(&lane).is_some() {
                return Err(Error::config(
                    "usage",
                    format!("lane {lane} has two positions: name one of each lane"),
                ));
            }
            positions.set(lane, at);
        }
        Ok(When::Mark(positions))
    }
}

/// Milliseconds since 1970 of a time as people write it.
fn milliseconds(text: &str) -> Option<i64> {
    let in_utc = |time: NaiveDateTime| time.and_utc();
    let time: DateTime<Utc> = DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .ok()
        .or_else(|| {
            ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
                .iter()
                .find_map(|f| NaiveDateTime::parse_from_str(text, f).ok())
                .map(in_utc)
        })
        .or_else(|| {
            NaiveDate::parse_from_str(text, "%Y-%m-%d")
                .ok()
                .and_then(|day| day.and_hms_opt(0, 0, 0))
                .map(in_utc)
        })?;
    Some(time.timestamp_millis())
}

/// Tables by name: those of the configuration, or those that the command line names.
#[derive(Debug, Args)]
pub(super) struct Tables {
    #[command(flatten)]
    config: ConfigArgument,
    /// A table that needs no configuration: a folder or a URL, by the name that it shall have. May be repeated
    #[arg(long = "table", value_name = "NAME=PLACE")]
    named: Vec<String>,
}

impl Tables {
    pub(super) async fn open(&self) -> Result<Vec<Named>> {
        if self.named.is_empty() {
            let (config, resolved) = resolve(Document::read(&self.config.config, Reach::Tables)?)?;
            return of_config(&config, &resolved).await;
        }
        let each = self.named.iter().map(|text| {
            let wrong = |what: String| Error::config("usage", what);
            let (name, place) = text
                .split_once('=')
                .ok_or_else(|| wrong(format!("`{text}` is not NAME=PLACE, as in orders=./lake/orders")))?;
            let url = url_of(place).map_err(wrong)?;
            Ok(Named {
                name: name.to_owned(),
                store: open_store(&url, &Storage::default())?,
                url,
            })
        });
        each.collect()
    }

    /// The one table of this name.
    pub(super) async fn open_one(&self, name: &str) -> Result<Named> {
        named(&self.open().await?, name).cloned()
    }
}

/// The one of this name.
pub(super) fn named<'a>(all: &'a [Named], name: &str) -> Result<&'a Named> {
    let unknown = || {
        let names: Vec<&str> = all.iter().map(|table| table.name.as_str()).collect();
        let near = crate::config::suggestion(name, names.iter().copied());
        Error::config(
            "usage",
            format!("there is no table `{name}`{near} (there are {})", names.join(", ")),
        )
    };
    all.iter().find(|table| table.name == name).ok_or_else(unknown)
}

/// All tables of a configuration, the dead letters included; of those that are followed by pattern, the ones that are there.
pub(super) async fn of_config(config: &Config, resolved: &[Resolved]) -> Result<Vec<Named>> {
    let storage = storage(config)?;
    let mut places = Vec::new();
    for (name, pipeline) in &config.pipelines {
        let dead_letters = (format!("{name}_dead_letters"), &pipeline.dead_letters.location);
        let named = pipeline.tables.iter().map(|(name, table)| (name.clone(), &table.location));
        for (name, location) in named.chain([dead_letters]) {
            let url = config.table_url(&name, location.as_deref());
            places.push((name, url.map_err(|what| Error::config("config_invalid", what))?));
        }
    }
    for pipeline in resolved {
        if let Source::Postgres(feeds) = &pipeline.source {
            places.extend(feeds.made(&storage).await?);
        }
    }
    let open = |(name, url): (String, Url)| {
        let store = open_store(&url, &storage)?;
        Ok(Named { name, url, store })
    };
    places.into_iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Lane, Position};

    #[test]
    fn a_time_is_read_as_people_write_it() {
        let expected = Some(1_795_428_000_000);
        assert_eq!(milliseconds("2026-11-23T10:00:00Z"), expected);
        assert_eq!(milliseconds("2026-11-23T11:00:00+01:00"), expected);
        assert_eq!(milliseconds("2026-11-23 10:00:00"), expected);
        assert_eq!(milliseconds("2026-11-23 05:00:00-05:00"), expected);
        assert_eq!(milliseconds("2026-11-23T10:00:00.000"), expected);
        assert_eq!(
            milliseconds("2026-11-23T10:00:00.0009Z"),
            expected,
            "what is between two milliseconds is the first"
        );
        assert_eq!(milliseconds("2026-11-23"), Some(1_795_392_000_000), "the first moment of the day");
        assert_eq!(milliseconds("yesterday"), None);
    }

    #[test]
    fn positions_of_several_lanes_are_one_moment() {
        let moment = Moment {
            position: ["orders/0:41", "orders/1@A:17", "shop:orders/2@A:9"].map(str::to_owned).to_vec(),
            ..Moment::default()
        };
        let mark = [("orders/0", 41), ("orders/1@A", 17), ("shop:orders/2@A", 9)]
            .map(|(lane, at)| (Lane::new(lane), Position(at)))
            .into_iter()
            .collect();
        assert_eq!(moment.when().unwrap(), When::Mark(mark));
        for wrong in [&["orders"][..], &["orders/0:41", "orders/0:17"]] {
            let wrong = Moment {
                position: wrong.iter().map(|&text| text.to_owned()).collect(),
                ..Moment::default()
            };
            assert_eq!(wrong.when().unwrap_err().exit_code(), 64);
        }
    }
}
