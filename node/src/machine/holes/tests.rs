use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_chainspec::{ChainSpec, Height};
use libp2p::PeerId;

use crate::machine::jobs::FillJob;
use crate::machine::{Action, Event, Filled, Node, Now, OutboundId, Report, Ticket};
use crate::testing::{Bench, START_S, fetched, setup};
use crate::wire::{FinalBlock, Request, Response};

/// A full node with two peers, all of them at height 104.
struct Site {
    spec: ChainSpec,
    node: Node,
    uptime: Duration,
}

impl Site {
    fn new() -> Self {
        let mut bench = Bench::new();
        (0..4).for_each(|_| drop(bench.mine()));
        let (spec, tip) = (bench.chain.spec.clone(), Arc::clone(&bench.chain.tip));
        assert_eq!(tip.height(), Height(104));
        let node = Node::new(setup(&spec, &tip));
        let mut site = Self { spec, node, uptime: Duration::from_secs(1) };
        for _ in 0..2 {
            let peer = PeerId::random();
            for (id, _, _) in requests(&site.handle(Event::Connected { peer })) {
                let result = Ok(Response::Status { height: tip.height(), hash: tip.hash() });
                site.handle(Event::Response { peer, id, result });
            }
        }
        site
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let now = Now { uptime: self.uptime, unix: Duration::from_secs(START_S) };
        self.node.handle(now, event).unwrap()
    }

    fn lacks(&mut self, heights: &[u32]) -> Vec<(OutboundId, PeerId, Request)> {
        let heights = heights.iter().copied().map(Height).collect();
        requests(&self.handle(Event::Holes { heights }))
    }

    fn answer(&mut self, (id, peer, _): (OutboundId, PeerId, Request), blocks: Vec<FinalBlock>) -> Vec<Action> {
        self.handle(Event::Response { peer, id, result: Ok(Response::Blocks(blocks)) })
    }

    /// Something with a certificate that can be read.
    fn block(&self, height: u32) -> FinalBlock {
        fetched(&self.spec, Height(height), b"a block")
    }
}

fn requests(actions: &[Action]) -> Vec<(OutboundId, PeerId, Request)> {
    let request = |action: &Action| match action {
        Action::Request { peer, id, request } => Some((*id, *peer, *request)),
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn fills(actions: Vec<Action>) -> Vec<(Ticket, FillJob)> {
    let fill = |action| match action {
        Action::Fill { ticket, job } => Some((ticket, job)),
        _ => None,
    };
    actions.into_iter().filter_map(fill).collect()
}

fn blamed(actions: &[Action]) -> Vec<PeerId> {
    let blamed = |action: &Action| match action {
        Action::Report(Report::Misbehaved { peer, .. }) => Some(*peer),
        _ => None,
    };
    actions.iter().filter_map(blamed).collect()
}

#[test]
fn a_missing_block_is_asked_of_one_peer_after_the_other_until_it_is_back() {
    let mut site = Site::new();
    // Neither what the chainspec fixes nor what is above the tip.
    assert_eq!(site.lacks(&[50, 105]), []);
    let first = site.lacks(&[50, 102, 104, 105]);
    assert_eq!(
        first.iter().map(|(.., request)| *request).collect::<Vec<_>>(),
        [Request::Blocks { from: Height(102), count: 1 }]
    );
    assert_eq!(site.lacks(&[102, 104]), [], "one at a time");

    // A peer may have lost it too: nobody is to blame.
    let actions = site.answer(first[0], vec![]);
    assert_eq!(blamed(&actions), []);
    let second = requests(&actions);
    assert!(second.len() == 1 && second[0].1 != first[0].1 && second[0].2 == first[0].2, "{second:?}");
    let actions = site.answer(second[0], vec![]);
    assert_eq!(requests(&actions), [], "nobody is left, until later");

    let again = site.lacks(&[102, 104]);
    let block = site.block(102);
    let jobs = fills(site.answer(again[0], vec![block.clone()]));
    let [(ticket, job)] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!((job.block == block, job.proof.height), (true, Height(102)));
    assert_eq!(site.lacks(&[102, 104]), [], "it is being put back");
    let next = requests(&site.handle(Event::Filled { ticket: *ticket, filled: Filled::Whole }));
    assert_eq!(
        next.iter().map(|(.., request)| *request).collect::<Vec<_>>(),
        [Request::Blocks { from: Height(104), count: 1 }]
    );
    // The same once more means nothing.
    assert_eq!(requests(&site.handle(Event::Filled { ticket: *ticket, filled: Filled::Whole })), []);
}

#[test]
fn who_sends_something_else_for_a_missing_block_answers_for_it() {
    for lie in ["unproven", "no certificate", "two blocks"] {
        let mut site = Site::new();
        let asked = site.lacks(&[102])[0];
        let block = site.block(102);
        let actions = match lie {
            "unproven" => {
                let jobs = fills(site.answer(asked, vec![block]));
                site.handle(Event::Filled { ticket: jobs[0].0, filled: Filled::Unproven })
            }
            "no certificate" => site.answer(asked, vec![FinalBlock { certificate: Bytes::new(), ..block }]),
            _ => site.answer(asked, vec![block.clone(), block]),
        };
        assert_eq!(blamed(&actions), [asked.1], "{lie}");
        let next = requests(&actions);
        assert!(next.len() == 1 && next[0].1 != asked.1, "{lie}: {next:?}");
    }
    // A second final block of the height is proven: whoever has it has done nothing wrong.
    let mut site = Site::new();
    let asked = site.lacks(&[102])[0];
    let jobs = fills(site.answer(asked, vec![site.block(102)]));
    let actions = site.handle(Event::Filled { ticket: jobs[0].0, filled: Filled::Another });
    assert_eq!(blamed(&actions), []);
}
