//! Requests and answers on a stream: each is all the bytes of one direction, up to its bound.
//!
//! A stream that ends without an answer is a refusal.

use std::io;

use async_trait::async_trait;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;

use crate::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response};

/// Encodes and decodes, off the task of the network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codec;

/// Reads to the end. The memory grows with what arrives.
///
/// # Errors
/// The stream fails, ends at once (`UnexpectedEof`), or brings more than `max` bytes (`InvalidData`).
async fn read<T: AsyncRead + Unpin + Send>(stream: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    stream.take(limit).read_to_end(&mut bytes).await?;
    match bytes.len() {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length if length > max => Err(invalid(format!("a message of more than {max} bytes"))),
        _ => Ok(bytes),
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn write<T: AsyncWrite + Unpin + Send>(stream: &mut T, bytes: &[u8], max: usize) -> io::Result<()> {
    if bytes.len() > max {
        return Err(invalid(format!("a message of {} bytes, at most {max}", bytes.len())));
    }
    stream.write_all(bytes).await?;
    stream.close().await
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
        match read(stream, REQUEST_BYTES_MAX).await {
            Ok(bytes) => Ok(Request::decode(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        Response::decode(read(stream, RESPONSE_BYTES_MAX).await?.into()).map_err(invalid)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, request: Option<Request>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let request = request.ok_or_else(|| invalid("no request"))?;
        write(stream, &request.encode(), REQUEST_BYTES_MAX).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, stream: &mut T, response: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(stream, &response.encode(), RESPONSE_BYTES_MAX).await
    }
}

#[cfg(test)]
mod tests;
