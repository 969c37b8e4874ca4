//! What the list of endpoints says of each: how requests find it, and what the OpenAPI document tells of it.

use std::str::FromStr;

use bitcoin::OutPoint;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use warp::http::Method;

use super::super::answer::Refusal;
use super::super::problem::Code;
use super::super::schema::{Hash, Outpoint};
use super::{BlockId, Route};

/// Most places of a path that are given by the request.
const PLACES_MAX: usize = 2;

/// An endpoint.
pub(in super::super) struct Endpoint {
    pub(in super::super) verb: Verb,
    /// The path, with the names of [`Place::ALL`] in braces.
    pub(in super::super) path: &'static str,
    /// What it is for, in a line.
    pub(in super::super) summary: &'static str,
    pub(in super::super) query: &'static [Parameter],
    pub(in super::super) body: Option<Content>,
    pub(in super::super) answer: Content,
    /// Why there may be no answer, besides [`Endpoint::ALWAYS`] and [`Endpoint::OF_BODY`].
    pub(in super::super) refusals: &'static [Code],
    to: To,
}

/// Makes a route of what a request gives.
type To = fn(&Given<'_>) -> Result<Route, Refusal>;

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Verb {
    /// GET, or HEAD, whose body the server leaves out.
    Get,
    Post,
}

/// A parameter of the query.
pub(in super::super) struct Parameter {
    pub(in super::super) name: &'static str,
    pub(in super::super) description: &'static str,
    pub(in super::super) required: bool,
    pub(in super::super) schema: SchemaOf,
}

/// What a body holds.
#[derive(Clone, Copy)]
pub(in super::super) struct Content {
    pub(in super::super) media_type: &'static str,
    pub(in super::super) schema: SchemaOf,
}

/// The schema of a type, by a reference where it has a name.
pub(in super::super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// See [`SchemaOf`].
pub(in super::super) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Endpoint {
    /// What every endpoint may answer instead.
    pub(in super::super) const ALWAYS: &[Code] =
        &[Code::TooManyRequests, Code::Busy, Code::TooLate, Code::Stopping, Code::Internal];

    /// The same of those that take a body.
    pub(in super::super) const OF_BODY: &[Code] = &[Code::BodyCutOff, Code::BodyTooLarge, Code::BodyTooSlow];

    /// An endpoint for GET, with a text for an answer.
    pub(super) const fn get(path: &'static str, summary: &'static str, to: To) -> Self {
        let answer = Content { media_type: "text/plain", schema: schema_of::<String> };
        Self { verb: Verb::Get, path, summary, query: &[], body: None, answer, refusals: &[], to }
    }

    /// An endpoint for POST, with a text for an answer.
    pub(super) const fn post(path: &'static str, summary: &'static str, body: Content, to: To) -> Self {
        Self { verb: Verb::Post, body: Some(body), ..Self::get(path, summary, to) }
    }

    /// The same with an answer of any kind.
    pub(super) const fn answers(self, answer: Content) -> Self {
        Self { answer, ..self }
    }

    /// The same with an answer in JSON.
    pub(super) const fn json<T: JsonSchema>(self) -> Self {
        self.answers(Content { media_type: "application/json", schema: schema_of::<T> })
    }

    /// The same with a text of a form.
    pub(super) const fn text<T: JsonSchema>(self) -> Self {
        self.answers(Content { media_type: "text/plain", schema: schema_of::<T> })
    }

    /// The same with bytes for an answer.
    pub(super) const fn binary(self) -> Self {
        self.answers(Content { media_type: "application/octet-stream", schema: schema_of::<String> })
    }

    /// The same with parameters in the query.
    pub(super) const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// The same with reasons why there may be no answer.
    pub(super) const fn refuses(self, refusals: &'static [Code]) -> Self {
        Self { refusals, ..self }
    }

    /// Whether the request is for it: what the path gives, if it is. A path has one form in the list at most.
    pub(in super::super) fn matches<'a>(
        &self,
        method: &Method,
        segments: &[&'a str],
        query: &'a str,
    ) -> Option<Given<'a>> {
        let verb = match *method {
            Method::GET | Method::HEAD => Verb::Get,
            Method::POST => Verb::Post,
            _ => return None,
        };
        let mut given = Given { places: [""; PLACES_MAX], query };
        let mut places = given.places.iter_mut();
        let mut segments = segments.iter();
        for form in self.path.split('/').skip(1) {
            let segment = segments.next()?;
            if form.starts_with('{') {
                *places.next()? = segment;
            } else if form != *segment {
                return None;
            }
        }
        (verb == self.verb && segments.next().is_none()).then_some(given)
    }

    /// The route of a request that matches.
    pub(super) fn route(&self, given: &Given<'_>) -> Result<Route, Refusal> {
        (self.to)(given)
    }

    /// Whether it is none of Esplora's.
    pub(in super::super) fn is_ours(&self) -> bool {
        super::super::problem::is_ours(self.path)
    }

    /// The names in the path.
    pub(in super::super) fn places(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|form| form.strip_prefix('{')?.strip_suffix('}'))
    }
}

