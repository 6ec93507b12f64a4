//! What the server waits for while it makes a slot: transactions that are under way, of any database, however long. And what we wait for:
//! that those which were read are over for others, too.

use std::pin::pin;

use tokio::time::{Duration, sleep, timeout};
use tracing::info;

use super::connection::Control;
use crate::error::Result;

/// How often it is told: as often as how far a copy is.
const EVERY: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(2); // Mostly it takes less than one.
const PAUSE_MAX: Duration = Duration::from_millis(500);

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

/// Waits until these transactions, which have been committed, are visible to others. A server sends what is in its WAL, and that is a moment
/// before; with synchronous standbys it can be long before.
pub async fn until_visible(control: &Control, xids: &[u32]) -> Result<()> {
    let xids: Vec<i64> = xids.iter().copied().map(i64::from).collect();
    // Their numbers begin anew every 2^32: each is the one that is nearest to the newest.
    let sql = "SELECT bool_and(pg_visible_in_snapshot((CASE WHEN near - newest > 2147483648 THEN near - 4294967296 \
               WHEN newest - near > 2147483648 THEN near + 4294967296 ELSE near END)::text::xid8, now)) \
               FROM (SELECT now, pg_snapshot_xmax(now)::text::bigint newest FROM pg_current_snapshot() now) s, \
               unnest($1::bigint[]) xid, LATERAL (SELECT newest / 4294967296 * 4294967296 + xid near) n";
    let mut pause = PAUSE_MIN;
    loop {
        let rows = control.query(sql, &[&xids]).await?;
        let visible: Option<bool> = rows.first().and_then(|row| row.get(0));
        if visible != Some(false) {
            return Ok(()); // All of them, or there are none.
        }
        sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}
