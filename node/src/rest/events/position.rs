//! How far a stream has come: what `id:` says and `Last-Event-ID` gives back.

use std::fmt;
use std::str::FromStr;

use causeway_chainspec::Height;

/// A place in the sequence of all events that follow from final blocks. It means the same on every node.
///
/// `102` is all of block 102 and of the blocks below. `103-5` is that, and the events of block 103 up to number 5 (see
/// [`BlockEvents`](super::blocks::BlockEvents) for the numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Position {
    pub(super) height: Height,
    /// The last event of a block of which more may follow.
    pub(super) index: Option<u32>,
}

impl Position {
    /// All of a block.
    pub(super) fn whole(height: Height) -> Self {
        Self { height, index: None }
    }

    /// The block that holds what comes next. None after the last height of a chain.
    pub(super) fn next_block(&self) -> Option<Height> {
        if self.index.is_some() { Some(self.height) } else { self.height.next() }
    }

    /// The number of the first event of a block that comes after.
    pub(super) fn next_in(&self, height: Height) -> u32 {
        self.index.filter(|_| self.height == height).map_or(0, |index| index.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}-{index}", self.height),
            None => write!(f, "{}", self.height),
        }
    }
}

/// Not an id that a stream gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotAPosition);
        let position = match text.split_once('-') {
            Some((height, index)) => Self { height: Height(number(height)?), index: Some(number(index)?) },
            None => Self::whole(Height(number(text)?)),
        };
        // One form only: no sign, no zeros in front.
        if position.to_string() == text { Ok(position) } else { Err(NotAPosition) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_have_one_form(height in any::<u32>(), index in any::<Option<u32>>()) {
            let position = Position { height: Height(height), index };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
            for wrong in [format!("0{position}"), format!("+{position}"), format!("{position} "), format!("{position}-")] {
                prop_assert_eq!(wrong.parse::<Position>(), Err(NotAPosition));
            }
        }

        #[test]
        fn any_text_is_an_id_or_none(text in "[0-9-]{0,24}|\\PC{0,8}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }

    #[test]
    fn what_comes_next() {
        let part = Position { height: Height(7), index: Some(2) };
        assert_eq!((part.next_block(), part.next_in(Height(7)), part.next_in(Height(8))), (Some(Height(7)), 3, 0));
        let whole = Position::whole(Height(7));
        assert_eq!((whole.next_block(), whole.next_in(Height(8))), (Some(Height(8)), 0));
        assert_eq!(Position::whole(Height(u32::MAX)).next_block(), None);
    }
}
