//! What the server refuses, and what breaks on the way, as errors that say who acts and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::{Address, identifier, tls};
use crate::error::{Error, Kind};

/// The code of an error within the server, where nobody has asked for what cannot be.
pub const INTERNAL: &str = "postgres_internal";
/// And of what stands between us and the server.
pub const POOLER: &str = "postgres_pooler";
/// And where all slots are in use.
pub const SLOTS: &str = "postgres_slots";

/// An ErrorResponse: <https://www.postgresql.org/docs/current/protocol-error-fields.html>.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// SQLSTATE: five characters.
    pub code: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl Refusal {
    /// Fields are a type byte and a text that ends with a zero byte each.
    pub fn parse(body: &[u8]) -> Self {
        let mut refusal = Refusal::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            let text = || String::from_utf8_lossy(text).into_owned();
            match kind {
                b'C' => refusal.code = text(),
                b'M' => refusal.message = text(),
                b'D' => refusal.detail = text(),
                b'H' => refusal.hint = text(),
                _ => {}
            }
        }
        refusal
    }

    fn of(error: &tokio_postgres::error::DbError) -> Self {
        Refusal {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().unwrap_or_default().to_owned(),
            hint: error.hint().unwrap_or_default().to_owned(),
        }
    }
}

/// `message (detail; hint)`
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (self.detail.is_empty(), self.hint.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => write!(f, " ({})", self.detail.trim_end_matches('.')),
            (true, false) => write!(f, " ({})", self.hint.trim_end_matches('.')),
            (false, false) => write!(f, " ({} {})", self.detail, self.hint.trim_end_matches('.')),
        }
    }
}

impl Refusal {
    /// Whether a mere warning means that changes are left out: 18 warns of a missing publication, and sends none of its changes.
    pub fn leaves_changes_out(&self) -> bool {
        self.code == "55000"
    }
}

/// The server said no. `doing` completes "cannot …".
pub(super) fn refused(address: &Address, doing: &str, refusal: &Refusal) -> Error {
    let (kind, code, fix) = verdict(address, refusal);
    let space = if fix.is_empty() { "" } else { ". " };
    Error::new(kind, code, format!("Cannot {doing} on {address}: {refusal}{space}{fix}"))
}

