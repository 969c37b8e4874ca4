use std::collections::HashSet;

use super::*;

const LOCAL: &str = "/ip4/127.0.0.1/tcp/1";
const PUBLIC: &str = "/ip4/8.8.8.8/tcp/1";

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

fn book(max: usize, persistent: &[(PeerId, Multiaddr)], seeds: &[Multiaddr], now: Instant) -> Book {
    let reach = Reach::new([].into_iter(), seeds.iter());
    Book::new(PeerId::random(), reach, max, Timing::default(), persistent, seeds, now)
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
    let mut book = book(10, &[(peer, at(LOCAL))], &[], now);
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
    let mut book = book(10, &[], &[at(PUBLIC)], now);
    let peer = PeerId::random();
    book.learn(peer, &[at("/ip4/9.9.9.9/tcp/1")], now);
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
fn only_what_can_be_reached_is_learnt() {
    let now = Instant::now();
    let mut book = book(10, &[], &[], now);
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
    book.learn(peer, &useless.map(|address| at(&address)), now);
    book.learn(book.local, &[at(PUBLIC)], now);
    assert!(book.entries.is_empty());
    let many: Vec<_> = (1..100).map(|port| at(&format!("/ip4/8.8.8.8/tcp/{port}/p2p/{peer}"))).collect();
    book.learn(peer, &many, now);
    book.learn(peer, &[at("/ip4/8.8.8.8/tcp/500")], now);
    assert_eq!(book.entries[&peer].addresses.len(), ADDRESSES_MAX);
    assert_eq!(book.entries[&peer].addresses[0], at(PUBLIC));
}

#[test]
fn a_full_book_keeps_those_that_were_peers() {
    let now = Instant::now();
    let kept: HashSet<_> = (0..3).map(|_| PeerId::random()).collect();
    let mut book = book(4, &[], &[], now);
    for peer in &kept {
        book.learn(*peer, &[at(PUBLIC)], now);
        book.proven(*peer, None);
    }
    for _ in 0..100 {
        book.learn(PeerId::random(), &[at(PUBLIC)], now);
    }
    assert_eq!(book.entries.len(), 4);
    assert!(kept.iter().all(|peer| book.entries.contains_key(peer)));
}

#[test]
fn a_peer_that_never_answers_is_forgotten() {
    let now = Instant::now();
    let mut book = book(4, &[], &[], now);
    let (never, once) = (PeerId::random(), PeerId::random());
    for peer in [never, once] {
        book.learn(peer, &[at(PUBLIC)], now);
    }
    book.proven(once, Some(&at("/ip4/8.8.4.4/tcp/1")));
    assert_eq!(book.entries[&once].addresses, [at("/ip4/8.8.4.4/tcp/1"), at(PUBLIC)]);
    for number in 0..4 {
        for (offset, peer) in [(0, never), (100, once)] {
            book.dialling(Target::Peer(peer), id(number + offset));
            book.failed(id(number + offset), now);
        }
    }
    assert!(!book.entries.contains_key(&never) && book.entries.contains_key(&once));
    book.avoid(once, now);
    assert!(book.entries.is_empty());
}

#[test]
fn a_peer_whose_place_is_taken_is_passed_over() {
    let now = Instant::now();
    let mut book = book(10, &[], &[], now);
    for _ in 0..5 {
        book.learn(PeerId::random(), &[at(PUBLIC)], now);
    }
    assert_eq!(book.due(now, 3, nobody, anywhere).len(), 3);
    assert!(book.due(now, 3, nobody, |_| false).is_empty());
    assert!(book.due(now, 3, |_| true, anywhere).is_empty());
}
