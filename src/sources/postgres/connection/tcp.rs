//! A TCP stream that can be left alone for a moment.
//!
//! A server sends change by change, and each packet wakes whoever watches the stream, though nobody wants to read yet: in the profile of a
//! stream of small updates these wakes were most of the work, here and in the server. A stream that rests is not watched at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(super) enum Tcp {
    Watched(TcpStream),
    /// As it was left by whoever let it rest: the next read or write watches it again.
    Resting(std::net::TcpStream),
    /// It could not be left alone, or not be watched again.
    Lost,
}

impl Tcp {
    /// Lets time pass. Cancel safe.
    pub async fn rest(&mut self, time: Duration) {
        *self = match std::mem::replace(self, Tcp::Lost) {
            Tcp::Watched(stream) => stream.into_std().map_or(Tcp::Lost, Tcp::Resting),
            other => other,
        };
        tokio::time::sleep(time).await;
    }

    fn watched(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let this = self.get_mut();
        if let Tcp::Resting(_) = this
            && let Tcp::Resting(stream) = std::mem::replace(this, Tcp::Lost)
        {
            *this = Tcp::Watched(TcpStream::from_std(stream)?);
        }
        match this {
            Tcp::Watched(stream) => Ok(Pin::new(stream)),
            Tcp::Resting(_) | Tcp::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watched()?.poll_write(context, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_flush(context)
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_shutdown(context)
    }
}
