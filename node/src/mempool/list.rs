//! What others ask of all transactions at once, as a list that the pool shares with whoever looks.
//!
//! A look takes a reference and copies nothing: the pool copies what it changes afterwards, [`CHUNK`] rows at a time, and
//! only as long as somebody holds what was there before.

use std::sync::Arc;

use bitcoin::Txid;

use super::entry::Entry;
use super::feerate::FeeFraction;

/// Rows that are copied together: some 20 kB.
const CHUNK: usize = 256;

/// What is told of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub txid: Txid,
    /// Its own feerate.
    pub own: FeeFraction,
    /// What it is worth to a block.
    pub mining: FeeFraction,
    /// The sum of its outputs, in satoshi.
    pub value: u64,
    /// When it entered, in seconds of Unix time.
    pub entered_s: u64,
}

impl Row {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            txid: entry.txid(),
            own: entry.feerate(),
            mining: entry.mining_score(),
            value: entry.transaction().output.iter().map(|output| output.value.to_sat()).sum(),
            entered_s: entry.entered_s(),
        }
    }
}

/// Full but for the last, and none is empty.
type Chunks = Vec<Arc<Vec<Row>>>;

/// The pool's transactions at one moment, in no particular order. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rows(Arc<Chunks>);

impl Rows {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().flat_map(|chunk| chunk.iter())
    }

    /// Whether nothing has changed between the two.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many hold this very list, the pool included.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// The list as the pool keeps it.
#[derive(Debug, Default)]
pub(super) struct List(Arc<Chunks>);

impl List {
    pub(super) fn rows(&self) -> Rows {
        Rows(Arc::clone(&self.0))
    }

    /// Adds a row, and returns its place.
    pub(super) fn push(&mut self, row: Row) -> usize {
        let chunks = Arc::make_mut(&mut self.0);
        match chunks.last_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => Arc::make_mut(last).push(row),
            None => chunks.push(Arc::new(vec![row])),
        }
        let last = chunks.len() - 1;
        last * CHUNK + chunks[last].len() - 1
    }

    /// Replaces the row at a place.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn set(&mut self, place: usize, row: Row) {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0)[place / CHUNK])[place % CHUNK] = row;
    }

    /// Removes the row at a place, and puts the last one there: returns which that was, unless it was the same.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn remove(&mut self, place: usize) -> Option<Txid> {
        let chunks = Arc::make_mut(&mut self.0);
        let last = chunks.last_mut().expect("there is a row");
        let row = Arc::make_mut(last).pop().expect("no chunk is empty");
        let end = (chunks.len() - 1) * CHUNK + chunks[chunks.len() - 1].len();
        if chunks[chunks.len() - 1].is_empty() {
            chunks.pop();
        }
        if place == end {
            return None;
        }
        self.set(place, row);
        Some(row.txid)
    }

    #[cfg(test)]
    pub(super) fn get(&self, place: usize) -> Row {
        self.0[place / CHUNK][place % CHUNK]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|chunk| chunk.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Amount;
    use bitcoin::hashes::Hash;
    use proptest::prelude::*;

    use super::*;

    fn row(number: u64) -> Row {
        let mut txid = [0; 32];
        txid[..8].copy_from_slice(&number.to_le_bytes());
        let rate = FeeFraction { fee: Amount::from_sat(number), vsize: 100 };
        Row { txid: Txid::from_byte_array(txid), own: rate, mining: rate, value: number, entered_s: number }
    }

    fn list(count: u64) -> List {
        let mut list = List::default();
        for number in 0..count {
            assert_eq!(list.push(row(number)), usize::try_from(number).unwrap());
        }
        list
    }

    /// Chunks of one list that are not the other's as well.
    fn copied(new: &Rows, old: &Rows) -> usize {
        new.0.iter().filter(|chunk| !old.0.iter().any(|other| Arc::ptr_eq(chunk, other))).count()
    }

    #[test]
    fn a_look_copies_nothing_and_a_change_after_it_copies_what_it_touches() {
        let mut list = list(100 * CHUNK as u64 + 7);
        let look = list.rows();
        assert!(look.is(&list.rows()));
        list.push(row(1_000_000));
        assert_eq!((copied(&list.rows(), &look), look.is(&list.rows())), (1, false));
        list.set(CHUNK, row(1_000_001));
        assert_eq!(copied(&list.rows(), &look), 2);
        // Its place is taken by the last.
        assert_eq!(list.remove(5 * CHUNK), Some(row(1_000_000).txid));
        assert_eq!(copied(&list.rows(), &look), 3);
        assert!(look.iter().copied().eq((0..100 * CHUNK as u64 + 7).map(row)), "who looked sees what was there");
    }

    #[test]
    fn while_nobody_looks_nothing_is_copied() {
        let mut list = list(2 * CHUNK as u64);
        let chunk = Arc::as_ptr(&list.0[0]);
        drop(list.rows());
        list.set(3, row(77));
        assert_eq!(Arc::as_ptr(&list.0[0]), chunk);
    }

    proptest! {
        #[test]
        fn the_list_holds_what_was_added_and_not_removed(changes in proptest::collection::vec(any::<(u8, u16)>(), 0..2_000)) {
            let (mut list, mut model, mut looks) = (List::default(), Vec::<Row>::new(), Vec::new());
            for (number, (what, place)) in (0..).zip(changes) {
                let place = usize::from(place) % model.len().max(1);
                match what {
                    0..=140 => {
                        prop_assert_eq!(list.push(row(number)), model.len());
                        model.push(row(number));
                    }
                    141..=180 if !model.is_empty() => {
                        list.set(place, row(number));
                        model[place] = row(number);
                    }
                    181..=250 if !model.is_empty() => {
                        model.swap_remove(place);
                        prop_assert_eq!(list.remove(place), model.get(place).map(|row| row.txid));
                    }
                    _ => looks.push((list.rows(), model.clone())),
                }
                prop_assert_eq!(list.len(), model.len());
            }
            looks.push((list.rows(), model));
            for (look, model) in looks {
                prop_assert!(look.iter().copied().eq(model));
            }
        }
    }
}
