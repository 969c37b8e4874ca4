//! Requests and answers.

use super::*;
use crate::wire::{ANSWER_BLOCKS_MAX, BLOCK_BYTES_MAX, FinalBlock};

#[tokio::test]
async fn every_request_is_answered() {
    let (mut first, mut second) = pair().await;
    let block = Bytes::from(vec![3; BLOCK_BYTES_MAX]);
    let certificate = Bytes::from_static(b"certificate");
    let hash = BlockHash::from_byte_array([5; 32]);
    let exchanges = [
        (status(4), status_answer(9)),
        (
            Request::Blocks { from: Height(1), count: ANSWER_BLOCKS_MAX },
            Response::Blocks(vec![FinalBlock { certificate: certificate.clone(), block: block.clone() }; 2]),
        ),
        (Request::Blocks { from: Height(1), count: 1 }, Response::Blocks(Vec::new())),
        (Request::Body { height: Height(3), hash }, Response::Body(Some(block.clone()))),
        (Request::Body { height: Height(3), hash }, Response::Body(None)),
    ];
    for (number, (request, answer)) in exchanges.into_iter().enumerate() {
        let name = OutboundId(number.try_into().unwrap());
        second.p2p.request(first.peer, name, request);
        let (from, id, asked) = first.request().await;
        assert_eq!((from, asked), (second.peer, request));
        first.p2p.respond(id, answer.clone());
        let (of, result) = second.response().await;
        assert_eq!(of, name);
        assert!(result == Ok(answer));
    }
}

#[tokio::test]
async fn an_answer_to_something_else_is_malformed() {
    let (mut first, mut second) = pair().await;
    let two = Response::Blocks(vec![FinalBlock { certificate: Bytes::new(), block: Bytes::new() }; 2]);
    for (request, answer) in [(status(1), Response::Body(None)), (Request::Blocks { from: Height(1), count: 1 }, two)] {
        second.p2p.request(first.peer, OutboundId(1), request);
        let (_, id, _) = first.request().await;
        first.p2p.respond(id, answer);
        assert_eq!(second.response().await, (OutboundId(1), Err(RequestFailure::Malformed)));
    }
}

#[tokio::test]
async fn a_request_to_nobody_fails() {
    let mut node = TestNode::start(config(1)).await;
    node.p2p.request(key(9).public().to_peer_id(), OutboundId(5), status(1));
    assert_eq!(node.response().await, (OutboundId(5), Err(RequestFailure::Disconnected)));
}

#[tokio::test]
async fn each_of_more_requests_than_the_swarm_takes_at_once_fails_once() {
    let mut node = TestNode::start(config(1)).await;
    let count = u64::try_from(COMMANDS.requests).unwrap() + 100;
    // The swarm runs on this thread: it takes nothing meanwhile.
    for id in 0..count {
        node.p2p.request(key(9).public().to_peer_id(), OutboundId(id), status(1));
    }
    let mut seen = HashSet::new();
    for _ in 0..count {
        let (id, result) = node.response().await;
        assert_eq!(result, Err(RequestFailure::Disconnected));
        assert!(seen.insert(id));
    }
}

#[tokio::test]
async fn open_requests_end_before_their_peer_is_gone() {
    let (mut first, mut second) = pair().await;
    second.p2p.request(first.peer, OutboundId(1), status(1));
    second.p2p.request(first.peer, OutboundId(2), status(2));
    first.request().await;
    let gone = first.peer;
    first.stop().await;
    for _ in 0..2 {
        let event = timeout(PATIENCE, second.events.recv()).await.unwrap();
        let Some(P2pEvent::Response { result: Err(RequestFailure::Disconnected), .. }) = event else {
            panic!("{event:?}")
        };
    }
    let event = timeout(PATIENCE, second.events.recv()).await.unwrap();
    let Some(P2pEvent::Disconnected { peer }) = event else { panic!("{event:?}") };
    assert_eq!(peer, gone);
}

#[tokio::test]
async fn a_request_without_an_answer_fails_in_time() {
    let mut silent = config(1);
    silent.timing.request = Duration::from_millis(100);
    let mut silent = TestNode::start(silent).await;
    let mut asking = TestNode::start(config_to(2, &[&silent])).await;
    silent.connected(asking.peer).await;
    asking.connected(silent.peer).await;
    asking.p2p.request(silent.peer, OutboundId(1), status(1));
    assert_eq!(asking.response().await, (OutboundId(1), Err(RequestFailure::Refused)));

    let mut hasty = config_to(3, &[&asking]);
    hasty.timing.request = Duration::from_millis(100);
    let mut hasty = TestNode::start(hasty).await;
    hasty.connected(asking.peer).await;
    hasty.p2p.request(asking.peer, OutboundId(1), status(1));
    assert_eq!(hasty.response().await, (OutboundId(1), Err(RequestFailure::Timeout)));
}

