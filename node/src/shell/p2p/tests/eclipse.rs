//! Who decides whom a node is connected with: itself, whoever comes, and however many they are.

use futures::StreamExt;
use libp2p::identify;
use libp2p::swarm::SwarmEvent;

use super::hostile::warnings;
use super::raw::{Raw, RawBehaviourEvent, Says, closed, raw, wait};
use super::*;

/// Runs a raw peer on, for its connection to stay.
fn keep(mut raw: Raw) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            raw.select_next_some().await;
        }
    })
}

/// What the node says of itself to this raw peer.
async fn identity(raw: &mut Raw) -> identify::Info {
    wait(raw, |event| match event {
        SwarmEvent::Behaviour(RawBehaviourEvent::Identify(identify::Event::Received { info, .. })) => Some(info),
        _ => None,
    })
    .await
}

/// The names in the address book of a node that has stopped.
fn known(path: &Path) -> Vec<PeerId> {
    let saved = book_file::load(path, chain(1)).unwrap().unwrap();
    saved.peers.into_iter().map(|peer| peer.peer).collect()
}

#[tokio::test]
async fn a_node_that_starts_again_finds_its_peers_without_seeds() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("peers.dat");
    let first = TestNode::start(config(1)).await;
    let mut second = TestNode::start(config(2)).await;
    let remembers = P2pConfig { book: Some(book.clone()), ..config(3) };
    let seeds = vec![first.address.clone(), second.address.clone()];
    let mut node = TestNode::start(P2pConfig { seeds, ..remembers.clone() }).await;
    node.connected(first.peer).await;
    second.connected(node.peer).await;
    node.stop().await;
    let saved = book_file::load(&book, chain(1)).unwrap().unwrap();
    assert!(saved.peers.iter().all(|peer| peer.is_tried && peer.is_anchor) && saved.peers.len() == 2, "{saved:?}");
    // One of them alone is enough.
    first.stop().await;
    let mut node = TestNode::start(remembers).await;
    node.connected(second.peer).await;
    let [info] = &node.p2p.peers().await[..] else { panic!("one peer") };
    assert_eq!((info.direction, info.persistent), (Direction::Outbound, false));
}

#[tokio::test]
async fn a_damaged_address_book_is_said_and_replaced() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("peers.dat");
    std::fs::write(&book, b"CWPEERS1 and then nothing of the kind").unwrap();
    let (_guard, mut lines) = warnings();
    let seed = TestNode::start(config(1)).await;
    let seeds = vec![seed.address.clone()];
    let mut node = TestNode::start(P2pConfig { book: Some(book.clone()), seeds, ..config(2) }).await;
    let line = timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
    for part in ["no peers are remembered", "is damaged", "peers.dat"] {
        assert!(line.contains(part), "{line}");
    }
    node.connected(seed.peer).await;
    node.stop().await;
    assert_eq!(known(&book), [seed.peer]);
}

#[tokio::test]
async fn who_only_calls_is_never_proven() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("peers.dat");
    // It looks for nobody, so that nobody can be proven by its own dials.
    let mut node = P2pConfig { book: Some(book.clone()), ..config(1) };
    node.limits.outbound_wanted = 0;
    let mut node = TestNode::start(node).await;
    let caller = TestNode::start(config_to(2, &[&node])).await;
    node.connected(caller.peer).await;
    node.stop().await;
    let saved = book_file::load(&book, chain(1)).unwrap().unwrap();
    let [peer] = &saved.peers[..] else { panic!("the caller is known: {saved:?}") };
    assert!(peer.peer == caller.peer && !peer.is_tried && !peer.is_anchor);
}

