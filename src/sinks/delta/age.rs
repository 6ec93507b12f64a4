//! How old uncommitted files may grow. A vacuum that somebody runs takes files that no version names once they are older than the
//! table's retention: a commit of such files would name files that are gone. So what was staged for too long is given up in time, and
//! read again.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::log::Log;
use crate::table::TableId;

/// Of the retention: the other half is for clocks that differ, and for the commit itself.
const SHARE: u32 = 2;

/// When the oldest staged rows came: no file of theirs is older.
#[derive(Debug, Default)]
pub struct Age {
    since: Option<Instant>,
}

impl Age {
    /// Rows are staged.
    pub fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Everything that was staged is published.
    pub fn end(&mut self) {
        self.since = None;
    }

    /// Whether what is staged may still be committed.
    pub fn check(&self, table: &TableId, log: &Log) -> Result<()> {
        let (age, retention) = (
            self.since.map_or(Duration::ZERO, |since| since.elapsed()),
            log.deleted_file_retention(),
        );
        if age <= retention / SHARE {
            return Ok(());
        }
        let what = format!(
            "files for table `{table}` at {} wait for their commit since {}, more than half of the time after which a vacuum may take \
             them: they are given up and read again from the log; commit more often, or raise the table's \
             `delta.deletedFileRetentionDuration` ({})",
            log.url(),
            humantime::format_duration(Duration::from_secs(age.as_secs())),
            humantime::format_duration(retention),
        );
        Err(Error::transient("staged_too_long", what))
    }
}
