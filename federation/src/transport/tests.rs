use std::collections::VecDeque;
use std::net::TcpListener;
use std::time::Instant;

use super::*;

fn key(index: u8) -> Keypair {
    transport_key(&IdentityKey::from_bytes(&[index + 1; 32]).unwrap())
}

fn chain(byte: u8) -> ChainId {
    ChainId::from_byte_array([byte; 32])
}

fn ports(n: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn config(ports: &[u16], own: u8, others: &[u8]) -> TransportConfig {
    let address = |index: u8| format!("/ip4/127.0.0.1/tcp/{}", ports[usize::from(index)]).parse().unwrap();
    TransportConfig {
        key: key(own),
        chain: chain(1),
        listen: address(own),
        peers: others
            .iter()
            .map(|other| PeerAddress { peer: key(*other).public().to_peer_id(), address: address(*other) })
            .collect(),
        limits: Limits { redial_min: Duration::from_millis(100), ..Limits::default() },
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn next(incoming: &mut mpsc::Receiver<Incoming>) -> Incoming {
    tokio::time::timeout(Duration::from_secs(30), incoming.recv()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_hear_each_other_in_order_and_find_each_other_again() {
    let ports = ports(2);
    let (one, _incoming) = Transport::start(config(&ports, 0, &[1])).await.unwrap();
    let (two, mut heard) = Transport::start(config(&ports, 1, &[0])).await.unwrap();
    until("connected", || one.connected() == [true] && two.connected() == [true]).await;
    for number in 0..100_u8 {
        one.broadcast(vec![number; 1_000]);
    }
    let mut messages = Vec::new();
    while messages.len() < 100 {
        let incoming = next(&mut heard).await;
        assert_eq!(incoming.from, 0);
        messages.extend(incoming.messages);
    }
    assert!(messages.iter().zip(0..).all(|(message, number)| *message == vec![number; 1_000]));
    // The longest message arrives too, and nothing longer leaves.
    one.broadcast(vec![7; MESSAGE_BYTES_MAX + 1]);
    one.broadcast(vec![8; MESSAGE_BYTES_MAX]);
    assert_eq!(next(&mut heard).await.messages, [vec![8; MESSAGE_BYTES_MAX]]);
    drop(two);
    until("gone", || one.connected() == [false]).await;
    one.broadcast(vec![9; 10]);
    let (two, mut heard) = Transport::start(config(&ports, 1, &[0])).await.unwrap();
    until("connected again", || two.connected() == [true]).await;
    // What waited is sent.
    assert_eq!(next(&mut heard).await.messages, [vec![9; 10]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_members_of_other_chains_are_not_heard() {
    let ports = ports(3);
    let (member, mut heard) = Transport::start(config(&ports, 0, &[1])).await.unwrap();
    // 2 knows 0, and 0 does not know 2.
    let (stranger, _incoming) = Transport::start(config(&ports, 2, &[0])).await.unwrap();
    let mut other = config(&ports, 1, &[0]);
    other.chain = chain(2);
    let (other_chain, _incoming) = Transport::start(other).await.unwrap();
    until("connected", || other_chain.connected() == [true]).await;
    stranger.broadcast(vec![1]);
    other_chain.broadcast(vec![2]);
    drop(other_chain);
    until("gone", || member.connected() == [false]).await;
    let (right, _incoming) = Transport::start(config(&ports, 1, &[0])).await.unwrap();
    right.broadcast(vec![3]);
    assert_eq!(next(&mut heard).await.messages, [vec![3]]);
    assert_eq!(stranger.connected(), [false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_sends_too_much_or_is_distrusted_is_not_heard() {
    let ports = ports(2);
    let mut small = config(&ports, 0, &[1]);
    small.limits.messages_per_second = 5;
    let (one, mut heard) = Transport::start(small).await.unwrap();
    let (two, _incoming) = Transport::start(config(&ports, 1, &[0])).await.unwrap();
    until("connected", || one.connected() == [true] && two.connected() == [true]).await;
    for number in 0..1_000_u32 {
        two.broadcast(number.to_le_bytes().to_vec());
    }
    // Four seconds' worth at once at most, and a few more as time passes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut count = 0;
    while let Ok(incoming) = heard.try_recv() {
        count += incoming.messages.len();
    }
    assert!(count <= 40, "{count}");
    one.distrust(0, Duration::from_secs(3_600));
    tokio::time::sleep(Duration::from_millis(500)).await;
    two.broadcast(vec![1]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [taken.local_addr().unwrap().port()];
    let error = Transport::start(config(&ports, 0, &[])).await.unwrap_err();
    assert!(error.to_string().contains(&ports[0].to_string()), "{error}");
}

#[test]
fn frames_are_decoded_exactly() {
    let mut queue: VecDeque<Bytes> = [vec![1; 3], vec![2; 500]].into_iter().map(Bytes::from).collect();
    let frame = codec::encode(&mut queue);
    assert!(queue.is_empty());
    assert_eq!(codec::decode(&frame), Some(vec![vec![1; 3], vec![2; 500]]));
    assert_eq!(codec::decode(&[]), Some(vec![]));
    // Cut off anywhere but between messages.
    for cut in 1..frame.len() {
        assert_eq!(codec::decode(&frame[..cut]).is_some(), cut == 7, "{cut}");
    }
    assert_eq!(codec::decode(&[0; 4]), None);
    let mut long = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_le_bytes().to_vec();
    long.resize(MESSAGE_BYTES_MAX + 5, 1);
    assert_eq!(codec::decode(&long), None);
    assert_eq!(codec::decode(&[0xff; 100]), None);
    // No more than a frame holds.
    let mut queue: VecDeque<Bytes> = (0..10).map(|_| Bytes::from(vec![1; MESSAGE_BYTES_MAX])).collect();
    assert!(codec::encode(&mut queue).len() <= FRAME_BYTES_MAX);
    assert_eq!(queue.len(), 7);
}
