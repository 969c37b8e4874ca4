//! Peers tell each other of peers: a request without content, and a list that is read to its end or not at all.
//!
//! What a list says is hearsay, and goes to the book under the address of who said it. The same form of a peer is in the
//! book's file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use async_trait::async_trait;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{PeerId, StreamProtocol, request_response};

use super::book::ADDRESSES_MAX;
use crate::bucket::Rate;

/// Peers in one list.
pub(super) const LIST_MAX: usize = 32;

/// Lists that a peer may ask for at once, and then in a second.
pub(super) const LISTS: Rate = Rate { per_second: 1, burst: 16 };

/// Bytes of a peer's name: what libp2p's are at most, with room.
const NAME_BYTES_MAX: usize = 64;

/// Bytes of an address: its family, its longest form, its port.
const ADDRESS_BYTES_MAX: usize = 1 + 16 + 2;

/// Bytes of one peer.
pub(super) const PEER_BYTES_MAX: usize = 1 + NAME_BYTES_MAX + 1 + ADDRESSES_MAX * ADDRESS_BYTES_MAX;

/// Bytes of a list: 4,545.
const LIST_BYTES_MAX: usize = 1 + LIST_MAX * PEER_BYTES_MAX;

/// The whole request. One byte, since an empty stream is a broken one.
const REQUEST: [u8; 1] = [1];

/// A peer, and where it is.
pub(super) type Listed = (PeerId, Vec<(IpAddr, u16)>);

/// Bytes that are not of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of peers")]
pub(super) struct Malformed;

/// Reads bytes from the front.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next bytes, as many as the result has.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// An IP address.
    pub(super) fn ip(&mut self) -> Result<IpAddr, Malformed> {
        match self.byte()? {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err(Malformed),
        }
    }

    /// A peer with one address at least.
    pub(super) fn peer(&mut self) -> Result<Listed, Malformed> {
        let length = usize::from(self.byte()?);
        if length > NAME_BYTES_MAX {
            return Err(Malformed);
        }
        let peer = PeerId::from_bytes(self.take(length)?).map_err(|_| Malformed)?;
        let count = usize::from(self.byte()?);
        if !(1..=ADDRESSES_MAX).contains(&count) {
            return Err(Malformed);
        }
        let address = |_| Ok((self.ip()?, u16::from_be_bytes(self.array()?)));
        Ok((peer, (0..count).map(address).collect::<Result<_, _>>()?))
    }
}

/// Writes an IP address.
pub(super) fn put_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend(ip.octets());
        }
    }
}

/// Writes a peer with its first [`ADDRESSES_MAX`] addresses.
pub(super) fn put_peer(bytes: &mut Vec<u8>, peer: &PeerId, addresses: &[(IpAddr, u16)]) {
    let (name, addresses) = (peer.to_bytes(), &addresses[..addresses.len().min(ADDRESSES_MAX)]);
    bytes.push(u8::try_from(name.len()).expect("a peer's name is a hash of 42 bytes at most"));
    bytes.extend(name);
    bytes.push(u8::try_from(addresses.len()).expect("a peer has few addresses"));
    for (ip, port) in addresses {
        put_ip(bytes, *ip);
        bytes.extend(port.to_be_bytes());
    }
}

/// The bytes of the first [`LIST_MAX`] of these peers.
fn encode(list: &[Listed]) -> Vec<u8> {
    let list = &list[..list.len().min(LIST_MAX)];
    let mut bytes = vec![u8::try_from(list.len()).expect("a list is short")];
    list.iter().for_each(|(peer, addresses)| put_peer(&mut bytes, peer, addresses));
    bytes
}

/// The peers in these bytes, all of which are needed.
fn decode(bytes: &[u8]) -> Result<Vec<Listed>, Malformed> {
    let mut reader = Reader(bytes);
    let count = usize::from(reader.byte()?);
    if count > LIST_MAX {
        return Err(Malformed);
    }
    let list = (0..count).map(|_| reader.peer()).collect::<Result<_, _>>()?;
    if reader.0.is_empty() { Ok(list) } else { Err(Malformed) }
}

/// Lists on a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ListCodec;

async fn read<T: AsyncRead + Unpin + Send>(stream: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    stream.take(limit).read_to_end(&mut bytes).await?;
    if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

fn invalid(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[async_trait]
impl request_response::Codec for ListCodec {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = Vec<Listed>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        if read(stream, REQUEST.len()).await? == REQUEST { Ok(()) } else { Err(invalid(Malformed)) }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Vec<Listed>>
    where
        T: AsyncRead + Unpin + Send,
    {
        decode(&read(stream, LIST_BYTES_MAX).await?).map_err(invalid)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&REQUEST).await?;
        stream.close().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, stream: &mut T, list: Vec<Listed>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&encode(&list)).await?;
        stream.close().await
    }
}

#[cfg(test)]
mod tests;
