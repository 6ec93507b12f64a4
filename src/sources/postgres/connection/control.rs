//! A session for queries and COPY.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyOutStream, NoTls, Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

use super::refusals::{self, InClear};
use super::socket::Socket;
use super::{Address, GOODBYE_MAX, SESSION, STARTUP_OPTIONS, literal};
use crate::error::{Error, Result};

/// A session. Statements of one session run one after the other; a statement whose future is dropped still runs to its end on the server,
/// and the next one waits for it.
pub struct Control {
    client: Client,
    address: Arc<Address>,
    connection: Connection,
}

/// Opens a session with the settings of [`SESSION`].
pub async fn control(address: &Address) -> Result<Control> {
    let opened = tokio::time::timeout(address.connect_timeout, open(address)).await;
    opened.map_err(|_| refusals::too_late(address))?
}

async fn open(address: &Address) -> Result<Control> {
    let mut config = tokio_postgres::Config::new();
    config
        .user(&address.user)
        .dbname(&address.database)
        .options(STARTUP_OPTIONS)
        .application_name(&address.application_name);
    if let Some(password) = address.secret()? {
        config.password(password);
    }
    let failed = |error| refusals::failed(address, "connect", error);
    let socket = Socket::connect(address).await?;
    let (client, connection) = match (&address.tls, socket) {
        (Some(tls), socket @ Socket::Tcp(_)) => {
            config.ssl_mode(SslMode::Require);
            let mut connector = MakeRustlsConnect::new(tls.client_config()?);
            let connector =
                MakeTlsConnect::<Socket>::make_tls_connect(&mut connector, &address.host).unwrap_or_else(|never| match never {});
            let (client, connection) = config.connect_raw(socket, connector).await.map_err(failed)?;
            (client, Connection::drive(connection))
        }
        (_, socket) => {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect_raw(Guarded::new(socket), NoTls).await.map_err(failed)?;
            (client, Connection::drive(connection))
        }
    };
    let control = Control {
        client,
        address: Arc::new(address.clone()),
        connection,
    };
    control.batch_execute(&session()).await?;
    Ok(control)
}

/// The statements that set a session to [`SESSION`].
pub(super) fn session() -> String {
    let set: String = SESSION
        .iter()
        .map(|(name, value)| format!("SET {name} = {};", literal(value)))
        .collect();
    // Not every version has these two. Names are looked up in pg_catalog only: what is meant is what is named.
    format!(
        "{set} SET search_path = pg_catalog; \
         SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')"
    )
}

impl Control {
    /// The rows of one statement.
    pub async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.client.query(sql, parameters).await.map_err(|error| self.failed(sql, error))
    }

    /// The rows of statements without parameters, as text.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages = self.client.simple_query(sql).await.map_err(|error| self.failed(sql, error))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Runs statements; several in one text are one transaction.
    pub async fn batch_execute(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| self.failed(sql, error))
    }

    /// The same of statements that change tables or publications which were there a moment ago: that one has gone since is nobody's mistake.
    pub async fn alter(&self, sql: &str) -> Result<()> {
        let failed = |error| refusals::failed_alter(&self.address, &format!("run `{}`", shortened(sql)), error);
        self.client.batch_execute(sql).await.map_err(failed)
    }

    /// `COPY … TO STDOUT`: the bytes as they come, one piece per row as a rule. The server waits while nobody reads. To end it early, drop
    /// the session.
    pub async fn copy_out(&self, sql: &str) -> Result<CopyOut> {
        let failed = |error| refusals::failed_copy(&self.address, &format!("run `{}`", shortened(sql)), error);
        let stream = self.client.copy_out(sql).await.map_err(failed)?;
        Ok(CopyOut {
            stream: Box::pin(stream),
            address: Arc::clone(&self.address),
        })
    }

    /// Takes leave of the server, and waits until it is gone. A dropped session is cut instead.
    pub async fn close(self) {
        let Self {
            client, mut connection, ..
        } = self;
        drop(client);
        let _ = tokio::time::timeout(GOODBYE_MAX, &mut connection.task).await;
    }

    /// Cancelled when the session has ended, whoever ended it.
    pub(super) fn over(&self) -> CancellationToken {
        self.connection.over.clone()
    }

    fn failed(&self, sql: &str, error: tokio_postgres::Error) -> Error {
        refusals::failed(&self.address, &format!("run `{}`", shortened(sql)), error)
    }
}

/// The rows of a COPY, in the form that it asked for.
pub struct CopyOut {
    stream: Pin<Box<CopyOutStream>>,
    address: Arc<Address>,
}

impl CopyOut {
    /// The next bytes, or None at the end. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = self.stream.next().await.transpose();
        next.map_err(|error| refusals::failed_copy(&self.address, "copy rows", error))
    }
}

/// A statement as an error shows it: its beginning, on one line.
fn shortened(sql: &str) -> String {
    const SHOWN: usize = 160;
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

/// The task that moves a session's bytes. It ends with this value.
struct Connection {
    task: JoinHandle<()>,
    over: CancellationToken,
}

impl Connection {
    fn drive<C>(connection: C) -> Self
    where
        C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let over = CancellationToken::new();
        let says_so = over.clone().drop_guard();
        let task = tokio::spawn(async move {
            // An error of the connection reaches whoever waits for an answer.
            drop(connection.await);
            drop(says_so);
        });
        Self { task, over }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An unencrypted connection over which a password is never sent in clear: tokio-postgres would. The request for it is the first thing that
/// a server says; it is caught here, before anyone can answer.
struct Guarded {
    socket: Socket,
    first: [u8; Self::REQUEST.len()],
    seen: usize,
}

impl Guarded {
    /// AuthenticationCleartextPassword.
    const REQUEST: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

    fn new(socket: Socket) -> Self {
        // What does not leave the machine may be asked for anything.
        let seen = if socket.is_private() { Self::REQUEST.len() } else { 0 };
        Self {
            socket,
            first: [0; 9],
            seen,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(context, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        for (place, byte) in this.first.iter_mut().skip(this.seen).zip(read) {
            *place = *byte;
            this.seen += 1;
        }
        match this.first == Self::REQUEST {
            true => Poll::Ready(Err(std::io::Error::other(InClear))),
            false => polled,
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        pin!(&mut self.get_mut().socket).poll_write(context, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        pin!(&mut self.get_mut().socket).poll_flush(context)
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        pin!(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_shown_on_one_short_line() {
        assert_eq!(shortened("SELECT 1\n   FROM x"), "SELECT 1 FROM x");
        assert_eq!(shortened(&"ä".repeat(200)).chars().count(), 162);
    }
}
