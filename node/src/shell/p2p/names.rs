//! The names of the protocols. All but identify, ping and the transport carry the chain, so that nodes of two chains have
//! nothing to say to each other.

use causeway_chainspec::ChainId;
use libp2p::StreamProtocol;
use libp2p::gossipsub::IdentTopic;

use crate::wire::{PROTOCOL_VERSION, Topic};

/// Hexadecimal digits of the short form of a chain.
const SHORT_DIGITS: usize = 16;

/// What this node is called in its logs and by its peers.
pub(super) const AGENT: &str = concat!("causeway/", env!("CARGO_PKG_VERSION"));

/// The names that a chain gives.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// What a peer must call its protocol when it says who it is.
    pub(super) identity: String,
    prefix: String,
}

impl Names {
    /// The names of this chain.
    pub(super) fn new(chain: ChainId) -> Self {
        let chain = chain.to_string();
        Self {
            identity: format!("causeway/{PROTOCOL_VERSION}/{chain}"),
            // A block hash begins with the zeros of its work.
            prefix: format!("/causeway/{}", &chain[chain.len().saturating_sub(SHORT_DIGITS)..]),
        }
    }

    /// The gossip topic.
    pub(super) fn topic(&self, topic: Topic) -> IdentTopic {
        IdentTopic::new(format!("{}/{}/{PROTOCOL_VERSION}", &self.prefix[1..], topic.name()))
    }

    /// The gossip protocol of a topic, without gossipsub's own version.
    pub(super) fn gossip(&self, topic: Topic) -> String {
        format!("{}/gossip/{}/{PROTOCOL_VERSION}", self.prefix, topic.name())
    }

    /// The protocol of requests and answers.
    pub(super) fn requests(&self) -> StreamProtocol {
        self.protocol("requests")
    }

    /// The protocol of lists of peers.
    pub(super) fn peer_lists(&self) -> StreamProtocol {
        self.protocol("peers")
    }

    fn protocol(&self, name: &str) -> StreamProtocol {
        StreamProtocol::try_from_owned(format!("{}/{name}/{PROTOCOL_VERSION}", self.prefix))
            .expect("the name begins with a slash")
    }
}
