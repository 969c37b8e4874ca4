//! Who is connected, counted by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::refusal::Refusal;
use super::{ANSWER_BYTES_MAX, Limits};

/// Part of the memory for large answers that one address may take.
const ANSWERS_SHARE: usize = 4;

/// The addresses that are connected.
pub(super) struct Hosts {
    limits: Limits,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    connections: usize,
    by_address: HashMap<IpAddr, Host>,
}

struct Host {
    connections: usize,
    shares: Shares,
}

/// What the connections of one address share.
#[derive(Clone)]
pub(super) struct Shares {
    /// Requests under way.
    pub(super) requests: Arc<Semaphore>,
    /// Large answers, in KiB.
    pub(super) answers: Arc<Semaphore>,
}

impl Hosts {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, inside: Mutex::default() }
    }

    /// Returns the place of one more connection, which is free again when it is dropped.
    ///
    /// # Errors
    /// The limit that it is over; that of its address first.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Seat, Refusal> {
        let limits = &self.limits;
        let address = key(ip);
        let (connections, requests, share) = if address.is_loopback() {
            (limits.connections_per_loopback_address, limits.requests_per_loopback_address, 1)
        } else {
            (limits.connections_per_address, limits.requests_per_address, ANSWERS_SHARE)
        };
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.by_address.get(&address).map_or(0, |host| host.connections) >= connections {
            return Err(Refusal::ConnectionsOfAddress);
        }
        if inside.connections >= limits.connections {
            return Err(Refusal::Connections);
        }
        inside.connections += 1;
        let host = inside.by_address.entry(address).or_insert_with(|| Host {
            connections: 0,
            shares: Shares {
                requests: Arc::new(Semaphore::new(requests)),
                answers: Arc::new(Semaphore::new((ANSWER_BYTES_MAX >> 10) / share)),
            },
        });
        host.connections += 1;
        Ok(Seat { hosts: Arc::clone(self), address, shares: host.shares.clone() })
    }
}

/// The place of one connection.
pub(super) struct Seat {
    hosts: Arc<Hosts>,
    address: IpAddr,
    pub(super) shares: Shares,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.hosts.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.connections -= 1;
        let Some(host) = inside.by_address.get_mut(&self.address) else { return };
        host.connections -= 1;
        if host.connections == 0 {
            inside.by_address.remove(&self.address);
        }
    }
}

/// Returns what counts as one address: an IPv6 host has a /64 of them.
fn key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_ipv4_or_a_network_of_ipv6() {
        let same = [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
            ("::1", "::1"),
        ];
        for (one, other) in same {
            assert_eq!(key(one.parse().unwrap()), key(other.parse().unwrap()), "{one} {other}");
        }
        let different = [("192.0.2.1", "192.0.2.2"), ("2001:db8:1:2::1", "2001:db8:1:3::1"), ("::1", "::2")];
        for (one, other) in different {
            assert_ne!(key(one.parse().unwrap()), key(other.parse().unwrap()), "{one} {other}");
        }
        assert!(key("::1".parse().unwrap()).is_loopback() && key("::ffff:127.0.0.9".parse().unwrap()).is_loopback());
    }

    #[test]
    fn places_are_limited_and_free_again() {
        let limits = Limits { connections_per_loopback_address: 3, ..Limits::of_connections(4, 2) };
        let hosts = Arc::new(Hosts::new(limits));
        let admit = |ip: &str| hosts.admit(ip.parse().unwrap());
        let (one, two) = (admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap());
        assert!(matches!(admit("192.0.2.1"), Err(Refusal::ConnectionsOfAddress)));
        assert_eq!(one.shares.requests.available_permits(), 1);
        let others = [admit("127.0.0.1").unwrap(), admit("127.0.0.1").unwrap()];
        assert!(matches!(admit("127.0.0.1"), Err(Refusal::Connections)));
        drop(one);
        let third = admit("127.0.0.1").unwrap();
        drop(two);
        assert!(matches!(admit("127.0.0.1"), Err(Refusal::ConnectionsOfAddress)));
        drop((others, third));
        let inside = hosts.inside.lock().unwrap();
        assert_eq!((inside.connections, inside.by_address.len()), (0, 0), "nothing is kept of those who have gone");
    }
}
