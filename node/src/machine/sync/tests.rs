use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use causeway_chainspec::Height;
use libp2p::PeerId;

use crate::machine::{Action, Event, Node, Now, OutboundId, RequestFailure};
use crate::testing::{Bench, START_S, fetched, setup};
use crate::wire::{FinalBlock, Request, Response};

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

/// A node that is far behind its peers, which are played by the test.
struct Site {
    node: Node,
    uptime: Duration,
    /// Questions for blocks that have no answer.
    asked: Vec<Asked>,
    answer: FinalBlock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    peer: PeerId,
    id: OutboundId,
    from: Height,
    count: u16,
}

impl Site {
    fn new(peers: u8) -> Self {
        let bench = Bench::new();
        let node = Node::new(setup(&bench.chain.spec, &bench.chain.tip));
        let answer = fetched(&bench.chain.spec, Height(101), b"a block");
        let mut site = Self { node, uptime: Duration::from_secs(1), asked: Vec::new(), answer };
        (0..peers).for_each(|number| site.handle(Event::Connected { peer: peer(number) }));
        site
    }

    fn handle(&mut self, event: Event) {
        let now = Now { uptime: self.uptime, unix: Duration::from_secs(START_S) + self.uptime };
        for action in self.node.handle(now, event).unwrap() {
            match action {
                Action::Request { peer, id, request: Request::Status { .. } } => {
                    let answer = Response::Status { height: Height(10_000), hash: BlockHash::all_zeros() };
                    self.handle(Event::Response { peer, id, result: Ok(answer) });
                }
                Action::Request { peer, id, request: Request::Blocks { from, count } } => {
                    self.asked.push(Asked { peer, id, from, count });
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.uptime + Duration::from_millis(millis);
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            self.uptime = at.max(self.uptime);
            self.handle(Event::Tick);
        }
        self.uptime = end;
    }

    /// Has a question answered with as many blocks as it wants.
    fn serve(&mut self, asked: Asked) {
        self.asked.retain(|other| *other != asked);
        let blocks = vec![self.answer.clone(); asked.count.into()];
        self.handle(Event::Response { peer: asked.peer, id: asked.id, result: Ok(Response::Blocks(blocks)) });
    }

    fn fail(&mut self, asked: Asked, why: RequestFailure) {
        self.asked.retain(|other| *other != asked);
        self.handle(Event::Response { peer: asked.peer, id: asked.id, result: Err(why) });
    }

    fn first(&self) -> Vec<Asked> {
        self.asked.iter().filter(|asked| asked.from == Height(101)).copied().collect()
    }
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 1, number]).unwrap()
}

#[test]
fn few_stretches_are_asked_for_until_answers_come_quickly() {
    let mut site = Site::new(12);
    assert_eq!(site.asked.iter().map(|asked| asked.count).collect::<Vec<_>>(), [16, 16]);
    // The first stays away, so that nothing is judged.
    let (mut at_once, mut longest) = (0, 0);
    for _ in 0..3 {
        site.pass(50);
        let rest: Vec<_> = site.asked.iter().filter(|asked| asked.from > Height(101)).copied().collect();
        rest.into_iter().for_each(|asked| site.serve(asked));
        at_once = at_once.max(site.asked.len());
        longest = longest.max(site.asked.iter().map(|asked| asked.count).max().unwrap());
    }
    assert_eq!((at_once, longest), (5, 64));
    // What is here and what is asked for is bounded.
    assert_eq!(site.asked, site.first());
}

#[test]
fn on_a_thin_line_one_stretch_is_under_way_and_nobody_else_is_asked_for_it() {
    let mut site = Site::new(6);
    // Both take six seconds: the second peer that is asked for the first stretch after two is the last of that kind.
    site.pass(6_000);
    assert!(site.first().len() > 1);
    let later = site.asked.iter().find(|asked| asked.from > Height(101)).copied().unwrap();
    site.serve(later);
    while let Some(asked) = site.asked.iter().find(|asked| asked.from > Height(101)).copied() {
        site.pass(6_000);
        site.serve(asked);
    }
    // Another answer that takes as long is not late, and there is nothing else.
    let first = site.first();
    assert!(first.len() < 6, "somebody is free");
    site.pass(6_000);
    assert_eq!(site.asked, first);
}

#[test]
fn the_first_answer_for_a_stretch_is_taken_whoever_was_asked_for_it_first() {
    for taken in [0, 1] {
        let mut site = Site::new(4);
        site.pass(2_600);
        let first = site.first();
        assert_eq!(first.len(), 2);
        assert_ne!(first[0].peer, first[1].peer);
        // One that fails changes nothing for the other.
        site.fail(first[1 - taken], RequestFailure::Timeout);
        assert!(site.first().contains(&first[taken]));
        site.serve(first[taken]);
        assert_eq!(site.node.sync.len(), 16);
    }
}

#[test]
fn whoever_took_long_counts_as_slow_until_it_answers_in_time() {
    let mut site = Site::new(3);
    site.pass(2_600);
    let first = site.first();
    site.serve(first[1]);
    let is_slow = |site: &Site, peer: PeerId| site.node.sync.peers[&peer].is_slow;
    assert!(is_slow(&site, first[0].peer) && !is_slow(&site, first[1].peer));
    // Until it answers something else in time.
    site.serve(first[0]);
    assert!(is_slow(&site, first[0].peer));
    let again = site.asked.iter().find(|asked| asked.peer == first[0].peer).copied();
    site.serve(again.expect("nobody else has time"));
    assert!(!is_slow(&site, first[0].peer));
}
