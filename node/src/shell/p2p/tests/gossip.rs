//! Messages to everybody.

use super::*;

#[tokio::test]
async fn every_topic_arrives_at_its_longest() {
    let (mut first, second) = pair().await;
    for topic in Topic::ALL {
        let bytes = Bytes::from(vec![9; topic.max_bytes()]);
        second.p2p.publish(topic, bytes.clone());
        let (from, got, received) = first.gossip().await;
        assert_eq!((from, got), (second.peer, topic));
        assert!(received == bytes);
    }
    assert_eq!((first.p2p.lost(), second.p2p.lost()), (Lost::default(), Lost::default()));
}

#[tokio::test]
async fn a_message_beyond_its_bound_is_not_published() {
    let (mut first, second) = pair().await;
    second.p2p.publish(Topic::Transactions, Bytes::from(vec![1; Topic::Transactions.max_bytes() + 1]));
    second.p2p.publish(Topic::Transactions, Bytes::from_static(b"short"));
    assert_eq!(first.gossip().await.2, Bytes::from_static(b"short"));
}

#[tokio::test]
async fn only_accepted_messages_are_sent_on() {
    let mut middle = TestNode::start(config(1)).await;
    let mut sender = TestNode::start(config_to(2, &[&middle])).await;
    let mut receiver = TestNode::start(config_to(3, &[&middle])).await;
    // The ends shall not find each other.
    sender.p2p.ban(receiver.peer, NEVER);
    receiver.p2p.ban(sender.peer, NEVER);
    sender.connected(middle.peer).await;
    receiver.connected(middle.peer).await;
    let mut peers = 0;
    while peers < 2 {
        middle.wait(|event| matches!(event, P2pEvent::Connected { .. }).then_some(())).await;
        peers += 1;
    }
    for text in ["ignored", "rejected", "accepted"] {
        sender.p2p.publish(Topic::Consensus, Bytes::from_static(text.as_bytes()));
    }
    // The order of arrival is the order of sending.
    for verdict in [RelayVerdict::Ignore, RelayVerdict::Reject, RelayVerdict::Accept] {
        let event = timeout(PATIENCE, middle.events.recv()).await.unwrap().unwrap();
        let P2pEvent::Gossip { id, .. } = event else { panic!("{event:?}") };
        middle.p2p.relay(id, verdict);
    }
    let (from, _, bytes) = receiver.gossip().await;
    assert_eq!((from, bytes), (middle.peer, Bytes::from_static(b"accepted")));
}

#[tokio::test]
async fn a_node_that_takes_no_events_loses_gossip_and_nothing_else() {
    let long = Topic::Transactions.max_bytes();
    let mut slow = config(1);
    // A peer may use a quarter, which is one message here.
    slow.limits.transactions_bytes = 4 * (long + 1_024);
    let mut slow = TestNode::start(slow).await;
    let mut fast = TestNode::start(config_to(2, &[&slow])).await;
    fast.connected(slow.peer).await;
    for number in 0..20 {
        fast.p2p.publish(Topic::Transactions, Bytes::from(vec![number; long]));
    }
    until(|| slow.p2p.lost().gossip == 19).await;
    fast.p2p.request(slow.peer, OutboundId(1), status(1));
    slow.connected(fast.peer).await;
    let event = timeout(PATIENCE, slow.events.recv()).await.unwrap();
    let Some(P2pEvent::Gossip { id: waiting, bytes, .. }) = event else { panic!("{event:?}") };
    assert!(bytes == vec![0; long]);
    let event = timeout(PATIENCE, slow.events.recv()).await.unwrap();
    let Some(P2pEvent::Request { id, .. }) = event else { panic!("{event:?}") };
    slow.p2p.respond(id, status_answer(1));
    assert!(fast.response().await.1.is_ok());
    // The verdict makes room.
    slow.p2p.relay(waiting, RelayVerdict::Accept);
    assert_eq!(slow.p2p.peers().await.len(), 1);
    fast.p2p.publish(Topic::Transactions, Bytes::from(vec![77; long]));
    assert!(slow.gossip().await.2 == vec![77; long]);
}
