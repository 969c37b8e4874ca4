use std::net::Ipv4Addr;

use rand::SeedableRng;

use super::*;

const LOCAL: &str = "/ip4/127.0.0.1/tcp/1";
const PUBLIC: &str = "/ip4/8.8.8.8/tcp/1";

/// Who tells.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

/// A public address of its own group.
fn public(number: u8) -> Multiaddr {
    at(&format!("/ip4/20.{number}.1.1/tcp/1"))
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

fn book_of(saved: Saved, persistent: &[(PeerId, Multiaddr)], seeds: &[Multiaddr], now: Instant) -> Book {
    let reach = Reach::new([].into_iter(), seeds.iter());
    let rng = StdRng::seed_from_u64(1);
    Book::new(PeerId::random(), reach, Timing::default(), (persistent, seeds), saved, rng, now)
}

fn book(persistent: &[(PeerId, Multiaddr)], seeds: &[Multiaddr], now: Instant) -> Book {
    book_of(Saved::fresh([3; 32]), persistent, seeds, now)
}

fn nobody(_: &PeerId) -> bool {
    false
}

fn anywhere(_: &Multiaddr) -> bool {
    true
}

/// The wait after a dial that fails.
fn wait(book: &mut Book, target: Target, number: usize, now: Instant) -> Duration {
    book.dialling(target, id(number));
    book.failed(id(number), now);
    book.attempts(target).unwrap().next - now
}

#[test]
fn a_persistent_peer_is_dialled_for_ever_at_growing_distances() {
    let (peer, now) = (PeerId::random(), Instant::now());
    let mut book = book(&[(peer, at(LOCAL))], &[], now);
    assert_eq!(book.due_persistent(now, nobody).len(), 1);
    assert!(book.due_persistent(now, |_| true).is_empty());
    assert!(book.due(now, 9, nobody, anywhere).is_empty());
    let mut now = now;
    for (number, expected) in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60].into_iter().enumerate() {
        let wait = wait(&mut book, Target::Peer(peer), number, now);
        let expected = Duration::from_secs(expected);
        assert!(wait <= expected && wait >= expected.mul_f64(0.75), "{wait:?}");
        assert!(book.due_persistent(now, nobody).is_empty());
        now += wait;
        assert_eq!(book.due_persistent(now, nobody).len(), 1);
    }
    // A connection that lasts makes it forget the failures, one that breaks at once does not.
    book.closed(peer, Some(Duration::from_secs(1)), now);
    assert!(wait(&mut book, Target::Peer(peer), 100, now) > Duration::from_secs(40));
    book.closed(peer, Some(Duration::from_secs(61)), now);
    assert!(wait(&mut book, Target::Peer(peer), 101, now) <= Duration::from_secs(1));
}

#[test]
fn a_dial_under_way_is_not_repeated() {
    let now = Instant::now();
    let mut book = book(&[], &[at(PUBLIC)], now);
    let peer = PeerId::random();
    book.hear(peer, &[at("/ip4/9.9.9.9/tcp/1")], SOURCE, now);
    let [dial] = &book.due(now, 9, nobody, anywhere)[..] else { panic!("one is due") };
    book.dialling(dial.target, id(1));
    assert!(book.due(now, 9, nobody, anywhere).is_empty());
    book.dialling(Target::Seed(0), id(2));
    assert!(book.due_seeds(now, nobody).is_empty());
    assert_eq!(book.open_dials(), 2);
    book.connected(id(2), peer);
    assert_eq!(book.open_dials(), 1);
    // Who answered at the seed is known from now on.
    let later = now + Duration::from_secs(3_600);
    assert!(book.due_seeds(later, |connected| *connected == peer).is_empty());
    assert_eq!(book.due_seeds(later, nobody).len(), 1);
}

#[test]
fn behind_the_name_of_a_seed_may_be_many() {
    let now = Instant::now();
    let mut book = book(&[], &[at("/dns4/seed.example/tcp/1")], now);
    book.dialling(Target::Seed(0), id(1));
    let peer = PeerId::random();
    book.connected(id(1), peer);
    let later = now + Duration::from_secs(3_600);
    assert_eq!(book.due_seeds(later, |connected| *connected == peer).len(), 1, "the next answer may be another node");
}

