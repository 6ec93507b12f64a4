//! The start of a replication session: startup message and authentication, as libpq does it with `channel_binding=prefer`.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;

use super::refusals::{self, Refusal};
use super::wire::{Message, Wire};
use super::{Address, STARTUP_OPTIONS};
use crate::error::{Error, Result};

/// What an authentication request asks for: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
mod request {
    pub const OK: u32 = 0;
    pub const CLEARTEXT: u32 = 3;
    pub const MD5: u32 = 5;
    pub const SASL: u32 = 10;
    pub const SASL_CONTINUE: u32 = 11;
    pub const SASL_FINAL: u32 = 12;
}

/// Logs in as a walsender of the address's database; afterwards the server takes commands. Returns the process that it says it is.
pub(super) async fn log_in(wire: &mut Wire, address: &Address) -> Result<Option<u32>> {
    let parameters = [
        ("user", address.user.as_str()),
        ("database", address.database.as_str()),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("options", STARTUP_OPTIONS),
        ("application_name", address.application_name.as_str()),
    ];
    say(wire, address, |out| frontend::startup_message(parameters, out)).await?;
    let mut scram = None;
    loop {
        let Message { tag, mut body } = hear(wire, address).await?;
        match tag {
            b'R' => {
                let kind = body.try_get_u32().map_err(|_| garbled(address))?;
                if answer(wire, address, kind, body, &mut scram).await? {
                    break;
                }
            }
            b'E' => return Err(refusals::refused(address, "log in", &Refusal::parse(&body))),
            b'N' => {}
            _ => return Err(garbled(address)),
        }
    }
    // Parameters and a key to cancel with follow; the last word is that it is ready.
    let mut process = None;
    loop {
        let Message { tag, mut body } = hear(wire, address).await?;
        match tag {
            b'K' => process = body.try_get_u32().ok(),
            b'Z' => return Ok(process),
            b'E' => return Err(refusals::refused(address, "log in", &Refusal::parse(&body))),
            _ => {}
        }
    }
}

/// Answers one request. True: the server is content.
async fn answer(wire: &mut Wire, address: &Address, kind: u32, body: Bytes, scram: &mut Option<sasl::ScramSha256>) -> Result<bool> {
    match kind {
        request::OK if scram.is_some() => return Err(impostor(address)),
        request::OK => return Ok(true),
        request::CLEARTEXT => {
            let password = password(address)?;
            if !wire.socket().is_private() {
                return Err(refusals::in_clear(address));
            }
            say(wire, address, |out| frontend::password_message(password.as_bytes(), out)).await?;
        }
        request::MD5 => {
            let password = password(address)?;
            let salt = body.first_chunk::<4>().ok_or_else(|| garbled(address))?;
            let hash = md5_hash(address.user.as_bytes(), password.as_bytes(), *salt);
            say(wire, address, |out| frontend::password_message(hash.as_bytes(), out)).await?;
        }
        request::SASL => {
            let password = password(address)?;
            let (mechanism, binding) = mechanism(&body, wire.socket().end_point()).ok_or_else(|| {
                Error::config(
                    "postgres_denied",
                    format!("Cannot log in on {address}: the server knows no way to log in that we know"),
                )
            })?;
            let begun = sasl::ScramSha256::new(password.as_bytes(), binding);
            say(wire, address, |out| {
                frontend::sasl_initial_response(mechanism, begun.message(), out)
            })
            .await?;
            *scram = Some(begun);
        }
        request::SASL_CONTINUE => {
            let scram = scram.as_mut().ok_or_else(|| garbled(address))?;
            scram.update(&body).map_err(|error| garbled(address).because(error))?;
            say(wire, address, |out| frontend::sasl_response(scram.message(), out)).await?;
        }
        request::SASL_FINAL => {
            // The server proves that it knows the password too.
            let mut scram = scram.take().ok_or_else(|| garbled(address))?;
            scram.finish(&body).map_err(|error| impostor(address).because(error))?;
        }
        _ => {
            let what = format!(
                "Cannot log in on {address}: the server asks for Kerberos, GSSAPI or another way that we do not know (request {kind})"
            );
            return Err(Error::config("postgres_denied", what));
        }
    }
    Ok(false)
}

/// The best of the offered mechanisms, tied to the server's certificate if that can be.
fn mechanism(offered: &[u8], end_point: Option<Vec<u8>>) -> Option<(&'static str, sasl::ChannelBinding)> {
    let offers = |name: &str| offered.split(|byte| *byte == 0).any(|one| one == name.as_bytes());
    match end_point {
        Some(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => {
            Some((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
        }
        // "We could, but you do not": so that a server that does notices who took its offer away.
        Some(_) if offers(sasl::SCRAM_SHA_256) => Some((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        None if offers(sasl::SCRAM_SHA_256) => Some((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        _ => None,
    }
}

fn password(address: &Address) -> Result<String> {
    address.secret()?.ok_or_else(|| refusals::without_password(address))
}

async fn say(wire: &mut Wire, address: &Address, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
    let mut out = BytesMut::new();
    // Fails for a text with a zero byte in it.
    write(&mut out).map_err(|error| Error::config("postgres_refused", format!("Cannot log in on {address}")).because(error))?;
    wire.send(&out).await.map_err(|error| refusals::broken(address, "log in", error))
}

async fn hear(wire: &mut Wire, address: &Address) -> Result<Message> {
    wire.message().await.map_err(|error| refusals::broken(address, "log in", error))
}

fn garbled(address: &Address) -> Error {
    Error::config(
        "postgres_refused",
        format!("Cannot log in on {address}: the answers are not PostgreSQL's"),
    )
}

fn impostor(address: &Address) -> Error {
    Error::config(
        "postgres_denied",
        format!("Cannot log in on {address}: the server does not prove that it knows the password"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_tied_to_the_certificate_where_both_sides_can() {
        let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let plain = b"SCRAM-SHA-256\0\0";
        let name = |offered: &[u8], end_point: Option<Vec<u8>>| mechanism(offered, end_point).map(|(name, _)| name);
        assert_eq!(name(both, Some(vec![1])), Some("SCRAM-SHA-256-PLUS"));
        assert_eq!(name(both, None), Some("SCRAM-SHA-256"));
        assert_eq!(name(plain, Some(vec![1])), Some("SCRAM-SHA-256"));
        assert_eq!(name(b"OAUTHBEARER\0\0", None), None);
    }
}
