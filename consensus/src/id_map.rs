//! Maps by ids that are hashes already: transactions, outpoints, scripts.

use std::collections::{HashMap, HashSet};

/// The standard library's hasher takes as long as the look-up that follows. This one is keyed too, for each map anew, and
/// nobody outside sees a hash: whoever wanted collisions would have to grind SHA-256 for a key that he does not know.
type Hasher = foldhash::quality::RandomState;

/// A map by id.
pub type IdMap<K, V> = HashMap<K, V, Hasher>;

/// A set of ids.
pub type IdSet<K> = HashSet<K, Hasher>;
