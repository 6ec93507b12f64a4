//! `alluvium resnapshot`: has tables of a database copied again. A service that is running finds out with its next commit; else the next run
//! does it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::moment::{named, of_config};
use crate::config::{Document, Reach};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::pipeline::postgres::PostgresFeeds;
use crate::pipeline::resolve::{Resolved, Source, resolve};
use crate::sources::postgres::again;

pub(super) async fn resnapshot(file: &Path, names: &[String]) -> Result<ExitCode> {
    // The database is not asked: the run that copies finds the wish in the table.
    let (config, resolved) = resolve(Document::read(file, Reach::Tables)?)?;
    let known = of_config(&config, &resolved).await?;
    // All are looked at before one is changed.
    let mut asked = Vec::new();
    for name in names {
        let table = named(&known, name)?;
        let (pipeline, feeds) = feeding(&resolved, name)?;
        let slot = feeds.slot_name(pipeline);
        let Some(log) = Log::open(&table.url, Arc::clone(&table.store), pipeline).await? else {
            return Err(Error::config(
                "no_table",
                format!("there is no table at {} yet: it is copied by the first run", table.url),
            ));
        };
        if log.snapshot().only_grows() {
            return Err(again::only_grows(name));
        }
        let held = log.checkpoint();
        let Some((lane, _)) = held.named(&slot) else {
            return Err(Error::config(
                "usage",
                format!("table `{name}` holds nothing of slot `{slot}` yet: the next run copies it anyway"),
            ));
        };
        asked.push((name, lane.clone(), log, feeds.idle()));
    }
    for (name, lane, mut log, idle) in asked {
        let version = log.forget(&lane).await?;
        let idle = humantime::format_duration(idle);
        super::print(&format!(
            "version {version} of {name} asks for a new copy; its rows stay as they are until one version replaces them. A service that is running \
             finds out with its next commit: at the next change, or within {idle} as the server's WAL grows. Else the next run makes the copy\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The pipeline that feeds a table from a database.
fn feeding<'r>(resolved: &'r [Resolved], table: &str) -> Result<(&'r str, &'r PostgresFeeds)> {
    let fed = resolved.iter().find_map(|pipeline| match &pipeline.source {
        Source::Postgres(feeds) if feeds.feeds_table(table) => Some((&*pipeline.name, feeds)),
        Source::Postgres(_) | Source::Kafka(_) => None,
    });
    fed.ok_or_else(|| {
        Error::config(
            "usage",
            format!("`{table}` is not a table of a database: only such tables can be copied again"),
        )
    })
}
