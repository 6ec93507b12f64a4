//! What the server waits for while it makes a slot: transactions that are under way, of any database, however long.

use std::pin::pin;

use tokio::time::{Duration, timeout};
use tracing::info;

use super::connection::Control;
use crate::error::Result;

/// How often it is told: as often as how far a copy is.
const EVERY: Duration = Duration::from_secs(10);

/// What becomes of `made`, which the server's process `pid` makes. Meanwhile the log tells now and then what that waits for.
pub async fn told<T>(made: impl Future<Output = Result<T>>, pipeline: &str, control: &Control, pid: Option<u32>) -> Result<T> {
    let mut made = pin!(made);
    loop {
        if let Ok(made) = timeout(EVERY, made.as_mut()).await {
            return made;
        }
        let waits_for = waits_for(control, pid).await?;
        info!(
            pipeline,
            waits_for = waits_for.as_deref(),
            "the server waits for transactions that are under way (pg_stat_activity, pg_prepared_xacts)"
        );
    }
}

/// The process or the prepared transaction whose end is waited for; of several, one.
async fn waits_for(control: &Control, pid: Option<u32>) -> Result<Option<String>> {
    let sql = "SELECT coalesce('prepared transaction ' || quote_literal(p.gid), 'process ' || h.pid) FROM pg_locks w \
               LEFT JOIN pg_prepared_xacts p ON p.transaction = w.transactionid \
               LEFT JOIN pg_locks h ON h.transactionid = w.transactionid AND h.granted \
               WHERE w.pid = $1 AND w.locktype = 'transactionid' AND NOT w.granted LIMIT 1";
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    let rows = control.query(sql, &[&pid]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}
