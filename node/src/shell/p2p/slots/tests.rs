use super::*;

fn slots(change: impl FnOnce(&mut Limits)) -> Slots {
    let mut limits = Limits::default();
    change(&mut limits);
    Slots::new(&limits, HashSet::new(), [5; 32])
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

/// A peer calls from this address; whether it has a slot then.
fn call(slots: &mut Slots, number: usize, ip: &str, now: Instant) -> bool {
    let peer = PeerId::random();
    let admitted = slots.admit_inbound(&peer).is_ok();
    if admitted {
        slots.established(id(number), peer, Direction::Inbound, Some(ip.parse().unwrap()), now);
    }
    // The swarm closes what it is told to.
    while let Some((_, left)) = slots.closing.pop_front() {
        slots.taken.remove(&left);
    }
    admitted
}

#[test]
fn one_network_cannot_take_all_slots() {
    let mut slots = slots(|limits| limits.inbound = 40);
    let began = Instant::now();
    let second = |number: usize| began + Duration::from_secs(number.try_into().unwrap());
    for number in 0..2_000 {
        // Thousands of addresses in one /16.
        assert!(call(&mut slots, number, &format!("66.66.{}.{}", number / 250, number % 250), second(number)));
        assert!(slots.taken.len() <= 40);
    }
    for number in 0..200 {
        let ip = format!("20.{number}.1.1");
        assert!(
            call(&mut slots, 10_000 + number, &ip, second(10_000 + number)),
            "a stranger of another network gets in"
        );
    }
    let attackers = slots.taken.keys().filter(|id| (0..2_000).any(|number| **id == self::id(number))).count();
    // Who came first keeps what is protected for a reason (2 + 4 + 2 + 2), and half of the rest.
    assert!(attackers <= 26, "{attackers} of 40");
}

#[test]
fn few_slots_are_kept_and_a_persistent_peer_needs_none() {
    let friend = PeerId::random();
    let limits = Limits { inbound: 2, outbound: 1, connections: 3, ..Limits::default() };
    let mut slots = Slots::new(&limits, HashSet::from([friend]), [5; 32]);
    let now = Instant::now();
    assert!(call(&mut slots, 1, "8.8.8.8", now) && call(&mut slots, 2, "9.9.9.9", now));
    assert!(!call(&mut slots, 3, "7.7.7.7", now));
    assert_eq!((slots.admit_inbound(&friend), slots.admit_outbound(&friend)), (Ok(()), Ok(())));
    slots.established(id(4), friend, Direction::Inbound, None, now);
    let other = PeerId::random();
    assert_eq!(slots.admit_outbound(&other), Ok(()));
    slots.established(id(5), other, Direction::Outbound, None, now);
    let feeler = PeerId::random();
    assert_eq!(slots.admit_outbound(&feeler), Err(Full));
    slots.feel(feeler);
    assert_eq!((slots.admit_outbound(&feeler), slots.admit_outbound(&PeerId::random())), (Ok(()), Err(Full)));
    slots.taken.remove(&id(5));
    assert_eq!(slots.admit_outbound(&PeerId::random()), Ok(()));
}

#[test]
fn those_that_leave_are_few_at_once() {
    let mut slots = slots(|limits| limits.inbound = 60);
    let now = Instant::now();
    for number in 0..60 {
        call(&mut slots, number, "8.8.8.8", now);
    }
    let admitted = (0..100).filter(|_| {
        let peer = PeerId::random();
        let admitted = slots.admit_inbound(&peer).is_ok();
        if admitted {
            slots.established(id(100 + slots.taken.len()), peer, Direction::Inbound, None, now);
        }
        admitted
    });
    assert_eq!(admitted.count(), LEAVING_MAX);
    assert_eq!((slots.closing.len(), slots.count(Direction::Inbound)), (LEAVING_MAX, 60));
}

#[test]
fn whoever_is_slow_in_its_handshake_holds_up_its_own_network() {
    let mut slots = slots(|limits| limits.pending_inbound = 64);
    let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let begun = (0..64).filter(|number| slots.begin(id(*number), ip(&format!("66.66.{number}.1"))).is_ok()).count();
    assert_eq!(begun, 8);
    assert_eq!(slots.begin(id(100), ip("20.1.1.1")), Ok(()));
    // One of it fails, another may come; nodes on this machine are not counted.
    slots.pending.remove(&id(0));
    assert_eq!(slots.begin(id(101), ip("66.66.99.1")), Ok(()));
    assert!(slots.begin(id(102), ip("66.66.99.2")).is_err());
    assert!((200..300).all(|number| slots.begin(id(number), ip("127.0.0.1")).is_ok()));
    slots
        .handle_established_inbound_connection(id(101), PeerId::random(), &Multiaddr::empty(), &Multiaddr::empty())
        .unwrap();
    assert_eq!(slots.begin(id(102), ip("66.66.99.2")), Ok(()));
}

#[test]
fn merits_are_those_of_the_peer() {
    let mut slots = slots(|_| {});
    let (peer, now) = (PeerId::random(), Instant::now());
    slots.established(id(1), peer, Direction::Inbound, None, now);
    slots.established(id(2), PeerId::random(), Direction::Inbound, None, now);
    slots.useful(&peer, Topic::Transactions, now);
    slots.useful(&peer, Topic::Consensus, now);
    for milliseconds in [9, 7, 8] {
        slots.pinged(id(1), Duration::from_millis(milliseconds));
    }
    let merit = slots.taken[&id(1)].merit;
    assert_eq!((merit.transaction, merit.block, merit.ping), (Some(now), Some(now), Some(Duration::from_millis(7))));
    let merit = slots.taken[&id(2)].merit;
    assert_eq!((merit.transaction, merit.block, merit.ping), (None, None, None));
}