/// Who acts, the error's code, and the fix; where the server's own words say it all, nothing is added.
///
/// The codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn verdict(address: &Address, refusal: &Refusal) -> (Kind, &'static str, String) {
    let says = |words: &str| refusal.message.contains(words) || refusal.detail.contains(words);
    let user = identifier(&address.user);
    match refusal.code.as_str() {
        // Starting up, shutting down, recovering; ended by an administrator, by a crash, by a limit on time.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => (Kind::Transient, "postgres_unreachable", String::new()),
        "08P01" if says("startup parameter") => (
            Kind::Config,
            POOLER,
            "Connect to the server itself: a connection pooler stands in between".to_owned(),
        ),
        code if code.starts_with("08") => (Kind::Transient, "postgres_unreachable", String::new()),
        "28P01" => denied("Check the user and the password"),
        "28000" if says("pg_hba.conf") => {
            let tls = match address.tls {
                None if !address.is_unix() => "Set `tls = {}`, for a line may take encrypted connections only (hostssl). Or: ",
                _ => "",
            };
            denied(&format!(
                "{tls}Add a line for user {}, database {} and our address to pg_hba.conf, and reload it (a replication slot's connection needs the \
                 line of its database, not one of `replication`)",
                address.user, address.database
            ))
        }
        "28000" => denied("Check the user and how it may log in (pg_hba.conf)"),
        // 14 and 15 say "must be superuser or replication role", later versions "permission denied to start WAL sender".
        "42501" if says("replication") || says("WAL sender") || says("REPLICATION") => denied(&format!(
            "Run: ALTER ROLE {user} REPLICATION (on Amazon RDS: GRANT rds_replication TO {user})"
        )),
        "42501" => denied(&format!("Grant it to {user}")),
        "3D000" => (Kind::Config, "postgres_database", "Check the database's name".to_owned()),
        // Another process may have taken one for a copy, and gives it back.
        "53400" => (
            Kind::Transient,
            SLOTS,
            "Drop a slot that nobody reads, or raise max_replication_slots and restart the server".to_owned(),
        ),
        "53300" if says("max_wal_senders") => (
            Kind::Transient,
            "postgres_busy",
            "All senders are taken: end one, or raise max_wal_senders and restart the server".to_owned(),
        ),
        "53300" => (Kind::Transient, "postgres_busy", String::new()),
        "55000" if says("wal_level") => (
            Kind::Config,
            "postgres_wal_level",
            "Run: ALTER SYSTEM SET wal_level = 'logical', and restart the server".to_owned(),
        ),
        // 14 to 17 "cannot read from logical replication slot", 18 "can no longer access replication slot".
        "55000" if says("invalidated") || says("can no longer") || says("no longer be") => lost(),
        "58P01" if says("has already been removed") => lost(),
        "55006" => (
            Kind::Transient,
            "slot_active",
            "Another process reads it: end that one, or use a slot of your own".to_owned(),
        ),
        // Since 18 a stream without its publication goes on with a warning, and without the publication's changes.
        "42704" | "55000" if says("publication") && (says("does not exist") || says("skipped loading")) => (
            Kind::Config,
            "publication_missing",
            "Create it, if it is not there, and start again: its tables are copied again where changes of them are missing. If that is refused as \
             well, the slot has changes of before the publication to read: drop it, so that it is made anew"
                .to_owned(),
        ),
        // The session that exported it has ended: the server restarts, or somebody has ended the session. Each of these is of some version.
        "22023" | "42704" | "55000" if says("snapshot identifier") || says("snapshot \"") || says("import the requested snapshot") => {
            (Kind::Transient, "postgres_error", "It is begun anew".to_owned())
        }
        "42704" if says("replication slot") => (
            Kind::Config,
            "slot_missing",
            "Changes since it was dropped cannot be had from it: a new slot needs a new copy of the tables".to_owned(),
        ),
        // Conflicts of the moment: deadlocks, serialization, locks, cancelled statements, resources.
        "55P03" => (
            Kind::Transient,
            "table_locked",
            "Another session has locked a table for long: it is tried again; pg_locks and pg_stat_activity tell who it is".to_owned(),
        ),
        // What was missing is there by now: another program, which began at the same moment, has made it.
        "42710" | "23505" => (
            Kind::Transient,
            "postgres_error",
            "Another session has made it meanwhile: it is looked at anew".to_owned(),
        ),
        "57014" => (Kind::Transient, "postgres_error", String::new()),
        code if ["40", "53", "58"].iter().any(|class| code.starts_with(class)) => (Kind::Transient, "postgres_error", String::new()),
        code if code.starts_with("XX") => (Kind::Transient, INTERNAL, "That is an error within the server".to_owned()),
        // What is unknown is not tried again and again.
        _ => (Kind::Config, "postgres_refused", String::new()),
    }
}

fn denied(fix: &str) -> (Kind, &'static str, String) {
    (Kind::Config, "postgres_denied", fix.to_owned())
}

fn lost() -> (Kind, &'static str, String) {
    let fix = "The server has given up what the slot had still to read, so changes are missing: drop the slot, and copy the tables anew. Before that, \
               alluvium check says what keeps it from happening again";
    (Kind::Config, "slot_lost", fix.to_owned())
}

/// The connection broke, or could not be made.
pub(super) fn broken(address: &Address, doing: &str, error: io::Error) -> Error {
    let tls_fault = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .and_then(tls::fault);
    if let Some(fault) = tls_fault {
        return Error::config("postgres_tls", format!("Cannot {doing} on {address}: {fault}")).because(error);
    }
    let what = format!("Cannot {doing} on {address}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::config("postgres_denied", what).because(error),
        io::ErrorKind::InvalidData => Error::config("postgres_refused", what).because(error),
        _ => Error::transient("postgres_unreachable", what).because(error),
    }
}

pub(super) fn without_tls(address: &Address) -> Error {
    let what =
        format!("Cannot connect to {address}: the server offers no TLS. Set `ssl = on` there with a certificate, or leave out `tls` here");
    Error::config("postgres_tls", what)
}

pub(super) fn without_password(address: &Address) -> Error {
    Error::config(
        "postgres_denied",
        format!("Cannot log in on {address}: the server asks for a password, and none is given"),
    )
}

