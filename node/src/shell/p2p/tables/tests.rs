use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const ADDRESS_COUNT: u32 = 20_000;

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

/// An address for a number: `groups` /16s, one after the other.
fn address(number: u32, groups: u32) -> Multiaddr {
    let (group, host) = (number % groups, number / groups);
    at(&format!("/ip4/{}.{}.{}.{}/tcp/29333", 20 + group / 200, group % 200, host / 250 % 250, 1 + host % 250))
}

fn source(group: u32) -> IpAddr {
    format!("{}.{}.1.1", 60 + group / 200, group % 200).parse().unwrap()
}

fn tables() -> (Tables, Instant) {
    (Tables::new([7; 32]), Instant::now())
}

fn count(tables: &Tables, is_tried: bool) -> usize {
    tables.iter().filter(|(_, known)| known.is_tried() == is_tried).count()
}

#[test]
fn whoever_has_few_groups_fills_little_of_what_was_tried() {
    let (mut tables, now) = tables();
    for number in 0..ADDRESS_COUNT {
        let (peer, address) = (PeerId::random(), address(number, 3));
        // Each is told by another group, and answers when it is dialled.
        tables.hear(peer, vec![address.clone()], source(number % 10_000), now);
        tables.reached(peer, &address, now);
    }
    let most = usize::try_from(3 * TRIED_BUCKETS_PER_GROUP * TRIED_PLACES).unwrap();
    let tried = count(&tables, true);
    assert!(tried <= most && tried > most / 2, "{tried} of at most {most}");
    // Honest peers of other groups still find their places.
    for number in 0..50 {
        let (peer, address) = (PeerId::random(), at(&format!("/ip4/90.{number}.1.1/tcp/1")));
        tables.hear(peer, vec![address.clone()], source(1), now);
        tables.reached(peer, &address, now);
    }
    assert!(count(&tables, true) - tried > 35);
}

#[test]
fn what_one_source_says_fills_little_of_what_is_new() {
    let (mut tables, now) = tables();
    for number in 0..ADDRESS_COUNT {
        // It may name any group it likes.
        tables.hear(PeerId::random(), vec![address(number, 10_000)], source(0), now);
    }
    let most = usize::try_from(NEW_BUCKETS_PER_SOURCE * NEW_PLACES).unwrap();
    assert!(count(&tables, false) <= most && count(&tables, false) > most / 2);
    let (mut tables, now) = (Tables::new([7; 32]), now);
    for number in 0..ADDRESS_COUNT {
        tables.hear(PeerId::random(), vec![address(number, 1)], source(0), now);
    }
    assert!(count(&tables, false) <= usize::try_from(NEW_PLACES).unwrap(), "of one group it fills one bucket");
}

#[test]
fn nothing_new_pushes_out_what_was_tried() {
    let (mut tables, now) = tables();
    let honest: Vec<_> = (0..200).map(|number| (PeerId::random(), address(number, 10_000))).collect();
    for (number, (peer, address)) in (0..).zip(&honest) {
        tables.hear(*peer, vec![address.clone()], source(number), now);
        tables.reached(*peer, address, now);
    }
    let tried: HashSet<_> = tables.iter().filter(|(_, known)| known.is_tried()).map(|(peer, _)| *peer).collect();
    assert!(tried.len() > 150);
    // From everywhere, of everywhere, and also of the same addresses under other names.
    for number in 0..ADDRESS_COUNT {
        tables.hear(PeerId::random(), vec![address(number, 10_000)], source(number % 10_000), now);
    }
    assert!(tried.iter().all(|peer| tables.get(peer).is_some_and(Known::is_tried)));
    assert!(tables.known.len() <= KNOWN_MAX && tables.known.len() == tables.places.len());
}

