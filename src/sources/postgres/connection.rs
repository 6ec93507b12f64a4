//! Connections to the server: [`control()`] for queries and COPY (tokio-postgres), and [`Replication`] for slots and their streams (our own, on
//! postgres-protocol, because tokio-postgres has no replication protocol).
//!
//! No other place knows these libraries. A control session's connection task and a stream's pump live and end with the value that stands for
//! them. Beside these, only the workers of a copy (`snapshot.rs`) and the look at how far the slot is (`progress.rs`) are tasks of their own:
//! they end with the `JoinSet` that whoever began them keeps.

mod control;
mod login;
mod pump;
mod quote;
mod refusals;
mod replication;
mod socket;
mod stream;
mod tcp;
mod tls;
mod wire;

use std::fmt;
use std::time::Duration;

pub use control::{Control, CopyOut, control};
pub use quote::{identifier, literal, qualified};
pub use refusals::{INTERNAL, POOLER, SLOTS};
pub use replication::Replication;
pub use stream::{Frame, Frames, Stream};
pub use tls::Tls;
pub use tokio_postgres::Row;
pub use tokio_postgres::types::ToSql;

use crate::config::Secret;

/// What a server has to take leave; later the connection is cut.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Where the server is, and as whom to come. Printing it shows no secret: a password is a reference, read at each connect.
#[derive(Clone, Debug)]
pub struct Address {
    /// A name, an IP address, or the folder of a unix socket (it begins with `/`).
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub password: Option<Secret>,
    /// Verified to the host's name whenever it is on. Unix sockets have none.
    pub tls: Option<Tls>,
    /// How the session is named in pg_stat_activity and in the server's log.
    pub application_name: String,
    /// How long a connect may take, with TLS and login.
    pub connect_timeout: Duration,
    /// How long a server may be silent on a stream, although it is asked for a word every second.
    pub silence_max: Duration,
}

impl Address {
    /// The usual port and times, without password and TLS.
    pub fn new(host: impl Into<String>, user: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 5432,
            user: user.into(),
            database: database.into(),
            password: None,
            tls: None,
            application_name: "alluvium".to_owned(),
            // Longer than a lost SYN and its first repetitions (1 + 2 + 4 s).
            connect_timeout: Duration::from_secs(10),
            // As long as the server itself waits for us by default (wal_sender_timeout).
            silence_max: Duration::from_secs(60),
        }
    }

    fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    fn secret(&self) -> crate::error::Result<Option<String>> {
        self.password.as_ref().map(Secret::reveal).transpose()
    }
}

/// `user@host:port/database`, as errors name it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// What every session of ours is set to, so that values look the same whatever the server, the database or the role is set to: names and
/// values of settings.
///
/// No time limit of the server's ends what takes long by nature. Row security must refuse to read a table partly, rather than hide rows.
const SESSION: &[(&str, &str)] = &[
    ("datestyle", "ISO, MDY"),
    ("timezone", "UTC"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("statement_timeout", "0"),
    ("lock_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "0"),
    ("row_security", "off"),
    // What we write was asked for.
    ("default_transaction_read_only", "off"),
];

/// For sessions that read rows. A server that knows no encoding (SQL_ASCII) keeps any bytes, and refuses the whole COPY or stream where some
/// are no UTF-8: there they come as they are, and only the row that has them is refused.
pub(super) const BYTES_AS_THEY_ARE: &str =
    "SELECT set_config('client_encoding', 'SQL_ASCII', false) WHERE current_setting('server_encoding') = 'SQL_ASCII'";

/// The startup parameter `options` of every session of ours: without it, a limit that the database or the role is set to could end the very
/// statements that lift it. The rest is set by statements, for a proxy may swallow this parameter unsaid.
const STARTUP_OPTIONS: &str = "-c statement_timeout=0";
