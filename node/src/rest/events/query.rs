//! What a client asks for: `?topics=...&script=...&last-event-id=...`.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use causeway_chainspec::Height;
use causeway_consensus::state::ScriptId;
use warp::http::HeaderMap;

use super::position::Position;
use crate::rest::answer::Refusal;
use crate::rest::routes::Key;
use crate::rest::scripts::script_hash;

/// The longest query, in bytes: room for [`MAX_SCRIPTS`] of the longest addresses.
const MAX_QUERY: usize = 12_000;

/// Scripts of one stream.
pub(super) const MAX_SCRIPTS: usize = 100;

/// Letters of a wrong word that are said again.
const SHOWN: usize = 40;

/// What an event is about: its name on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::rest) enum Topic {
    Block,
    Tx,
    Script,
    PegIn,
    PegOut,
}

impl Topic {
    const ALL: [Self; 5] = [Self::Block, Self::Tx, Self::Script, Self::PegIn, Self::PegOut];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Tx => "tx",
            Self::Script => "script",
            Self::PegIn => "peg-in",
            Self::PegOut => "peg-out",
        }
    }
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::rest) enum EventsRefusal {
    // ---- 400 ----
    #[error("the query is longer than {MAX_QUERY} bytes: open several streams")]
    QueryTooLong,
    #[error("the query is not percent-encoded UTF-8")]
    Encoding,
    #[error("unknown parameter {0:?}: there are topics, script and last-event-id")]
    UnknownParameter(String),
    #[error("{0} is given twice: separate its values by commas")]
    Twice(&'static str),
    #[error("unknown topic {0:?}: there are block, tx, script, peg-in and peg-out")]
    UnknownTopic(String),
    #[error("topic script without scripts: name them with script=<scripthash or address>[,more]")]
    NoScripts,
    #[error("more than {MAX_SCRIPTS} scripts: open several streams")]
    TooManyScripts,
    #[error("the last event id is none that a stream gave: <height> or <height>-<index>")]
    InvalidId,
    #[error("the last event id is at height {id}, this node at {tip}: ask one that is in step, or leave the id out")]
    Ahead { id: Height, tip: Height },

    // ---- 503 ----
    #[error("there are {max} streams already: try again, or ask another node")]
    Full { max: usize },
    #[error("all streams together follow {max} scripts already: ask for fewer, or ask another node")]
    FullOfScripts { max: usize },
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rest) struct Wanted {
    pub(super) topics: BTreeSet<Topic>,
    /// As they were given.
    pub(super) scripts: Vec<Key>,
    /// The last event that it has, if it had a stream before.
    pub(super) after: Option<Position>,
}

impl Wanted {
    /// Reads a query. Without topics and scripts, blocks are asked for; scripts make their topic one that is asked for.
    pub(in crate::rest) fn of_query(query: &str) -> Result<Self, EventsRefusal> {
        if query.len() > MAX_QUERY {
            return Err(EventsRefusal::QueryTooLong);
        }
        let (mut topics, mut scripts, mut after) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            let (name, place) = match name {
                "topics" => ("topics", &mut topics),
                "script" => ("script", &mut scripts),
                "last-event-id" => ("last-event-id", &mut after),
                other => return Err(EventsRefusal::UnknownParameter(shown(other))),
            };
            if place.replace(value).is_some() {
                return Err(EventsRefusal::Twice(name));
            }
        }
        let scripts = scripts.as_deref().map(keys).transpose()?.unwrap_or_default();
        let named = topics.as_deref().map(read_topics).transpose()?;
        if named.as_ref().is_some_and(|named| named.contains(&Topic::Script)) && scripts.is_empty() {
            return Err(EventsRefusal::NoScripts);
        }
        let otherwise = if scripts.is_empty() { BTreeSet::from([Topic::Block]) } else { BTreeSet::new() };
        let mut topics = named.unwrap_or(otherwise);
        topics.extend((!scripts.is_empty()).then_some(Topic::Script));
        let after = after.as_deref().filter(|id| !id.is_empty()).map(read_id).transpose()?;
        Ok(Self { topics, scripts, after })
    }

    /// Takes in `Last-Event-ID`, which wins over the query: a browser that connects again repeats the query of the first
    /// time.
    pub(in crate::rest) fn resume(&mut self, headers: &HeaderMap) -> Result<(), EventsRefusal> {
        if let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
            self.after = Some(read_id(id.to_str().map_err(|_| EventsRefusal::InvalidId)?)?);
        }
        Ok(())
    }
}

/// The scripts of a stream, with the SHA-256 of each in hex.
pub(super) type Scripts = BTreeMap<ScriptId, String>;

/// Looks the scripts up by the names that they were given.
pub(super) fn scripts_of(keys: &[Key], network: Network) -> Result<Scripts, Refusal> {
    let named = |key: &Key| {
        let hash = script_hash(key, network)?;
        Ok((ScriptId::of_hash(&hash), hash.to_lower_hex_string()))
    };
    keys.iter().map(named).collect()
}

fn read_topics(list: &str) -> Result<BTreeSet<Topic>, EventsRefusal> {
    let topic = |name: &str| {
        let topic = Topic::ALL.into_iter().find(|topic| topic.name() == name);
        topic.ok_or_else(|| EventsRefusal::UnknownTopic(shown(name)))
    };
    list.split(',').map(topic).collect()
}

/// No address is as long as a hash in hex and of hex digits only.
fn keys(list: &str) -> Result<Vec<Key>, EventsRefusal> {
    let key = |name: &str| {
        let is_hash = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash { Key::ScriptHash(name.to_owned()) } else { Key::Address(name.to_owned()) }
    };
    let keys: Vec<Key> = list.split(',').take(MAX_SCRIPTS + 1).map(key).collect();
    if keys.len() > MAX_SCRIPTS { Err(EventsRefusal::TooManyScripts) } else { Ok(keys) }
}

fn read_id(text: &str) -> Result<Position, EventsRefusal> {
    text.parse().map_err(|_| EventsRefusal::InvalidId)
}

/// The start of a word.
fn shown(word: &str) -> String {
    word.chars().take(SHOWN).collect()
}

/// Undoes percent-encoding: pages of browsers encode commas.
fn decode(text: &str) -> Result<String, EventsRefusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>().ok_or(EventsRefusal::Encoding)?;
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (high, low) = digit(digits[0]).zip(digit(digits[1])).ok_or(EventsRefusal::Encoding)?;
        bytes.push(high << 4 | low);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| EventsRefusal::Encoding)
}