pub(super) fn in_clear(address: &Address) -> Error {
    Error::config(
        "postgres_denied",
        format!(
            "Cannot log in on {address}: the server asks for the password in clear, and the connection is not encrypted. Turn on `tls`, or let \
             pg_hba.conf say scram-sha-256"
        ),
    )
}

pub(super) fn too_late(address: &Address) -> Error {
    let what = format!("Cannot connect to {address}: no answer within {:?}", address.connect_timeout);
    Error::transient("postgres_unreachable", what)
}

/// What tokio-postgres reports of a COPY.
pub(super) fn failed_copy(address: &Address, doing: &str, error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(refusal) => refused_copy(address, doing, &Refusal::of(refusal)),
        None => failed(address, doing, error),
    }
}

/// A COPY reads what was there when it was made, and its rights were looked at.
fn refused_copy(address: &Address, doing: &str, refusal: &Refusal) -> Error {
    let what = format!("Cannot {doing} on {address}: {refusal}");
    match refusal.code.as_str() {
        // A schema, a table or a column was dropped or renamed since.
        "3F000" | "42P01" | "42703" => Error::transient("table_changed", what),
        "42501" => Error::config(
            "postgres_denied",
            format!("{what}. alluvium check prints the statement that grants it"),
        ),
        _ => refused(address, doing, refusal),
    }
}

/// What tokio-postgres reports of a statement whose tables and publication were there a moment ago.
pub(super) fn failed_alter(address: &Address, doing: &str, error: tokio_postgres::Error) -> Error {
    match error.as_db_error().map(Refusal::of) {
        // A schema, a table or the publication was dropped or renamed since.
        Some(refusal) if ["3F000", "42P01", "42704"].contains(&refusal.code.as_str()) => {
            Error::transient("table_changed", format!("Cannot {doing} on {address}: {refusal}"))
        }
        _ => failed(address, doing, error),
    }
}

/// What tokio-postgres reports.
pub(super) fn failed(address: &Address, doing: &str, error: tokio_postgres::Error) -> Error {
    if let Some(refusal) = error.as_db_error() {
        return refused(address, doing, &Refusal::of(refusal));
    }
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if let Some(io) = io {
        if io.get_ref().is_some_and(|inner| inner.is::<InClear>()) {
            return in_clear(address);
        }
        let fault = io
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .and_then(tls::fault);
        return match fault {
            Some(fault) => Error::config("postgres_tls", format!("Cannot {doing} on {address}: {fault}")).because(error),
            None => Error::transient("postgres_unreachable", format!("Cannot {doing} on {address}")).because(error),
        };
    }
    // Its kinds are private; their texts are not.
    let what = format!("Cannot {doing} on {address}");
    match error.to_string().as_str() {
        "error performing TLS handshake" => without_tls(address),
        "invalid configuration" => without_password(address),
        "authentication error" => Error::config("postgres_denied", what).because(error),
        _ if error.is_closed() => Error::transient("postgres_unreachable", what).because(error),
        _ => Error::bug(what).because(error),
    }
}

/// The mark of a login that was broken off because the server asked for the password in clear.
#[derive(Debug)]
pub(super) struct InClear;

impl fmt::Display for InClear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server asks for the password in clear")
    }
}