#[test]
fn only_what_can_be_reached_is_learnt() {
    let now = Instant::now();
    let mut book = book(&[], &[], now);
    let peer = PeerId::random();
    let other = PeerId::random();
    let useless = [
        LOCAL.to_owned(),
        "/ip4/192.168.1.1/tcp/1".to_owned(),
        "/ip4/8.8.8.8/tcp/0".to_owned(),
        "/ip4/8.8.8.8/udp/1".to_owned(),
        "/dns4/example.org/tcp/1".to_owned(),
        format!("{PUBLIC}/p2p/{other}"),
    ];
    let useless = useless.map(|address| at(&address));
    book.hear(peer, &useless, SOURCE, now);
    book.hear_itself(peer, &useless, SOURCE, now);
    book.hear(book.local, &[at(PUBLIC)], SOURCE, now);
    book.hear_itself(book.local, &[at(PUBLIC)], SOURCE, now);
    assert_eq!(book.tables.iter().count(), 0);
    let many: Vec<_> = (1..100).map(|port| at(&format!("/ip4/8.8.8.8/tcp/{port}/p2p/{peer}"))).collect();
    book.hear(peer, &many, SOURCE, now);
    book.hear(peer, &[at("/ip4/8.8.8.8/tcp/500")], SOURCE, now);
    let known = book.tables.get(&peer).unwrap();
    assert_eq!((known.addresses.len(), &known.addresses[0]), (ADDRESSES_MAX, &at(PUBLIC)));
}

#[test]
fn who_calls_by_itself_is_not_proven() {
    let now = Instant::now();
    let mut book = book(&[], &[], now);
    let (caller, called) = (PeerId::random(), PeerId::random());
    book.hear_itself(caller, &[public(1)], SOURCE, now);
    book.hear_itself(called, &[public(2)], SOURCE, now);
    book.proven(called, &public(2).with(libp2p::multiaddr::Protocol::P2p(called)), now);
    assert!(!book.tables.get(&caller).unwrap().is_tried());
    assert!(book.tables.get(&called).unwrap().is_tried());
    // Behind a router a peer may not know where it is; who has reached it does.
    let (routed, persistent) = (PeerId::random(), PeerId::random());
    book.proven(routed, &public(3), now);
    assert!(book.tables.get(&routed).unwrap().is_tried());
    let mut book = self::book(&[(persistent, public(4))], &[], now);
    book.proven(persistent, &public(4), now);
    assert!(book.tables.get(&persistent).is_none());
}

#[test]
fn a_feeler_goes_to_who_was_only_heard_of() {
    let now = Instant::now();
    let mut book = book(&[], &[], now);
    let (tried, heard) = (PeerId::random(), PeerId::random());
    book.proven(tried, &public(1), now);
    assert_eq!(book.due_new(now, nobody, anywhere), None);
    book.hear(heard, &[public(2)], SOURCE, now);
    for _ in 0..20 {
        assert_eq!(book.due_new(now, nobody, anywhere), Some(dial(heard, &[public(2)])));
    }
    assert_eq!(book.due_new(now, |_| true, anywhere), None);
    assert_eq!(book.due_new(now, nobody, |_| false), None);
}

#[test]
fn a_peer_that_never_answers_is_forgotten() {
    let now = Instant::now();
    let mut book = book(&[], &[], now);
    let (never, once) = (PeerId::random(), PeerId::random());
    book.hear(never, &[public(1)], SOURCE, now);
    book.hear(once, &[public(2)], SOURCE, now);
    book.proven(once, &at("/ip4/8.8.4.4/tcp/1"), now);
    assert_eq!(book.tables.get(&once).unwrap().addresses, [at("/ip4/8.8.4.4/tcp/1"), public(2)]);
    for number in 0..4 {
        for (offset, peer) in [(0, never), (100, once)] {
            book.dialling(Target::Peer(peer), id(number + offset));
            book.failed(id(number + offset), now);
        }
    }
    assert!(book.tables.get(&never).is_none() && book.tables.get(&once).is_some());
    book.avoid(once, now);
    assert_eq!(book.tables.iter().count(), 0);
}