#[tokio::test]
async fn a_request_that_is_never_answered_makes_room_again() {
    let mut silent = config(1);
    silent.timing.request = Duration::from_millis(50);
    silent.limits.inbound_requests_per_peer = 1;
    silent.limits.request_burst = u32::MAX;
    let mut silent = TestNode::start(silent).await;
    let mut asking = TestNode::start(config_to(2, &[&silent])).await;
    asking.connected(silent.peer).await;
    let target = silent.peer;
    for id in 0..3 {
        // Those in between are refused.
        let insist = async {
            loop {
                asking.p2p.request(target, OutboundId(id), status(1));
                assert_eq!(asking.response().await.1, Err(RequestFailure::Refused));
            }
        };
        tokio::select! {
            (from, _, _) = silent.request() => assert_eq!(from, asking.peer),
            () = insist => {}
        }
    }
}

#[tokio::test]
async fn a_peer_that_floods_requests_is_refused() {
    let mut careful = config(1);
    careful.limits.request_burst = 5;
    careful.limits.requests_per_second = 1;
    careful.limits.streams = 128;
    let mut careful = TestNode::start(careful).await;
    let mut flooding = config_to(2, &[&careful]);
    flooding.limits.requests_per_peer = 100;
    flooding.limits.streams = 128;
    let mut flooding = TestNode::start(flooding).await;
    flooding.connected(careful.peer).await;
    let began = std::time::Instant::now();
    for id in 0..50 {
        flooding.p2p.request(careful.peer, OutboundId(id), status(1));
    }
    let answer = tokio::spawn(async move {
        let mut asked = 0;
        while let Some(event) = careful.events.recv().await {
            if let P2pEvent::Request { id, .. } = event {
                asked += 1;
                careful.p2p.respond(id, status_answer(1));
            }
        }
        asked
    });
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..50 {
        match flooding.response().await.1 {
            Ok(_) => answered += 1,
            Err(RequestFailure::Refused) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    let refilled = began.elapsed().as_secs();
    flooding.stop().await;
    assert!(answered >= 1 && answered <= 5 + refilled, "{answered} of 50 answered");
    assert_eq!(answered + refused, 50);
    answer.abort();
}

#[tokio::test]
async fn requests_beyond_those_open_with_a_peer_fail_at_once() {
    let mut first = TestNode::start(config(1)).await;
    let mut asking = config_to(2, &[&first]);
    asking.limits.requests_per_peer = 2;
    let mut asking = TestNode::start(asking).await;
    asking.connected(first.peer).await;
    for id in 0..3 {
        asking.p2p.request(first.peer, OutboundId(id), status(1));
    }
    assert_eq!(asking.response().await, (OutboundId(2), Err(RequestFailure::Disconnected)));
    for _ in 0..2 {
        let (_, id, _) = first.request().await;
        first.p2p.respond(id, status_answer(1));
        assert!(asking.response().await.1.is_ok());
    }
}

#[tokio::test]
async fn whoever_fetches_more_than_its_budget_is_refused_and_others_are_not() {
    let mut serving = config(1);
    (serving.limits.upload_per_second, serving.limits.upload_burst) = (1, 3);
    let mut serving = TestNode::start(serving).await;
    let mut greedy = TestNode::start(config_to(2, &[&serving])).await;
    let mut other = TestNode::start(config_to(3, &[&serving])).await;
    greedy.connected(serving.peer).await;
    other.connected(serving.peer).await;
    let blocks = Request::Blocks { from: Height(1), count: 1 };
    let block = FinalBlock { certificate: Bytes::new(), block: Bytes::from(vec![1; 1 << 20]) };
    // The first answer costs far more than there is, and is paid for by the next.
    greedy.p2p.request(serving.peer, OutboundId(1), blocks);
    let (_, id, _) = serving.request().await;
    serving.p2p.respond(id, Response::Blocks(vec![block.clone()]));
    assert!(greedy.response().await.1.is_ok());
    for name in 2..5 {
        greedy.p2p.request(serving.peer, OutboundId(name), blocks);
        assert_eq!(greedy.response().await, (OutboundId(name), Err(RequestFailure::Refused)));
    }
    greedy.p2p.request(serving.peer, OutboundId(5), status(1));
    other.p2p.request(serving.peer, OutboundId(6), blocks);
    for _ in 0..2 {
        let (_, id, request) = serving.request().await;
        serving
            .p2p
            .respond(id, if request == blocks { Response::Blocks(vec![block.clone()]) } else { status_answer(1) });
    }
    assert!(greedy.response().await.1.is_ok() && other.response().await.1.is_ok());
}
