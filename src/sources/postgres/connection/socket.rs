//! A connected socket: TCP, TCP under TLS, or a unix socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tcp::Tcp;
use super::{Address, refusals, tls};
use crate::error::{Error, Result};

/// A connection without traffic is tried after this time, and given up after three tries: a peer that is gone is noticed within half a
/// minute, and firewalls that forget idle connections do not forget this one.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TRIES: u32 = 3;

pub(super) enum Socket {
    Tcp(Tcp),
    Tls(Box<TlsStream<Tcp>>),
    Unix(UnixStream),
}

impl Socket {
    /// Connects, without TLS so far.
    pub async fn connect(address: &Address) -> Result<Socket> {
        let socket = if address.is_unix() {
            let path = format!("{}/.s.PGSQL.{}", address.host, address.port);
            UnixStream::connect(path).await.map(Socket::Unix)
        } else {
            TcpStream::connect((address.host.as_str(), address.port)).await.and_then(prepared)
        };
        socket.map_err(|error| refusals::broken(address, "connect", error))
    }

    /// Asks the server for TLS and verifies whom it is spoken to.
    pub async fn secured(self, address: &Address, asked: &super::Tls) -> Result<Socket> {
        let Socket::Tcp(mut tcp) = self else { return Ok(self) };
        let config = Arc::new(asked.client_config()?);
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        let answer = async {
            tcp.write_all(&request).await?;
            // One byte and not more: what a man in between adds must not be taken for the server's.
            tcp.read_u8().await
        };
        match answer.await.map_err(|error| refusals::broken(address, "ask for TLS", error))? {
            b'S' => {}
            _ => return Err(refusals::without_tls(address)),
        }
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| Error::config("postgres_tls", format!("`{}` is no host's name", address.host)).because(error))?;
        let secured = TlsConnector::from(config).connect(name, tcp).await;
        secured
            .map(|stream| Socket::Tls(Box::new(stream)))
            .map_err(|error| refusals::broken(address, "set up TLS", error))
    }

    /// Lets time pass in which nobody wants to read. Cancel safe.
    pub async fn rest(&mut self, time: Duration) {
        match self {
            Socket::Tcp(tcp) => tcp.rest(time).await,
            Socket::Tls(stream) => stream.get_mut().0.rest(time).await,
            Socket::Unix(_) => tokio::time::sleep(time).await,
        }
    }

    /// Whether a password may go through it in clear.
    pub fn is_private(&self) -> bool {
        !matches!(self, Socket::Tcp(_))
    }

    /// What the login can be tied to.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        let Socket::Tls(stream) = self else { return None };
        let (_, session) = stream.get_ref();
        session.peer_certificates().and_then(<[_]>::first).and_then(tls::end_point)
    }
}

fn prepared(stream: TcpStream) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(Socket::Tcp(Tcp::Watched(stream)))
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
