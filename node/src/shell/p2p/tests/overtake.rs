//! What is urgent overtakes what is not, on its way in and on its way out.

use futures::StreamExt;
use libp2p::gossipsub::Event;
use libp2p::swarm::SwarmEvent;

use super::lanes::Lane;
use super::raw::{Raw, RawBehaviourEvent, Says, heard, raw, wait};
use super::*;

/// Room for so many transactions.
fn narrow(transactions: usize) -> (lanes::Sender<P2pEvent>, lanes::Receiver<P2pEvent>) {
    lanes::channel(Bounds { transactions, ..EVENTS })
}

fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[tokio::test]
async fn a_vote_overtakes_every_transaction_that_waits_for_the_node() {
    let mut busy = TestNode::start_with(config(1), narrow(8)).await;
    let mut peer = TestNode::start(config_to(2, &[&busy])).await;
    peer.connected(busy.peer).await;
    // The node takes nothing meanwhile: its lane of transactions is full, and more than full.
    for number in 0..20 {
        peer.p2p.publish(Topic::Transactions, numbered(number));
    }
    until(|| busy.p2p.lost().gossip == 12).await;
    peer.p2p.publish(Topic::Bodies, Bytes::from_static(b"a block"));
    until(|| busy.events.waiting(Lane::Bodies) == 1).await;
    peer.p2p.publish(Topic::Consensus, Bytes::from_static(b"a vote"));
    until(|| busy.events.waiting(Lane::Consensus) == 1).await;

    busy.connected(peer.peer).await;
    assert_eq!(busy.gossip().await, (peer.peer, Topic::Consensus, Bytes::from_static(b"a vote")));
    assert_eq!(busy.gossip().await, (peer.peer, Topic::Bodies, Bytes::from_static(b"a block")));
    for number in 0..8 {
        assert_eq!(busy.gossip().await, (peer.peer, Topic::Transactions, numbered(number)));
    }
    assert_eq!(busy.p2p.lost().gossip, 12);
}

#[tokio::test]
async fn votes_that_a_stranger_makes_up_stand_before_one_vote_at_most() {
    let mut busy = TestNode::start(config(1)).await;
    let mut stranger = TestNode::start(config_to(2, &[&busy])).await;
    let mut friend = TestNode::start(config_to(3, &[&busy])).await;
    // They shall not hear of each other.
    stranger.p2p.ban(friend.peer, NEVER);
    friend.p2p.ban(stranger.peer, NEVER);
    stranger.connected(busy.peer).await;
    friend.connected(busy.peer).await;
    for number in 0..100 {
        stranger.p2p.publish(Topic::Consensus, numbered(number));
    }
    until(|| busy.events.waiting(Lane::Consensus) == 100).await;
    friend.p2p.publish(Topic::Consensus, Bytes::from_static(b"a vote"));
    until(|| busy.events.waiting(Lane::Consensus) == 101).await;
    let first_two = [busy.gossip().await, busy.gossip().await];
    assert!(first_two.contains(&(friend.peer, Topic::Consensus, Bytes::from_static(b"a vote"))), "{first_two:?}");
}

#[tokio::test]
async fn a_body_that_a_peer_needs_overtakes_its_other_requests() {
    let mut busy = TestNode::start(config(1)).await;
    let mut peer = TestNode::start(config_to(2, &[&busy])).await;
    peer.connected(busy.peer).await;
    let body = Request::Body { height: Height(3), hash: BlockHash::from_byte_array([5; 32]) };
    peer.p2p.request(busy.peer, OutboundId(1), status(1));
    until(|| busy.events.waiting(Lane::Requests) == 1).await;
    peer.p2p.request(busy.peer, OutboundId(2), body);
    until(|| busy.events.waiting(Lane::Bodies) == 1).await;
    assert_eq!(busy.request().await.2, body);
    assert_eq!(busy.request().await.2, status(1));
}

#[tokio::test]
async fn a_request_that_has_no_room_is_refused() {
    let (sender, receiver) = lanes::channel(Bounds { requests: 1, ..EVENTS });
    let mut busy = TestNode::start_with(config(1), (sender, receiver)).await;
    let mut peer = TestNode::start(config_to(2, &[&busy])).await;
    peer.connected(busy.peer).await;
    peer.p2p.request(busy.peer, OutboundId(1), status(1));
    until(|| busy.events.waiting(Lane::Requests) == 1).await;
    peer.p2p.request(busy.peer, OutboundId(2), status(2));
    assert_eq!(peer.response().await, (OutboundId(2), Err(RequestFailure::Refused)));
    let (_, id, _) = busy.request().await;
    busy.p2p.respond(id, status_answer(1));
    assert_eq!(peer.response().await, (OutboundId(1), Ok(status_answer(1))));
}

/// The next gossip message of the node.
async fn message(reader: &mut Raw) -> Vec<u8> {
    use RawBehaviourEvent::{Bodies, Claims, Consensus, Transactions};
    wait(reader, |event| match event {
        SwarmEvent::Behaviour(Bodies(event) | Claims(event) | Consensus(event) | Transactions(event)) => match event {
            Event::Message { message, .. } => Some(message.data),
            _ => None,
        },
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_vote_overtakes_every_transaction_that_waits_to_be_sent() {
    let mut node = TestNode::start(config(1)).await;
    let mut reader = raw(9, Says::All, &node);
    heard(&mut reader).await;
    let name = *reader.local_peer_id();
    tokio::select! {
        () = node.connected(name) => {}
        _ = async { loop { reader.select_next_some().await; } } => {}
    }
    // The swarm runs on this thread: it takes nothing meanwhile.
    let mut sent = 0;
    while node.p2p.lost().commands == 0 {
        node.p2p.publish(Topic::Transactions, numbered(sent));
        sent += 1;
    }
    assert_eq!(usize::try_from(sent).unwrap(), COMMANDS.transactions + 1);
    node.p2p.publish(Topic::Bodies, Bytes::from_static(b"a block"));
    node.p2p.publish(Topic::Consensus, Bytes::from_static(b"a vote"));
    assert_eq!(message(&mut reader).await, b"a vote");
    assert_eq!(message(&mut reader).await, b"a block");
    assert_eq!(message(&mut reader).await, numbered(0));
}

/// What is written to a connection whose other end reads nothing until the system takes no more.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_takes_little_that_can_be_overtaken_no_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_unread, _) = listener.accept().await.unwrap();
    let stream = transport::short(libp2p::tcp::tokio::TcpStream(stream)).0;
    assert_eq!(socket2::SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT_MAX);
    stream.writable().await.unwrap();
    let mut taken = 0;
    while let Ok(bytes) = stream.try_write(&[0; 16 << 10]) {
        taken += bytes;
    }
    // What the other end has room for, and what is held back here.
    assert!(taken < 1 << 20, "{taken} bytes");
}
