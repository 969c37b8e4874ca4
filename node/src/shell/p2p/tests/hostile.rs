//! Strangers, and peers that do not keep to the protocol.

use std::net::SocketAddr;

use futures::StreamExt;
use libp2p::gossipsub::Event;
use libp2p::request_response::{Event as Exchange, Message};
use libp2p::swarm::SwarmEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::raw::{RawBehaviourEvent, Says, closed, heard, raw, wait};
use super::*;
use crate::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

async fn tcp(node: &TestNode) -> TcpStream {
    TcpStream::connect(SocketAddr::from(address::socket(&node.address).unwrap())).await.unwrap()
}

/// Reads until the other side hangs up.
async fn drain(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the node hangs up");
}

/// Lines that the network logs on this thread, as they come.
pub(super) fn warnings() -> (tracing::subscriber::DefaultGuard, mpsc::UnboundedReceiver<String>) {
    struct Lines(mpsc::UnboundedSender<String>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (sender, lines) = mpsc::unbounded_channel();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || Lines(sender.clone()))
        .finish();
    (tracing::subscriber::set_default(log), lines)
}

#[tokio::test]
async fn a_node_of_another_chain_is_no_peer() {
    let (_guard, mut lines) = warnings();
    let mut ours = TestNode::start(config(1)).await;
    let mut theirs = TestNode::start(P2pConfig { chain: chain(2), ..config_to(2, &[&ours]) }).await;
    // Whoever notices first hangs up.
    let line = timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
    for part in ["another chain", &chain(1).to_string(), &chain(2).to_string()] {
        assert!(line.contains(part), "{line}");
    }
    // A node of our chain gets in meanwhile, and the first event is about it.
    let friend = TestNode::start(config_to(3, &[&ours])).await;
    let event = timeout(PATIENCE, ours.events.recv()).await.unwrap();
    assert!(matches!(event, Some(P2pEvent::Connected { peer }) if peer == friend.peer), "{event:?}");
    assert!(theirs.events.try_recv().is_none());
    assert!(theirs.p2p.peers().await.is_empty());
}

#[tokio::test]
async fn garbage_and_silence_harm_nothing() {
    let mut hasty = config(1);
    hasty.timing.handshake = Duration::from_millis(300);
    let mut node = TestNode::start(hasty).await;
    let mut silent = tcp(&node).await;
    let mut garbage = tcp(&node).await;
    // The node may hang up before all is written.
    let _ = garbage.write_all(&[0xff; 100_000]).await;
    let mut half = tcp(&node).await;
    half.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20").await.unwrap();
    for stream in [&mut silent, &mut garbage, &mut half] {
        drain(stream).await;
    }
    let friend = TestNode::start(config_to(2, &[&node])).await;
    node.connected(friend.peer).await;
}

#[tokio::test]
async fn a_peer_that_does_not_say_who_it_is_is_dropped() {
    let mut hasty = config(1);
    hasty.timing.identify = Duration::from_millis(300);
    let mut node = TestNode::start(hasty).await;
    for says in [Says::Nothing, Says::Name, Says::Topics] {
        let mut stranger = raw(9, says, &node);
        let target = node.peer;
        // What it asks before is not passed on.
        wait(&mut stranger, |event| matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())).await;
        stranger.behaviour_mut().requests.send_request(&target, status(1).encode());
        if says == Says::Topics {
            heard(&mut stranger).await;
            stranger.behaviour_mut().publish(Topic::Transactions, b"from a stranger".to_vec());
        }
        closed(&mut stranger).await;
    }
    assert!(node.p2p.peers().await.is_empty());
    assert!(node.events.try_recv().is_none());
}

#[tokio::test]
async fn a_message_beyond_the_bound_of_its_topic_is_dropped() {
    let mut node = TestNode::start(config(1)).await;
    let mut stranger = raw(9, Says::All, &node);
    heard(&mut stranger).await;
    let long = Topic::Transactions.max_bytes();
    for bytes in [vec![1; long + 1], vec![2; long]] {
        stranger.behaviour_mut().publish(Topic::Transactions, bytes);
    }
    tokio::select! {
        (_, _, bytes) = node.gossip() => assert!(bytes == vec![2; long]),
        _ = async { loop { stranger.select_next_some().await; } } => {}
    }
}

