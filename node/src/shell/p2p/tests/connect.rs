//! Who is connected with whom.

use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::{Endpoint, Transport};

use super::*;

#[tokio::test]
async fn a_peer_is_shown() {
    let (first, second) = pair().await;
    let [info] = &second.p2p.peers().await[..] else { panic!("one peer") };
    assert_eq!((info.peer, info.direction, info.persistent), (first.peer, Direction::Outbound, true));
    assert_eq!(address::split(&info.address).0, first.address);
    assert_eq!(info.agent, names::AGENT);
    let [info] = &first.p2p.peers().await[..] else { panic!("one peer") };
    assert_eq!((info.peer, info.direction, info.persistent), (second.peer, Direction::Inbound, false));
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let (sender, _events) = inbox();
    let node = TestNode::start(config(1)).await;
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", held.local_addr().unwrap().port()).parse().unwrap();
    for taken in [node.address.clone(), other] {
        let Some((_, port)) = address::socket(&taken) else { panic!("an address") };
        let error = start(P2pConfig { listen: vec![taken.clone()], ..config(2) }, sender.clone()).await.unwrap_err();
        let P2pError::PortInUse { address, port: named } = &error else { panic!("{error}") };
        assert_eq!((address, *named), (&taken, port));
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_node_listens_on_one_port_of_both_families() {
    let held = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = held.local_addr().unwrap().port();
    drop(held);
    let both: Vec<Multiaddr> = ["/ip4/0.0.0.0", "/ip6/::"].map(|ip| format!("{ip}/tcp/{port}").parse().unwrap()).into();
    let (sender, events) = inbox();
    let (_p2p, bound) = start(P2pConfig { listen: both.clone(), ..config(1) }, sender.clone()).await.unwrap();
    assert!(bound.iter().all(|address| address::socket(address).unwrap().1 == port));
    for taken in both {
        let error = start(P2pConfig { listen: vec![taken], ..config(2) }, sender.clone()).await.unwrap_err();
        assert!(matches!(error, P2pError::PortInUse { .. }), "{error}");
    }
    drop(events);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let twice = vec![format!("/ip4/127.0.0.1/tcp/{other}").parse().unwrap(); 2];
    let error = start(P2pConfig { listen: twice, ..config(2) }, sender).await.unwrap_err();
    assert!(matches!(error, P2pError::PortInUse { port, .. } if port == other), "{error}");
}

#[tokio::test]
async fn addresses_of_another_form_are_errors() {
    let (sender, _events) = inbox();
    let name: Multiaddr = "/dns4/example.org/tcp/1".parse().unwrap();
    let other: Multiaddr = "/dnsaddr/example.org/tcp/1".parse().unwrap();
    let seeds = P2pConfig { seeds: vec![other.clone()], ..config(1) };
    let external = P2pConfig { external: vec![other.clone()], ..config(1) };
    let listen = P2pConfig { listen: vec![name], ..config(1) };
    let persistent = P2pConfig { persistent: vec![other.clone()], ..config(1) };
    let only = P2pConfig { only: vec![other], ..config(1) };
    for config in [seeds, external, listen, persistent, only] {
        assert!(matches!(start(config, sender.clone()).await, Err(P2pError::Address { .. })));
    }
    let nameless = P2pConfig { persistent: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], ..config(1) };
    assert!(matches!(start(nameless, sender.clone()).await, Err(P2pError::NoPeerId { .. })));
    // An address of no interface of this machine.
    let foreign = P2pConfig { listen: vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()], ..config(1) };
    assert!(matches!(start(foreign, sender).await, Err(P2pError::Listen { .. })));
}

#[tokio::test]
async fn nobody_makes_a_public_node_dial_into_its_own_network() {
    let inside = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let inside: Multiaddr = format!("/ip4/127.0.0.1/tcp/{inside}").parse().unwrap();
    let everywhere: Multiaddr = "/ip4/0.0.0.0/tcp/0".parse().unwrap();
    for (named, dials) in [(None, false), (Some(&inside), true)] {
        let reach = address::Reach::new([&everywhere].into_iter(), named.into_iter());
        let mut transport = transport::build(&key(1), reach, PATIENCE).unwrap();
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        assert_eq!(transport.dial(inside.clone(), options).is_ok(), dials);
    }
}

#[tokio::test]
async fn a_persistent_peer_is_connected_again_after_its_restart() {
    let (first, mut second) = pair().await;
    let again = P2pConfig { listen: vec![first.address.clone()], ..config(1) };
    let peer = first.peer;
    first.stop().await;
    second.disconnected(peer).await;
    let mut first = TestNode::start(again).await;
    second.connected(peer).await;
    first.connected(second.peer).await;
}

#[tokio::test]
async fn a_ban_disconnects_and_expires() {
    let (mut first, mut second) = pair().await;
    let ban = Duration::from_millis(700);
    let began = std::time::Instant::now();
    first.p2p.ban(second.peer, ban);
    first.disconnected(second.peer).await;
    second.disconnected(first.peer).await;
    // The other one dials all the time.
    first.connected(second.peer).await;
    assert!(began.elapsed() >= ban);
    second.connected(first.peer).await;
}

#[tokio::test]
async fn nodes_that_know_only_a_seed_find_each_other() {
    let seed = TestNode::start(config(1)).await;
    let mut nodes = Vec::new();
    for number in 2..=5 {
        nodes.push(TestNode::start(P2pConfig { seeds: vec![seed.address.clone()], ..config(number) }).await);
    }
    let peers: Vec<_> = nodes.iter().map(|node| node.peer).chain([seed.peer]).collect();
    for node in &mut nodes {
        let mut missing: HashSet<_> = peers.iter().copied().filter(|peer| *peer != node.peer).collect();
        while !missing.is_empty() {
            let peer = node.wait(|event| match event {
                P2pEvent::Connected { peer } => Some(peer),
                _ => None,
            });
            missing.remove(&peer.await);
        }
    }
    // It has run until here.
    assert!(!seed.p2p.peers().await.is_empty());
}

#[tokio::test]
async fn a_node_stops_when_it_is_told_to() {
    let (first, second) = pair().await;
    let handle = first.p2p.clone();
    first.stop().await;
    handle.publish(Topic::Consensus, Bytes::from_static(b"to nobody"));
    assert!(handle.peers().await.is_empty());
    second.stop().await;
}

#[tokio::test]
async fn the_port_of_a_node_whose_events_nobody_takes_is_free_again() {
    let node = TestNode::start(config(1)).await;
    let (address, handle) = (address::socket(&node.address).unwrap(), node.p2p.clone());
    drop(node.events);
    // The queue of commands closes with the task.
    timeout(PATIENCE, handle.commands.closed()).await.unwrap();
    std::net::TcpListener::bind(address).unwrap();
}