#[tokio::test]
async fn who_was_only_heard_of_is_tried_and_left() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("peers.dat");
    let quiet = |number, others: &[&TestNode]| {
        let mut quiet = config_to(number, others);
        quiet.limits.outbound_wanted = 0;
        quiet
    };
    let mut seed = TestNode::start(quiet(1, &[])).await;
    let other = TestNode::start(quiet(2, &[&seed])).await;
    seed.connected(other.peer).await;
    // One outbound peer is enough for it; of the other it hears from that one.
    let mut few = P2pConfig { book: Some(book.clone()), seeds: vec![seed.address.clone()], ..config(3) };
    few.limits.outbound = 1;
    few.limits.outbound_wanted = 1;
    let tries = async {
        loop {
            let mut node = TestNode::start(few.clone()).await;
            node.connected(seed.peer).await;
            tokio::time::sleep(4 * few.timing.feeler).await;
            node.stop().await;
            let saved = book_file::load(&book, chain(1)).unwrap().unwrap();
            let heard_of = saved.peers.iter().find(|peer| peer.peer == other.peer);
            if heard_of.is_some_and(|heard_of| heard_of.is_tried && !heard_of.is_anchor) {
                break;
            }
        }
    };
    timeout(PATIENCE, tries).await.expect("it is tried");
}

#[tokio::test]
async fn a_node_with_only_some_peers_has_no_others_and_tells_nobody_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    // A sentry that knows the validator as a persistent peer, and strangers around it.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    drop(held);
    let validator_address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let validator_peer = key(1).public().to_peer_id();
    let persistent = vec![validator_address.clone().with(Protocol::P2p(validator_peer))];
    let mut sentry = TestNode::start(P2pConfig { persistent, ..config(2) }).await;
    let validator = P2pConfig { listen: vec![validator_address], only: vec![sentry.full()], ..config(1) };
    let validator = TestNode::start(validator).await;
    sentry.connected(validator.peer).await;
    let seeds = vec![sentry.address.clone()];
    let neighbour = TestNode::start(P2pConfig { seeds: seeds.clone(), ..config(3) }).await;
    let book = home.path().join("peers.dat");
    let mut stranger = TestNode::start(P2pConfig { seeds, book: Some(book.clone()), ..config(4) }).await;
    stranger.connected(neighbour.peer).await;
    // A stranger that knows where it is does not get in.
    closed(&mut raw(9, Says::All, &validator)).await;
    let peers = validator.p2p.peers().await;
    assert!(peers.len() == 1 && peers[0].peer == sentry.peer && peers[0].persistent, "{peers:?}");
    // Who asked the sentry has not heard of it.
    stranger.stop().await;
    let known = known(&book);
    assert!(known.contains(&neighbour.peer) && !known.contains(&validator.peer));
}

#[tokio::test]
async fn what_a_node_with_only_some_peers_says_of_itself_has_no_address() {
    let friend = key(9).public().to_peer_id();
    // Nobody listens there: the friend calls.
    let only = vec![format!("/ip4/127.0.0.1/tcp/1/p2p/{friend}").parse().unwrap()];
    let hidden = TestNode::start(P2pConfig { only, ..config(1) }).await;
    assert_eq!(identity(&mut raw(9, Says::All, &hidden)).await.listen_addrs, []);
    let open = TestNode::start(config(2)).await;
    assert_eq!(identity(&mut raw(9, Says::All, &open)).await.listen_addrs, std::slice::from_ref(&open.address));
}