#[tokio::test]
async fn peers_say_which_transactions_they_have() {
    let node = TestNode::start(config(1)).await;
    let mut stranger = raw(9, Says::All, &node);
    wait(&mut stranger, |event| {
        use RawBehaviourEvent::Transactions;
        matches!(event, SwarmEvent::Behaviour(Transactions(Event::Subscribed { .. }))).then_some(())
    })
    .await;
    assert_eq!(stranger.behaviour().transaction_protocols(), ["Gossipsub v1.2"]);
}

#[tokio::test]
async fn an_address_has_few_connections() {
    let mut strict = config(1);
    strict.limits.per_loopback_ip = 2;
    // Nobody hangs up for another reason.
    strict.timing.handshake = NEVER;
    let mut node = TestNode::start(strict).await;
    let first = tcp(&node).await;
    // The listener answers in order: both are counted when the third is.
    let second = tcp(&node).await;
    drain(&mut tcp(&node).await).await;
    drop((first, second));
    let friend = TestNode::start(config_to(2, &[&node])).await;
    node.connected(friend.peer).await;
}

#[tokio::test]
async fn all_addresses_together_have_few_connections() {
    let mut strict = config(1);
    strict.limits.connections = 2;
    let mut node = TestNode::start(strict).await;
    let first = TestNode::start(config_to(2, &[&node])).await;
    node.connected(first.peer).await;
    let second = TestNode::start(config_to(3, &[&node])).await;
    node.connected(second.peer).await;
    let mut third = raw(9, Says::All, &node);
    closed(&mut third).await;
    assert_eq!(node.p2p.peers().await.len(), 2);
    // One leaves, one comes.
    let gone = first.peer;
    first.stop().await;
    node.disconnected(gone).await;
    let fourth = TestNode::start(config_to(4, &[&node])).await;
    node.connected(fourth.peer).await;
}

#[tokio::test]
async fn a_persistent_peer_needs_no_room() {
    let mut friend = TestNode::start(config(2)).await;
    let mut strict = config_to(1, &[&friend]);
    strict.limits.connections = 0;
    strict.limits.per_loopback_ip = 0;
    let mut node = TestNode::start(strict).await;
    node.connected(friend.peer).await;
    friend.connected(node.peer).await;
}

#[tokio::test]
async fn a_malformed_request_ends_the_connection() {
    let mut node = TestNode::start(config(1)).await;
    for request in [vec![1; REQUEST_BYTES_MAX + 1], vec![77], vec![1; 1 << 20]] {
        let mut stranger = raw(9, Says::All, &node);
        let (target, name) = (node.peer, *stranger.local_peer_id());
        tokio::select! {
            () = node.connected(name) => {}
            _ = async { loop { stranger.select_next_some().await; } } => {}
        }
        stranger.behaviour_mut().requests.send_request(&target, request);
        closed(&mut stranger).await;
        let event = timeout(PATIENCE, node.events.recv()).await.unwrap();
        assert!(matches!(event, Some(P2pEvent::Disconnected { peer }) if peer == name), "{event:?}");
    }
}

#[tokio::test]
async fn a_malformed_answer_is_no_answer() {
    let mut node = TestNode::start(config(1)).await;
    let mut stranger = raw(9, Says::All, &node);
    let name = *stranger.local_peer_id();
    let answers: [(Vec<u8>, RequestFailure); 3] = [
        (vec![3; RESPONSE_BYTES_MAX + 1], RequestFailure::Malformed),
        (vec![99], RequestFailure::Malformed),
        (Vec::new(), RequestFailure::Refused),
    ];
    let expected = answers.clone();
    let answering = tokio::spawn(async move {
        let mut answers = answers.into_iter();
        loop {
            let event = stranger.select_next_some().await;
            if let SwarmEvent::Behaviour(RawBehaviourEvent::Requests(Exchange::Message {
                message: Message::Request { channel, .. },
                ..
            })) = event
            {
                let (answer, _) = answers.next().unwrap();
                let _ = stranger.behaviour_mut().requests.send_response(channel, answer);
            }
        }
    });
    node.connected(name).await;
    for (number, (_, failure)) in (0..).zip(expected) {
        node.p2p.request(name, OutboundId(number), status(1));
        assert_eq!(node.response().await, (OutboundId(number), Err(failure)));
    }
    answering.abort();
}
