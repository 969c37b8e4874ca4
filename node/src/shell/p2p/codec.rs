//! Requests and answers on a stream: each is all the bytes of one direction, up to its bound.
//!
//! A stream that ends without an answer is a refusal.
//!
//! **Deadlines.** A stream on which nothing moves for [`Deadlines::idle`] has failed, in both directions, and so has one that
//! moves less than [`FLOOR`] bytes a second beyond that time. There is no bound on the whole but what follows from these:
//! an answer of 8 MB may take four and a half minutes over a thin line. A peer that drips so slowly holds one question of
//! this node; sync asks another peer for the same soon, and asks it last then. A peer that reads an answer so slowly holds
//! the answer's memory; what one peer may hold is bounded (`Limits::response_bytes`).

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use tokio::time::{Instant, timeout_at};

use crate::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response};

/// Bytes a second that a stream moves at least.
const FLOOR: u32 = 32 << 10;

/// Bytes that are read or written at once.
const PART: usize = 32 << 10;

/// How long a stream may take.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    began: Instant,
    idle: Duration,
}

impl Deadlines {
    fn new(idle: Duration) -> Self {
        Self { began: Instant::now(), idle }
    }

    /// Until when the next byte has to move, after so many.
    fn next(&self, moved: usize) -> Instant {
        (Instant::now() + self.idle).min(self.began + total(self.idle, moved))
    }
}

/// The longest that so many bytes may take.
pub(super) fn total(idle: Duration, bytes: usize) -> Duration {
    idle + Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / FLOOR
}

/// Encodes and decodes, off the task of the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec {
    /// How long nothing may move on a stream.
    pub(super) idle: Duration,
}

impl Codec {
    /// Reads to the end. The memory grows with what arrives.
    ///
    /// # Errors
    /// The stream fails, ends at once (`UnexpectedEof`), brings more than `max` bytes (`InvalidData`), or is too slow
    /// (`TimedOut`).
    async fn read<T: AsyncRead + Unpin + Send>(self, stream: &mut T, max: usize) -> io::Result<Vec<u8>> {
        let deadlines = Deadlines::new(self.idle);
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        let (mut stream, mut bytes, mut part) = (stream.take(limit), Vec::new(), vec![0; PART.min(max + 1)]);
        loop {
            let count = timeout_at(deadlines.next(bytes.len()), stream.read(&mut part)).await??;
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&part[..count]);
        }
        match bytes.len() {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length if length > max => Err(invalid(format!("a message of more than {max} bytes"))),
            _ => Ok(bytes),
        }
    }

    /// Writes it all, and ends this direction.
    ///
    /// # Errors
    /// The stream fails or is too slow (`TimedOut`).
    async fn write<T: AsyncWrite + Unpin + Send>(self, stream: &mut T, bytes: &[u8], max: usize) -> io::Result<()> {
        if bytes.len() > max {
            return Err(invalid(format!("a message of {} bytes, at most {max}", bytes.len())));
        }
        let deadlines = Deadlines::new(self.idle);
        let mut written = 0;
        while written < bytes.len() {
            let part = &bytes[written..bytes.len().min(written + PART)];
            match timeout_at(deadlines.next(written), stream.write(part)).await?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => written += count,
            }
        }
        timeout_at(deadlines.next(written), stream.close()).await?
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[async_trait]
impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    /// Nothing, if what came is malformed: the swarm does not hear of a request that cannot be read.
    type Request = Option<Request>;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Option<Request>>
    where
        T: AsyncRead + Unpin + Send,
    {
        match self.read(stream, REQUEST_BYTES_MAX).await {
            Ok(bytes) => Ok(Request::decode(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        Response::decode(self.read(stream, RESPONSE_BYTES_MAX).await?.into()).map_err(invalid)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, request: Option<Request>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let request = request.ok_or_else(|| invalid("no request"))?;
        self.write(stream, &request.encode(), REQUEST_BYTES_MAX).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, stream: &mut T, response: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(stream, &response.encode(), RESPONSE_BYTES_MAX).await
    }
}

#[cfg(test)]
mod tests;