#[tokio::test]
async fn names_of_the_operator_are_looked_up() {
    let named = |node: &TestNode, form: &str| {
        let (_, port) = address::socket(&node.address).unwrap();
        format!("/{form}/localhost/tcp/{port}").parse::<Multiaddr>().unwrap()
    };
    let mut persistent = TestNode::start(config(1)).await;
    let mut seed = TestNode::start(config(2)).await;
    let node = TestNode::start(P2pConfig {
        persistent: vec![named(&persistent, "dns4").with(Protocol::P2p(persistent.peer))],
        seeds: vec![named(&seed, "dns4")],
        ..config(3)
    });
    let node = node.await;
    persistent.connected(node.peer).await;
    seed.connected(node.peer).await;
    let mut expected = [persistent.address.clone(), seed.address.clone()];
    expected.sort();
    // It may hear of a connection a moment after the other.
    let wait = async {
        loop {
            let peers = node.p2p.peers().await;
            let mut dialled: Vec<_> = peers.into_iter().map(|info| address::split(&info.address).0).collect();
            dialled.sort();
            if dialled == expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it has dialled both");
}

#[tokio::test]
async fn a_name_leads_where_a_stranger_could_not_lead() {
    let everywhere: Multiaddr = "/ip4/0.0.0.0/tcp/0".parse().unwrap();
    let reach = address::Reach::new([&everywhere].into_iter(), [].into_iter());
    let inside: Multiaddr = "/ip4/10.0.0.7/tcp/1".parse().unwrap();
    assert!(!reach.allows(&inside));
    let name: Multiaddr = "/dns4/sentry/tcp/1".parse().unwrap();
    reach.clone().name(name.clone(), vec![("10.0.0.7".parse().unwrap(), 1)]);
    assert!(reach.allows(&inside));
    // When it stands for another address, the first one is a stranger's again.
    reach.name(name, vec![("10.0.0.8".parse().unwrap(), 1)]);
    assert!(!reach.allows(&inside));
}

#[tokio::test]
async fn a_node_is_told_of_under_its_external_name() {
    let external = vec!["/dns4/localhost/tcp/7".parse().unwrap()];
    let node = TestNode::start(P2pConfig { external, ..config(1) }).await;
    let expected: Multiaddr = "/ip4/127.0.0.1/tcp/7".parse().unwrap();
    let told = async { while !identity(&mut raw(9, Says::All, &node)).await.listen_addrs.contains(&expected) {} };
    timeout(PATIENCE, told).await.unwrap();
}

#[tokio::test]
async fn a_full_node_makes_room_for_the_next_and_keeps_who_was_there_first() {
    let mut full = config(1);
    full.limits.inbound = 8;
    let mut node = TestNode::start(full).await;
    let mut peers = Vec::new();
    for number in 10..18 {
        let raw = raw(number, Says::All, &node);
        peers.push(*raw.local_peer_id());
        keep(raw);
        node.connected(peers[peers.len() - 1]).await;
    }
    let next = raw(20, Says::All, &node);
    let name = *next.local_peer_id();
    keep(next);
    let gone = node.wait(|event| match event {
        P2pEvent::Disconnected { peer } => Some(peer),
        _ => None,
    });
    let gone = gone.await;
    node.connected(name).await;
    assert_eq!(gone, peers[7], "of equals, who came last");
    let now: Vec<_> = node.p2p.peers().await.into_iter().map(|info| info.peer).collect();
    assert!(now.len() == 8 && now.contains(&name) && !now.contains(&gone));
}

#[tokio::test]
async fn who_says_all_the_time_who_it_is_is_refused() {
    let mut node = TestNode::start(config(1)).await;
    let mut stranger = raw(9, Says::All, &node);
    let name = *stranger.local_peer_id();
    identity(&mut stranger).await;
    tokio::select! {
        () = node.connected(name) => {}
        _ = async { loop { stranger.select_next_some().await; } } => {}
    }
    let mut pushes = 0;
    loop {
        stranger.behaviour_mut().push(node.peer);
        let is_over = wait(&mut stranger, |event| match event {
            SwarmEvent::ConnectionClosed { .. } => Some(true),
            SwarmEvent::Behaviour(RawBehaviourEvent::Identify(identify::Event::Pushed { .. })) => Some(false),
            _ => None,
        });
        if is_over.await {
            break;
        }
        pushes += 1;
        assert!(pushes < 1_000, "it is heard all the time");
    }
    assert!(pushes > 5);
    node.disconnected(name).await;
    closed(&mut raw(9, Says::All, &node)).await;
}

#[tokio::test]
async fn a_persistent_peer_that_says_all_the_time_who_it_is_stays() {
    let friend = key(9).public().to_peer_id();
    let persistent = vec![format!("/ip4/127.0.0.1/tcp/1/p2p/{friend}").parse().unwrap()];
    let node = TestNode::start(P2pConfig { persistent, ..config(1) }).await;
    let mut raw = raw(9, Says::All, &node);
    identity(&mut raw).await;
    for _ in 0..60 {
        raw.behaviour_mut().push(node.peer);
        wait(&mut raw, |event| match event {
            SwarmEvent::ConnectionClosed { .. } => panic!("the friend was disconnected"),
            SwarmEvent::Behaviour(RawBehaviourEvent::Identify(identify::Event::Pushed { .. })) => Some(()),
            _ => None,
        })
        .await;
    }
}
