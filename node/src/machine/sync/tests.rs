use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use causeway_chainspec::Height;
use libp2p::PeerId;

use crate::machine::{Action, Event, Node, Now};
use crate::testing::{Bench, START_S, fetched, setup};
use crate::wire::{Request, Response};

#[test]
fn while_a_fetched_block_is_judged_the_coins_of_the_next_are_read() {
    let bench = Bench::new();
    let (spec, tip) = (&bench.chain.spec, Arc::clone(&bench.chain.tip));
    let mut node = Node::new(setup(spec, &tip));
    let now = Now { uptime: Duration::from_secs(1), unix: Duration::from_secs(START_S) };
    let peer = PeerId::random();
    let mut actions = node.handle(now, Event::Connected { peer }).unwrap();
    let blocks: Vec<_> = [&b"one"[..], b"two", b"three"]
        .into_iter()
        .zip(101..)
        .map(|(block, at)| fetched(spec, Height(at), block))
        .collect();
    let (mut judged, mut read) = (Vec::new(), Vec::new());
    while let Some(action) = actions.pop() {
        let answer = match action {
            Action::Request { id, request: Request::Status { .. }, .. } => {
                Some((id, Response::Status { height: Height(103), hash: BlockHash::all_zeros() }))
            }
            Action::Request { id, request: Request::Blocks { from, count }, .. } => {
                assert_eq!((from, count), (Height(101), 3));
                Some((id, Response::Blocks(blocks.clone())))
            }
            Action::Validate { job, .. } => {
                judged.push(job.bytes);
                None
            }
            Action::Prefetch { block } => {
                read.push(block);
                None
            }
            _ => None,
        };
        if let Some((id, response)) = answer {
            actions.extend(node.handle(now, Event::Response { peer, id, result: Ok(response) }).unwrap());
        }
    }
    assert_eq!((judged, read), (vec![blocks[0].block.clone()], vec![blocks[1].block.clone()]));
}
