//! What ran, what was compared, and why the rest was not.

use std::collections::BTreeMap;
use std::fmt;

use causeway_consensus::script::Verdict;

/// The counts of one file of vectors.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Vectors whose verdict was compared with Core's under our flags.
    pub(crate) with_core: usize,
    /// Of these, vectors whose verdict was compared with the expected result in the file too.
    pub(crate) with_expected: usize,
    /// The others, by reason: valid and invalid here.
    others: BTreeMap<String, [usize; 2]>,
}

impl Tally {
    /// Counts a vector whose expected result says nothing about ours.
    pub(crate) fn no_expectation(&mut self, why: String, ours: Verdict) {
        self.others.entry(why).or_default()[usize::from(ours == Verdict::Invalid)] += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} compared with Core, of which {} with the expected result", self.with_core, self.with_expected)?;
        let sum: usize = self.others.values().flatten().sum();
        write!(f, " and {sum} not (flags differ)")?;
        let mut before = ":";
        for (why, [valid, invalid]) in &self.others {
            write!(f, "{before} {why} {} ({valid} valid, {invalid} invalid here)", valid + invalid)?;
            before = ",";
        }
        Ok(())
    }
}
