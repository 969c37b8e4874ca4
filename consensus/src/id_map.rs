//! Maps by ids that are hashes already: transactions, outpoints, scripts.

use std::collections::{HashMap, HashSet};

/// By default the standard library's keyed hasher takes as long as the look-up that follows. Foldhash takes a fifth of that;
/// each map has a key of its own that nobody outside sees. Whoever wanted collisions would have to make SHA-256 hashes for a
/// key that he does not know.
type Hasher = foldhash::quality::RandomState;

/// A map by id.
pub type IdMap<K, V> = HashMap<K, V, Hasher>;

/// A set of ids.
pub type IdSet<K> = HashSet<K, Hasher>;
