//! The t-sized subsets of an epoch's members, in lexicographic order of their sorted indices.

/// Every subset of `size` of `members` indices, in order.
#[derive(Clone, Debug)]
pub(super) struct Subsets {
    members: u16,
    next: Option<Vec<u16>>,
}

impl Subsets {
    /// `size` is 1 to `members`.
    pub(super) fn new(members: u16, size: u16) -> Self {
        Self { members, next: Some((0..size).collect()) }
    }
}

impl Iterator for Subsets {
    type Item = Vec<u16>;

    fn next(&mut self) -> Option<Vec<u16>> {
        let subset = self.next.take()?;
        // The last index that can grow does, and those after it follow it closely.
        let last = subset.iter().rev().zip((0..self.members).rev()).position(|(index, largest)| *index < largest);
        self.next = last.map(|from_end| {
            let at = subset.len() - 1 - from_end;
            let (kept, tail) = subset.split_at(at);
            kept.iter().copied().chain(subset[at] + 1..).take(kept.len() + tail.len()).collect()
        });
        Some(subset)
    }
}

/// Returns the position of a subset in that order; `None` if its indices do not strictly increase below `members`.
pub(super) fn position(subset: &[u16], members: u16) -> Option<usize> {
    let increasing = subset.windows(2).all(|pair| pair[0] < pair[1]);
    if !increasing || *subset.last()? >= members {
        return None;
    }
    let mut position = 0;
    let mut lowest = 0;
    for (at, index) in subset.iter().enumerate() {
        let open = subset.len() - at - 1;
        // Every smaller index at this place leads `open` free choices among the members after it.
        position += (lowest..*index).map(|smaller| choose(usize::from(members - smaller - 1), open)).sum::<usize>();
        lowest = index + 1;
    }
    Some(position)
}

/// C(n, k). An epoch has at most 5,000 subsets, and no count asked for here is larger than theirs.
fn choose(n: usize, k: usize) -> usize {
    if k > n {
        return 0;
    }
    let k = k.min(n - k);
    (1..=k).fold(1, |count, i| count * (n - k + i) / i)
}

#[cfg(test)]
mod tests;
