//! A replication session: commands, and then one stream.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio_util::sync::CancellationToken;

use super::refusals::{self, Refusal};
use super::socket::Socket;
use super::wire::{Message, Wire};
use super::{Address, BYTES_AS_THEY_ARE, Control, GOODBYE_MAX, Stream, control, identifier, literal, login, stream};
use crate::error::{Error, Result};

/// Which process answers a session.
const PROCESS: &str = "SELECT pg_backend_pid()";
/// How often sessions are compared. A pooler whose processes are all in use gives one at random: few are met twice in a row.
const POOLER_TRIES: usize = 4;

/// A session that takes replication commands and SQL, by the simple protocol. What a dropped call has begun is not waited for: drop the
/// session with it.
///
/// A snapshot that `CREATE_REPLICATION_SLOT` exported holds until the next command, or until the session ends.
pub struct Replication {
    wire: Wire,
    address: Arc<Address>,
    /// What the other side called itself when we logged in.
    process: Option<u32>,
    /// When its stream ends.
    over: CancellationToken,
}

impl Replication {
    /// Connects and logs in.
    pub async fn open(address: &Address) -> Result<Replication> {
        let opened = tokio::time::timeout(address.connect_timeout, Self::connect(address)).await;
        opened.map_err(|_| refusals::too_late(address))?
    }

    async fn connect(address: &Address) -> Result<Replication> {
        let mut socket = Socket::connect(address).await?;
        if let Some(tls) = &address.tls {
            socket = socket.secured(address, tls).await?;
        }
        let mut wire = Wire::new(socket);
        let process = login::log_in(&mut wire, address).await?;
        let mut replication = Replication {
            wire,
            address: Arc::new(address.clone()),
            process,
            over: CancellationToken::new(),
        };
        replication.query(&super::control::session()).await?;
        replication.query(BYTES_AS_THEY_ARE).await?;
        Ok(replication)
    }

    /// The server's process that answers us, as far as it is known.
    pub fn process(&self) -> Option<u32> {
        self.process
    }

    /// Runs a command or a query; its rows as text.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let doing = || format!("run `{sql}`");
        self.say(sql, &doing()).await?;
        let mut rows = Vec::new();
        let mut refusal = None;
        loop {
            let message = self.wire.message().await;
            // After a fatal error the server closes without a further word.
            let Message { tag, body } = match (message, &refusal) {
                (Ok(message), _) => message,
                (Err(_), Some(refusal)) => return Err(refusals::refused(&self.address, &doing(), refusal)),
                (Err(error), None) => return Err(refusals::broken(&self.address, &doing(), error)),
            };
            match tag {
                b'D' => rows.push(columns(body).ok_or_else(|| self.garbled(&doing()))?),
                b'E' => refusal = Some(Refusal::parse(&body)),
                b'Z' => {
                    return match refusal {
                        Some(refusal) => Err(refusals::refused(&self.address, &doing(), &refusal)),
                        None => Ok(rows),
                    };
                }
                // A COPY would wait for us for ever.
                b'G' | b'H' | b'W' => return Err(Error::bug(format!("`{sql}` is no query"))),
                _ => {}
            }
        }
    }

    /// Whether something stands in between that shares the server's processes among sessions: then what one of ours is set to goes for another,
    /// or for none. Such a pooler answers the login itself. So do proxies that share nothing: before these, no two sessions have one process.
    pub async fn is_pooled(&mut self) -> Result<bool> {
        if process(&self.query(PROCESS).await?) == self.process {
            return Ok(false);
        }
        let sessions = [control(&self.address).await?, control(&self.address).await?];
        let mut processes: [Option<Option<u32>>; 2] = [None, None];
        // A busy pooler gives them others at each time, an idle one the same to both.
        for _ in 0..POOLER_TRIES {
            for (session, known) in sessions.iter().zip(&mut processes) {
                let now = process(&session.rows(PROCESS).await?);
                if known.is_some_and(|known| known != now) {
                    return Ok(true);
                }
                *known = Some(now);
            }
            if processes[0] == processes[1] {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Its stream ends when the other session does. A server that shuts down ends other sessions first, and waits for those that read a slot
    /// until these have said that all is safe: which takes as long as it takes, or for ever where a table has stopped.
    #[must_use]
    pub fn beside(mut self, control: &Control) -> Self {
        self.over = control.over();
        self
    }

    /// Starts to read a logical slot at this LSN (0: where the slot is). The options are the output plugin's. `buffer_bytes`: how much may
    /// wait to be read, beside what is being read from the socket; a single larger message goes alone.
    pub async fn start(mut self, slot: &str, from_lsn: u64, options: &[(&str, String)], buffer_bytes: usize) -> Result<Stream> {
        let doing = format!("read the replication slot `{slot}`");
        self.say(&start_command(slot, from_lsn, options), &doing).await?;
        loop {
            let Message { tag, body } = self
                .wire
                .message()
                .await
                .map_err(|error| refusals::broken(&self.address, &doing, error))?;
            match tag {
                b'W' => return Ok(stream::begin(self.wire, self.address, doing, self.over, from_lsn, buffer_bytes)),
                b'E' => return Err(refusals::refused(&self.address, &doing, &Refusal::parse(&body))),
                b'N' | b'S' => {}
                _ => return Err(self.garbled(&doing)),
            }
        }
    }

    /// Takes leave of the server, and waits a moment until what the session held is free.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(GOODBYE_MAX, self.wire.take_leave()).await;
    }

    async fn say(&mut self, sql: &str, doing: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|error| Error::config("postgres_refused", format!("Cannot {doing}")).because(error))?;
        self.wire
            .send(&out)
            .await
            .map_err(|error| refusals::broken(&self.address, doing, error))
    }

    fn garbled(&self, doing: &str) -> Error {
        Error::config(
            "postgres_refused",
            format!("Cannot {doing} on {}: the answers are not PostgreSQL's", self.address),
        )
    }
}