#[test]
fn who_is_reached_keeps_its_place_until_a_dial_misses_it() {
    let (mut tables, now) = tables();
    let (first, second) = (PeerId::random(), PeerId::random());
    let place = at("/ip4/8.8.8.8/tcp/1");
    tables.hear(first, vec![place.clone()], source(1), now);
    tables.reached(first, &place, now);
    // Another name at the same address.
    tables.hear(second, vec![place.clone()], source(2), now);
    tables.reached(second, &place, now);
    assert!(tables.get(&first).unwrap().is_tried() && !tables.get(&second).unwrap().is_tried());
    tables.get_mut(&first).unwrap().miss();
    tables.reached(second, &place, now);
    assert!(tables.get(&second).unwrap().is_tried());
    assert!(tables.get(&first).is_some_and(|known| !known.is_tried()), "it is new again");
}

#[test]
fn a_rumour_stays_for_a_day() {
    let (mut tables, now) = tables();
    let (first, second) = (PeerId::random(), PeerId::random());
    let place = at("/ip4/8.8.8.8/tcp/1");
    tables.hear(first, vec![place.clone()], source(1), now);
    tables.hear(second, vec![place.clone()], source(1), now + RUMOUR_LASTS);
    assert!(tables.get(&first).is_some() && tables.get(&second).is_none());
    tables.hear(second, vec![place], source(1), now + RUMOUR_LASTS + Duration::from_secs(1));
    assert!(tables.get(&first).is_none() && tables.get(&second).is_some());
}

#[test]
fn what_a_peer_says_of_itself_counts_more_than_what_others_say() {
    let (mut tables, now) = tables();
    let peer = PeerId::random();
    let wrong: Vec<_> = (1..=9).map(|port| at(&format!("/ip4/6.6.6.6/tcp/{port}"))).collect();
    tables.hear(peer, wrong.clone(), source(1), now);
    assert_eq!(tables.get(&peer).unwrap().addresses, wrong[..ADDRESSES_MAX]);
    let own = at("/ip4/8.8.8.8/tcp/1");
    tables.hear_itself(peer, vec![own.clone()], source(2), now);
    assert_eq!(tables.get(&peer).unwrap().addresses, std::slice::from_ref(&own));
    // Where it was reached stays first, whatever it says.
    tables.reached(peer, &own, now);
    tables.hear_itself(peer, wrong.clone(), source(2), now);
    let known = tables.get(&peer).unwrap();
    assert!(known.is_tried());
    assert_eq!((&known.addresses[0], &known.addresses[1..]), (&own, &wrong[..ADDRESSES_MAX - 1]));
}

#[test]
fn another_key_gives_other_places_and_the_same_key_the_same() {
    let place = |key| Tables::new([key; 32]).tried_place(&at("/ip4/8.8.8.8/tcp/1")).unwrap();
    assert_eq!(place(1), place(1));
    let places: HashSet<_> = (0..100).map(|key| format!("{:?}", place(key))).collect();
    assert!(places.len() > 80);
    // The addresses of one host are one, those of loopback are told apart by their ports.
    let tables = Tables::new([1; 32]);
    assert_eq!(tables.tried_place(&at("/ip6/2600::1/tcp/1")), tables.tried_place(&at("/ip6/2600::2/tcp/1")));
    assert_ne!(group("127.0.0.1".parse().unwrap(), 1), group("127.0.0.1".parse().unwrap(), 2));
    assert_eq!(group("8.8.1.1".parse().unwrap(), 1), group("8.8.2.2".parse().unwrap(), 2));
}

#[test]
fn a_draw_takes_tables_and_buckets_as_often_as_each_other() {
    let (mut tables, now) = tables();
    let good = at("/ip4/8.8.8.8/tcp/1");
    let honest = PeerId::random();
    tables.hear(honest, vec![good.clone()], source(1), now);
    tables.reached(honest, &good, now);
    for number in 0..ADDRESS_COUNT {
        tables.hear(PeerId::random(), vec![address(number, 10_000)], source(0), now);
    }
    let mut rng = StdRng::seed_from_u64(1);
    let drawn = (0..1_000).filter(|_| tables.draw(&mut rng, 1, |_, _| true) == [honest]).count();
    assert!((400..600).contains(&drawn), "{drawn} of 1000: one tried peer against hundreds of new ones");
    let all = tables.draw(&mut rng, usize::MAX, |_, _| true);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), tables.known.len(), "each once");
    assert!(tables.draw(&mut rng, 9, |_, _| false).is_empty());
}
