//! The wire protocol's messages over a socket: a type byte, a length, and that many bytes.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::socket::Socket;

/// What is read at once. Messages are slices of what was read, so this is also what one small message can keep in memory.
const READ_BYTES: usize = 256 << 10;
/// The server's own limit of a message: MaxAllocSize. Anything longer is not this protocol.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// A server sends change by change; reading a moment later takes many at once, for a tenth of the work on both sides.
const NAP: Duration = Duration::from_millis(1);
/// Reads of this size show that enough has gathered: small packets fill a socket's buffer with little more.
const READ_WORTHWHILE: usize = 16 << 10;

pub(super) struct Message {
    pub tag: u8,
    pub body: Bytes,
}

pub(super) struct Wire {
    socket: Socket,
    buffer: BytesMut,
    /// What is not sent yet: all of a message goes before the next, even if whoever sent it was dropped on the way.
    outgoing: BytesMut,
    last_read: Option<(Instant, usize)>,
}

impl Wire {
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            buffer: BytesMut::with_capacity(READ_BYTES),
            outgoing: BytesMut::new(),
            last_read: None,
        }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next message. Cancel safe: what was read stays.
    pub async fn message(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    /// The next message, if all of it has been read.
    pub fn buffered(&mut self) -> io::Result<Option<Message>> {
        let Some((&tag, rest)) = self.buffer.split_first() else {
            return Ok(None);
        };
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        // The length counts itself, not the type.
        let length = u32::from_be_bytes(*length) as usize;
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            let what = format!("a message of {length} bytes: this is not what PostgreSQL sends");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if self.buffer.len() <= length {
            // So that a long message is not moved again and again while it arrives.
            self.buffer.reserve(length + 1 - self.buffer.len());
            return Ok(None);
        }
        let mut body = self.buffer.split_to(length + 1).freeze();
        body.advance(5);
        Ok(Some(Message { tag, body }))
    }

    /// Reads what has arrived, or waits for more. Cancel safe.
    pub async fn read(&mut self) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 8 {
            self.buffer.reserve(READ_BYTES);
        }
        let read = self.socket.read_buf(&mut self.buffer).await?;
        self.last_read = Some((Instant::now(), read));
        match read {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            _ => Ok(read),
        }
    }

    /// Waits a moment if little came just now, so that the next read takes more. What comes after a pause is read at once.
    pub async fn gather(&mut self) {
        if let Some((at, read)) = self.last_read.take()
            && read < READ_WORTHWHILE
            && at.elapsed() < NAP
        {
            self.socket.rest(NAP).await;
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.outgoing.extend_from_slice(bytes);
        while !self.outgoing.is_empty() {
            if self.socket.write_buf(&mut self.outgoing).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        // TLS may hold some back.
        self.socket.flush().await
    }

    /// Says goodbye, and waits until the server has closed its side too.
    pub async fn take_leave(&mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        if self.send(&out).await.is_ok() && self.socket.shutdown().await.is_ok() {
            while self.read().await.is_ok() {
                self.buffer.clear();
            }
        }
    }
}