/// The answer to [`PROCESS`].
fn process(rows: &[Vec<Option<String>>]) -> Option<u32> {
    rows.first()?.first()?.as_ref()?.parse().ok()
}

fn start_command(slot: &str, from_lsn: u64, options: &[(&str, String)]) -> String {
    let mut sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {:X}/{:X}",
        identifier(slot),
        from_lsn >> 32,
        from_lsn & 0xffff_ffff
    );
    let options: Vec<String> = options
        .iter()
        .map(|(name, value)| format!("{} {}", identifier(name), literal(value)))
        .collect();
    if !options.is_empty() {
        write!(sql, " ({})", options.join(", ")).expect("a string takes all");
    }
    sql
}

/// A DataRow: a number of columns, and of each its length and its bytes; a length of -1 is null.
fn columns(mut body: Bytes) -> Option<Vec<Option<String>>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let length = body.try_get_i32().ok()?;
        let Ok(length) = usize::try_from(length) else {
            columns.push(None);
            continue;
        };
        let text = body.get(..length)?.to_vec();
        body.advance(length);
        columns.push(Some(String::from_utf8(text).ok()?));
    }
    Some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_quotes_what_it_names() {
        let options = [("proto_version", "1".to_owned()), ("publication_names", "\"it's\"".to_owned())];
        let sql = start_command("s", 0x1_6B37_4D48, &options);
        assert_eq!(
            sql,
            "START_REPLICATION SLOT \"s\" LOGICAL 1/6B374D48 (\"proto_version\" '1', \"publication_names\" '\"it''s\"')"
        );
        assert_eq!(start_command("s", 0, &[]), "START_REPLICATION SLOT \"s\" LOGICAL 0/0");
    }

    #[test]
    fn a_row_that_is_cut_is_no_row() {
        let row = [0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, b'h', b'i'];
        assert_eq!(columns(Bytes::copy_from_slice(&row)), Some(vec![None, Some("hi".to_owned())]));
        for length in 0..row.len() {
            assert_eq!(columns(Bytes::copy_from_slice(&row[..length])), None, "cut at {length}");
        }
    }
}
