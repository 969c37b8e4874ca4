//! Reading our fixed layouts from bytes of a stranger.

/// Why bytes are not the encoding of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end within the {what}")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// Bytes follow the end.
    #[error("{count} bytes follow the end")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A byte that tells kinds apart has no meaning.
    #[error("{what} {got} is unknown")]
    Unknown {
        /// What the byte tells apart.
        what: &'static str,
        /// Its value.
        got: u8,
    },
    /// A count is outside of its bounds.
    #[error("{what} is {got}, which must be 1 to {max}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The count.
        got: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// A field holds what no encoder writes, so that one meaning would have two encodings.
    #[error("{what} is not in its one form")]
    NotCanonical {
        /// The field.
        what: &'static str,
    },
}

/// The bytes that are still to be read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated { what })?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated { what })?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Ends the reading.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { count: self.0.len() }) }
    }
}