#[test]
fn a_peer_whose_place_is_taken_is_passed_over() {
    let now = Instant::now();
    let mut book = book(&[], &[], now);
    for number in 0..5 {
        book.hear(PeerId::random(), &[public(number)], SOURCE, now);
    }
    assert_eq!(book.due(now, 3, nobody, anywhere).len(), 3);
    assert!(book.due(now, 3, nobody, |_| false).is_empty());
    assert!(book.due(now, 3, |_| true, anywhere).is_empty());
}

#[test]
fn the_next_run_knows_what_this_one_knew_and_dials_its_anchors_first() {
    let now = Instant::now();
    let mut first = book(&[], &[], now);
    let peers: Vec<_> = (0..100).map(|number| (PeerId::random(), public(number))).collect();
    for (peer, address) in &peers {
        first.hear(*peer, std::slice::from_ref(address), SOURCE, now);
    }
    for (peer, address) in &peers[..20] {
        first.proven(*peer, address, now);
    }
    let anchors = [peers[7].0, peers[11].0];
    let saved = first.saved(&anchors);
    assert_eq!(saved.peers.len(), first.tables.iter().count());
    let mut second = book_of(saved.clone(), &[], &[], now);
    assert_eq!(second.saved(&anchors), saved, "each in its place");
    let dialled = |dials: Vec<Dial>| dials.into_iter().filter_map(|dial| dial.peer).collect::<Vec<_>>();
    let both = dialled(second.due(now, 3, nobody, anywhere));
    assert!(both.len() == 3 && anchors.iter().all(|anchor| both[..2].contains(anchor)));
    // Each is dialled first once.
    for (number, anchor) in anchors.into_iter().enumerate() {
        second.dialling(Target::Peer(anchor), id(number));
        second.failed(id(number), now);
    }
    let later = now + Duration::from_secs(3_600);
    let firsts = (0..20).filter(|_| anchors.contains(&dialled(second.due(later, 1, nobody, anywhere))[0])).count();
    assert!(firsts < 10);
}

#[test]
fn what_was_saved_is_believed_no_more_than_what_is_heard() {
    let now = Instant::now();
    let (inside, persistent) = (PeerId::random(), PeerId::random());
    let saved = |peer, ip: &str| SavedPeer {
        peer,
        addresses: vec![(ip.parse().unwrap(), 1)],
        source: SOURCE,
        is_tried: true,
        is_anchor: true,
    };
    let peers = vec![saved(inside, "10.0.0.1"), saved(persistent, "8.8.8.8")];
    let book = book_of(Saved { key: [3; 32], peers }, &[(persistent, at(LOCAL))], &[], now);
    assert_eq!((book.tables.iter().count(), book.anchors.len()), (0, 0));
}

#[test]
fn persistent_peers_are_told_to_nobody_and_others_only_where_they_can_be_reached() {
    let now = Instant::now();
    let persistent = PeerId::random();
    let own = at("/ip4/10.0.0.9/tcp/1");
    let reach = Reach::new([&own].into_iter(), [].into_iter());
    let fixed = [(persistent, at(PUBLIC))];
    let rng = StdRng::seed_from_u64(1);
    let saved = Saved::fresh([3; 32]);
    let mut book = Book::new(PeerId::random(), reach, Timing::default(), (&fixed, &[]), saved, rng, now);
    let (near, far) = (PeerId::random(), PeerId::random());
    book.hear(near, &[at("/ip4/10.0.0.1/tcp/1")], SOURCE, now);
    book.hear(far, &[at("/ip4/10.0.0.2/tcp/1"), public(1)], SOURCE, now);
    book.hear_itself(persistent, &[public(2)], SOURCE, now);
    assert_eq!(book.tell(9, Scope::Public, |_| true), [(far, vec![public(1)])]);
    let told = book.tell(9, Scope::Private, |_| true);
    assert_eq!(told.iter().map(|(_, addresses)| addresses.len()).sum::<usize>(), 3);
    assert!(told.iter().all(|(peer, _)| *peer != persistent));
    assert_eq!(book.tell(9, Scope::Private, |peer| *peer != near).len(), 1);
    assert_eq!(book.tell(1, Scope::Loopback, |_| true).len(), 1);
}
