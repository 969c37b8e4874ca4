use std::collections::HashSet;
use std::time::Duration;

use super::*;

fn gate(change: impl FnOnce(&mut Limits)) -> Gate {
    let mut limits = Limits::default();
    change(&mut limits);
    Gate::new(limits, company([], false))
}

fn company<const N: usize>(persistent: [PeerId; N], is_only: bool) -> Company {
    Company { persistent: HashSet::from(persistent), is_only }
}

fn at(address: &str) -> Multiaddr {
    address.parse().unwrap()
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

#[test]
fn the_limit_of_an_address_counts_its_64_and_is_lifted_by_an_end() {
    let mut gate = gate(|limits| limits.per_ip = 2);
    assert_eq!(gate.inbound(id(1), &at("/ip6/2600::1/tcp/1")), Ok(()));
    assert_eq!(gate.inbound(id(2), &at("/ip6/2600::2/tcp/1")), Ok(()));
    assert_eq!(gate.inbound(id(3), &at("/ip6/2600::3/tcp/1")), Err(Refusal::AddressFull("2600::".parse().unwrap())));
    assert_eq!(gate.inbound(id(4), &at("/ip6/2600:0:0:1::3/tcp/1")), Ok(()));
    gate.uncount(id(1));
    gate.uncount(id(1));
    assert_eq!(gate.inbound(id(3), &at("/ip6/2600::3/tcp/1")), Ok(()));
    assert!(gate.inbound(id(5), &at("/ip6/2600::5/tcp/1")).is_err());
}

#[test]
fn an_address_may_not_hide_in_the_other_family() {
    let mut gate = gate(|limits| limits.per_ip = 1);
    assert_eq!(gate.inbound(id(1), &at("/ip4/8.8.8.8/tcp/1")), Ok(()));
    assert!(gate.inbound(id(2), &at("/ip6/::ffff:8.8.8.8/tcp/1")).is_err());
}

#[test]
fn outbound_connections_are_of_many_groups() {
    let mut gate = gate(|limits| limits.outbound_per_group = 1);
    let peer = PeerId::random();
    assert_eq!(gate.outbound(id(1), peer, &at("/ip4/8.8.8.8/tcp/1")), Ok(()));
    assert_eq!(
        gate.outbound(id(2), peer, &at("/ip4/8.8.1.1/tcp/1")),
        Err(Refusal::GroupFull("8.8.0.0".parse().unwrap()))
    );
    assert_eq!(gate.outbound(id(3), peer, &at("/ip4/8.9.1.1/tcp/1")), Ok(()));
    assert!(!gate.has_room("8.8.3.3".parse().unwrap()) && gate.has_room("8.10.3.3".parse().unwrap()));
    // Others may come from anywhere, and a private network is one owner's anyway.
    assert_eq!(gate.inbound(id(4), &at("/ip4/8.8.1.1/tcp/1")), Ok(()));
    for number in 5..8 {
        assert_eq!(gate.outbound(id(number), peer, &at(&format!("/ip4/127.0.0.1/tcp/{number}"))), Ok(()));
    }
}

#[test]
fn a_persistent_peer_is_not_counted_but_can_be_banned() {
    let peer = PeerId::random();
    let limits = Limits { per_ip: 0, outbound_per_group: 0, ..Limits::default() };
    let mut gate = Gate::new(limits, company([peer], false));
    assert_eq!(gate.outbound(id(1), peer, &at("/ip4/8.8.8.8/tcp/1")), Ok(()));
    assert!(gate.outbound(id(2), PeerId::random(), &at("/ip4/8.8.8.8/tcp/1")).is_err());
    gate.ban_peer(peer, Instant::now() + Duration::from_secs(3_600));
    assert_eq!(gate.outbound(id(1), peer, &at("/ip4/8.8.8.8/tcp/1")), Err(Refusal::PeerBanned(peer)));
}

#[test]
fn whoever_is_not_among_the_only_ones_is_refused() {
    let (sentry, stranger) = (PeerId::random(), PeerId::random());
    let mut gate = Gate::new(Limits::default(), company([sentry], true));
    let address = at("/ip4/8.8.8.8/tcp/1");
    assert_eq!((gate.check_peer(sentry), gate.check_peer(stranger)), (Ok(()), Err(Refusal::Stranger(stranger))));
    assert_eq!(gate.outbound(id(1), sentry, &address), Ok(()));
    assert_eq!(gate.outbound(id(2), stranger, &address), Err(Refusal::Stranger(stranger)));
}

#[test]
fn a_ban_of_an_address_is_for_all_who_share_it_but_not_for_this_machine() {
    let mut gate = gate(|_| {});
    let until = Instant::now() + Duration::from_secs(3_600);
    gate.ban_address("2600::1".parse().unwrap(), until);
    gate.ban_address("127.0.0.1".parse().unwrap(), until);
    gate.ban_address("::1".parse().unwrap(), until);
    let banned = Refusal::AddressBanned("2600::".parse().unwrap());
    assert_eq!(gate.inbound(id(1), &at("/ip6/2600::7/tcp/1")), Err(banned));
    assert_eq!(gate.outbound(id(1), PeerId::random(), &at("/ip6/2600::7/tcp/1")), Err(banned));
    assert_eq!(gate.inbound(id(1), &at("/ip4/127.0.0.1/tcp/1")), Ok(()));
    assert_eq!(gate.inbound(id(2), &at("/ip6/::1/tcp/1")), Ok(()));
}

#[test]
fn bans_end_and_are_bounded() {
    let now = Instant::now();
    let mut bans = Bans::new(2);
    bans.insert(1, now + Duration::from_secs(10));
    bans.insert(1, now + Duration::from_secs(5));
    bans.insert(2, now + Duration::from_secs(20));
    assert!(bans.contains(&1, now + Duration::from_secs(9)));
    assert!(!bans.contains(&1, now + Duration::from_secs(10)));
    bans.insert(3, now + Duration::from_secs(15));
    assert!(!bans.contains(&1, now) && bans.contains(&2, now) && bans.contains(&3, now));
    bans.expire(now + Duration::from_secs(16));
    assert_eq!(bans.until.len(), 1);
}