impl StdError for InClear {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, message: &str, detail: &str) -> Error {
        let refusal = Refusal {
            code: code.to_owned(),
            message: message.to_owned(),
            detail: detail.to_owned(),
            hint: String::new(),
        };
        refused(&Address::new("db", "ann", "shop"), "start", &refusal)
    }

    #[test]
    fn each_refusal_names_who_acts() {
        let cases = [
            (
                "57P03",
                "the database system is starting up",
                "",
                Kind::Transient,
                "postgres_unreachable",
                69,
            ),
            (
                "28P01",
                "password authentication failed for user \"ann\"",
                "",
                Kind::Config,
                "postgres_denied",
                77,
            ),
            (
                "28000",
                "no pg_hba.conf entry for host \"10.0.0.1\"",
                "",
                Kind::Config,
                "postgres_denied",
                77,
            ),
            (
                "42501",
                "must be superuser or replication role to start walsender",
                "",
                Kind::Config,
                "postgres_denied",
                77,
            ),
            (
                "53400",
                "all replication slots are in use",
                "",
                Kind::Transient,
                "postgres_slots",
                75,
            ),
            (
                "55000",
                "logical decoding requires wal_level >= logical",
                "",
                Kind::Config,
                "postgres_wal_level",
                78,
            ),
            (
                "55006",
                "replication slot \"s\" is active for PID 77",
                "",
                Kind::Transient,
                "slot_active",
                75,
            ),
            (
                "25P03",
                "terminating connection due to idle-in-transaction timeout",
                "",
                Kind::Transient,
                "postgres_unreachable",
                69,
            ),
            (
                "22023",
                "invalid snapshot identifier: \"00000006-00000011-1\"",
                "",
                Kind::Transient,
                "postgres_error",
                75,
            ),
            (
                "42704",
                "snapshot \"00000006-00000011-1\" does not exist",
                "",
                Kind::Transient,
                "postgres_error",
                75,
            ),
            (
                "55000",
                "could not import the requested snapshot",
                "The source process with PID 77 is not running anymore.",
                Kind::Transient,
                "postgres_error",
                75,
            ),
            (
                "42704",
                "replication slot \"s\" does not exist",
                "",
                Kind::Config,
                "slot_missing",
                78,
            ),
            (
                "42704",
                "publication \"p\" does not exist",
                "",
                Kind::Config,
                "publication_missing",
                78,
            ),
            (
                "55000",
                "skipped loading publication \"p\"",
                "",
                Kind::Config,
                "publication_missing",
                78,
            ),
            (
                "42710",
                "publication \"p\" already exists",
                "",
                Kind::Transient,
                "postgres_error",
                75,
            ),
            (
                "23505",
                "duplicate key value violates unique constraint \"pg_publication_pubname_index\"",
                "",
                Kind::Transient,
                "postgres_error",
                75,
            ),
            ("XX000", "something", "", Kind::Transient, INTERNAL, 75),
            ("0A000", "something", "", Kind::Config, "postgres_refused", 78),
            (
                "55000",
                "can no longer access replication slot \"s\"",
                "This replication slot has been invalidated due to \"wal_removed\".",
                Kind::Config,
                "slot_lost",
                78,
            ),
        ];
        for (sqlstate, message, detail, kind, code, exit) in cases {
            let error = error(sqlstate, message, detail);
            assert_eq!(
                (error.kind, error.code, error.exit_code()),
                (kind, code, exit),
                "{sqlstate} {message}"
            );
            assert!(
                error.to_string().contains(message) && error.to_string().contains("ann@db:5432/shop"),
                "{error}"
            );
        }
    }

    #[test]
    fn where_no_line_of_pg_hba_fits_tls_may_be_what_lacks() {
        let message = "no pg_hba.conf entry for host \"10.0.0.1\", user \"ann\", database \"shop\", no encryption";
        let said = error("28000", message, "").to_string();
        assert!(
            said.contains("Set `tls = {}`") && said.contains("Add a line for user ann"),
            "{said}"
        );
    }

    #[test]
    fn what_a_copy_does_not_find_any_more_is_told_from_what_it_may_not_read() {
        let cases = [
            ("3F000", Kind::Transient, "table_changed"),
            ("42P01", Kind::Transient, "table_changed"),
            ("42703", Kind::Transient, "table_changed"),
            ("42501", Kind::Config, "postgres_denied"),
            ("57P01", Kind::Transient, "postgres_unreachable"),
        ];
        for (sqlstate, kind, code) in cases {
            let refusal = Refusal {
                code: sqlstate.to_owned(),
                ..Refusal::default()
            };
            let error = refused_copy(&Address::new("db", "ann", "shop"), "copy", &refusal);
            assert_eq!((error.kind, error.code), (kind, code), "{sqlstate}");
        }
    }

    #[test]
    fn a_response_is_read_whatever_fields_it_has() {
        let refusal = Refusal::parse(b"SFATAL\0VFATAL\0C28P01\0Mno\0Hhint.\0Fauth.c\0L330\0\0");
        assert_eq!((refusal.code.as_str(), refusal.to_string().as_str()), ("28P01", "no (hint)"));
        assert_eq!(Refusal::parse(b"").message, "");
        assert_eq!(Refusal::parse(b"Mcut").message, "cut");
    }
}
