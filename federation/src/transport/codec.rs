//! Frames: messages of one member after each other, each after its length (u32, little endian). The answer is one byte.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::{StreamProtocol, request_response};

use super::FRAME_BYTES_MAX;
use crate::session::MESSAGE_BYTES_MAX;

/// Bytes of a length.
const LENGTH_BYTES: usize = 4;

/// The messages of a frame; None if it is none.
pub(super) fn decode(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    let mut rest = frame;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if length == 0 || length > MESSAGE_BYTES_MAX {
            return None;
        }
        let (message, after) = after.split_at_checked(length)?;
        messages.push(message.to_vec());
        rest = after;
    }
    Some(messages)
}

/// A frame of as many of these messages as fit, which are taken.
pub(super) fn encode(queue: &mut std::collections::VecDeque<Bytes>) -> Vec<u8> {
    let mut frame = Vec::new();
    while let Some(message) = queue.front() {
        if frame.len() + LENGTH_BYTES + message.len() > FRAME_BYTES_MAX {
            break;
        }
        let length = u32::try_from(message.len()).expect("messages are bounded");
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(message);
        queue.pop_front();
    }
    frame
}

/// Reads and writes frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codec;

/// Reads to the end. The memory grows with what arrives.
async fn read<T: AsyncRead + Unpin + Send>(stream: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    stream.take(limit).read_to_end(&mut bytes).await?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of more than {max} bytes")));
    }
    Ok(bytes)
}

#[async_trait]
impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(stream, FRAME_BYTES_MAX).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(stream, 1).await.map(|_| ())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, frame: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&frame).await?;
        stream.close().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, stream: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&[1]).await?;
        stream.close().await
    }
}