/// What a request gives.
pub(in super::super) struct Given<'a> {
    /// The segments of the path that the endpoint leaves open, as they were sent.
    places: [&'a str; PLACES_MAX],
    /// The query as it was sent.
    pub(super) query: &'a str,
}

impl Given<'_> {
    /// The text at a place.
    pub(super) fn text(&self, place: usize) -> &str {
        self.places.get(place).copied().unwrap_or_default()
    }

    /// The whole number at a place.
    pub(super) fn number<T: FromStr>(&self, place: usize) -> Result<T, Refusal> {
        self.text(place).parse().map_err(|_| Refusal::InvalidNumber)
    }

    /// The hash at a place, in its display order: 64 digits.
    pub(super) fn hash<T: FromStr>(&self, place: usize) -> Result<T, Refusal> {
        self.text(place).parse().map_err(|_| Refusal::InvalidHex)
    }

    /// The outpoint at a place. Browsers may write its colon as `%3A`.
    pub(super) fn outpoint(&self, place: usize) -> Result<OutPoint, Refusal> {
        let text = self.text(place).replacen("%3A", ":", 1).replacen("%3a", ":", 1);
        text.parse().map_err(|_| Refusal::InvalidOutpoint)
    }

    /// The block at a place, by its height or its hash.
    pub(super) fn block(&self, place: usize) -> Result<BlockId, Refusal> {
        if self.text(place).len() == 64 {
            self.hash(place).map(BlockId::Hash)
        } else {
            self.number(place).map(BlockId::Height)
        }
    }

    /// Refuses other parameters than these, and one that is there twice: what is misspelt is not left out in silence.
    pub(super) fn only(&self, parameters: &[Parameter]) -> Result<(), Refusal> {
        let mut given: Vec<&str> = self.pairs().map(|(name, _)| name).collect();
        if given.iter().any(|name| parameters.iter().all(|parameter| parameter.name != *name)) {
            return Err(Refusal::InvalidParameter { what: "parameter is unknown" });
        }
        given.sort_unstable();
        if given.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal::InvalidParameter { what: "parameter is there twice" });
        }
        Ok(())
    }

    /// The value of a parameter of the query, as it was sent: the first of them.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// A name in a path, and what stands there.
pub(in super::super) struct Place {
    pub(in super::super) name: &'static str,
    pub(in super::super) description: &'static str,
    pub(in super::super) schema: SchemaOf,
}

impl Place {
    const fn new<T: JsonSchema>(name: &'static str, description: &'static str) -> Self {
        Self { name, description, schema: schema_of::<T> }
    }

    /// Every name. Equal names mean equal things.
    pub(in super::super) const ALL: &[Self] = &[
        Self::new::<u32>("height", "The height of a block."),
        Self::new::<String>("start_height", "The height of the first of the blocks; the tip's if it is no number."),
        Self::new::<Hash>("hash", "The hash of a block."),
        Self::new::<String>("block", "The height or the hash of a block."),
        Self::new::<Hash>("txid", "The id of a transaction."),
        Self::new::<u32>("index", "The place of a transaction in its block, from 0."),
        Self::new::<String>(
            "start_index",
            "The place of the first transaction, a multiple of 25; 0 if it is no number.",
        ),
        Self::new::<u32>("vout", "The place of an output in its transaction, from 0."),
        Self::new::<String>("address", "An address of this chain."),
        Self::new::<Hash>("scripthash", "SHA-256 of a script pubkey, not reversed."),
        Self::new::<String>("last_seen_txid", "The last transaction of the page before; the first page if it is none."),
        Self::new::<String>("prefix", "How an address begins."),
        Self::new::<Outpoint>("deposit", "The outpoint of a deposit on Bitcoin."),
        Self::new::<Outpoint>("request", "The outpoint, on this chain, of the output that paid a peg-out address."),
        Self::new::<String>("bitcoin_address", "An address of the Bitcoin network that the peg stands on."),
        Self::new::<u32>("number", "The number of a batch, from 1."),
    ];
}
