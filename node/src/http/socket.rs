//! The bytes of a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::line::Line;
use super::refusal::Refusal;

/// What is read and thrown away after the last answer, in bytes: a client that still sends hears of the answer only when
/// it has been let to send on.
const LINGER_BYTES: usize = 4 << 20;

/// A connection's stream, which reports to its line. To what is no request it answers itself: hyper does so without the
/// headers that pages of other origins need, and without a text.
pub(super) struct Socket {
    stream: TcpStream,
    line: Arc<Line>,
    /// The answer to what is no request, once there is one; then what is left of it.
    refusal: Option<Bytes>,
    lingered: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, line: Arc<Line>) -> Self {
        Self { stream, line, refusal: None, lingered: 0 }
    }

    /// Takes what hyper writes while no request is under way, which is always an answer of its own and the last one.
    /// Returns whether it did.
    fn refuse(&mut self, head: &[u8]) -> bool {
        if self.refusal.is_none() {
            if !self.line.is_waiting() {
                return false;
            }
            // After `HTTP/1.1 `.
            self.refusal = Some(Refusal::of_hyper(head.get(9..12).unwrap_or_default()).to_bytes());
            self.line.malformed();
        }
        true
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(rest) = &mut self.refusal else { return Poll::Ready(Ok(())) };
        while rest.has_remaining() {
            let written = report(&self.line, Pin::new(&mut self.stream).poll_write(cx, rest));
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => rest.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Passes on what came of writing, and tells the line.
fn report(line: &Line, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match &written {
        Poll::Ready(Ok(bytes)) => line.taken(*bytes),
        Poll::Pending => line.stalled(),
        Poll::Ready(Err(_)) => {}
    }
    written
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.line.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.refuse(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        report(&self.line, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.refuse(parts.first().map(|part| &**part).unwrap_or_default()) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        report(&self.line, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.line.flushed();
        Poll::Ready(Ok(()))
    }

    /// Ends writing; if the client may still be sending, goes on to read for a while: closing over unread bytes resets
    /// the connection, and the client may lose the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if !self.line.closing() {
            return Poll::Ready(Ok(()));
        }
        let mut scrap = [0; 8 << 10];
        while self.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.lingered += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
