//! Reading the peg's own encodings: integers little endian, counts and lengths as Bitcoin's compact sizes in their shortest
//! form.

use bitcoin::consensus::{Decodable, Encodable};
use bitcoin::{Amount, OutPoint, ScriptBuf, VarInt};

/// Bytes that are read from the front. Every method returns `None` if what it reads is not there in its one form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The rest, to be read by code that moves the slice on.
    pub(crate) fn rest(&mut self) -> &mut &'a [u8] {
        &mut self.rest
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An amount of at most 21,000,000 BTC, u64.
    pub(crate) fn amount(&mut self) -> Option<Amount> {
        self.u64().map(Amount::from_sat).filter(|amount| *amount <= Amount::MAX_MONEY)
    }

    /// A count of things of which each takes at least `least` bytes, so that no more than are there are made room for.
    pub(crate) fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(VarInt::consensus_decode(&mut self.rest).ok()?.0).ok()?;
        (count.checked_mul(least)? <= self.rest.len()).then_some(count)
    }

    /// Bytes after their length.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count(1)?;
        self.take(length)
    }

    pub(crate) fn script(&mut self) -> Option<ScriptBuf> {
        self.bytes().map(|bytes| ScriptBuf::from_bytes(bytes.to_vec()))
    }

    /// Txid (32, internal order) || vout (u32 LE), as Bitcoin serialises it.
    pub(crate) fn outpoint(&mut self) -> Option<OutPoint> {
        OutPoint::consensus_decode(&mut self.rest).ok()
    }
}

/// Appends what a [`Reader`] reads back.
pub(crate) trait Write {
    fn put(&mut self, value: &impl Encodable);
    fn put_count(&mut self, count: usize);
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Write for Vec<u8> {
    /// In Bitcoin's serialisation.
    fn put(&mut self, value: &impl Encodable) {
        value.consensus_encode(self).expect("writing to memory does not fail");
    }

    fn put_count(&mut self, count: usize) {
        self.put(&VarInt(count as u64));
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.extend_from_slice(bytes);
    }
}
