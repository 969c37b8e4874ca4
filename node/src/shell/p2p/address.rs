//! What can be read from an address: who is there, how far it reaches, who else is near.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// This machine.
    Loopback,
    /// A network that is not public.
    Private,
    /// Everywhere.
    Public,
}

/// Returns the IP address and port of an address that this node can dial or listen on, which is
/// `/ip4/../tcp/..` or `/ip6/../tcp/..`, with or without `/p2p/..`.
pub(super) fn socket(address: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip).to_canonical(),
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some((ip, port)),
        _ => None,
    }
}

/// Returns the address of this IP address and port.
pub(super) fn of(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip).with(Protocol::Tcp(port))
}

/// Returns the IP address at the start of an address.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    }
}

/// Returns the address without its peer, and the peer.
pub(super) fn split(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut address = address.clone();
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => {
            address.pop();
            (address, Some(peer))
        }
        _ => (address, None),
    }
}

/// Returns how far an IP address reaches; nothing if no single host has it.
pub(super) fn scope(ip: IpAddr) -> Option<Scope> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Option<Scope> {
    let [a, b, ..] = ip.octets();
    let nowhere = a == 0 || a >= 224 || ip.is_documentation();
    // RFC 6598 (carriers), RFC 2544 (benchmarks).
    let shared = (a == 100 && (64..128).contains(&b)) || (a == 198 && (18..20).contains(&b));
    if nowhere {
        None
    } else if ip.is_loopback() {
        Some(Scope::Loopback)
    } else if ip.is_private() || ip.is_link_local() || shared {
        Some(Scope::Private)
    } else {
        Some(Scope::Public)
    }
}

fn scope_v6(ip: Ipv6Addr) -> Option<Scope> {
    let [first, second, ..] = ip.segments();
    let documentation = first == 0x2001 && second == 0xdb8;
    if ip.is_unspecified() || ip.is_multicast() || documentation {
        None
    } else if ip.is_loopback() {
        Some(Scope::Loopback)
    } else if ip.is_unique_local() || ip.is_unicast_link_local() {
        Some(Scope::Private)
    } else {
        Some(Scope::Public)
    }
}

/// Returns what counts as one address: an IPv4 address, or the /64 of an IPv6 address, which one host has as a whole.
pub(super) fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Returns the group that a public address is in: the first address of its IPv4 /16, or of its IPv6 /32.
pub(super) fn group(ip: IpAddr) -> Option<IpAddr> {
    if scope(ip) != Some(Scope::Public) {
        return None;
    }
    Some(match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, 0, 0))
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0))
        }
    })
}

/// What a name stands for.
type Sockets = Vec<(IpAddr, u16)>;

/// Which addresses this node dials. All clones know the same.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// Addresses that reach less far belong to other machines' networks, or are traps.
    nearest: Scope,
    /// But these were set by the operator.
    set: Arc<[(IpAddr, u16)]>,
    /// And these are behind names that were. As many names as were set, each with what it stood for last.
    named: Arc<RwLock<HashMap<Multiaddr, Sockets>>>,
}

impl Reach {
    /// Dials what reaches at least as far as the nearest of `own`, and what is `set`.
    pub(super) fn new<'a>(own: impl Iterator<Item = &'a Multiaddr>, set: impl Iterator<Item = &'a Multiaddr>) -> Self {
        let nearest = own.filter_map(|address| scope(ip(address)?)).min().unwrap_or(Scope::Public);
        Self { nearest, set: set.filter_map(socket).collect(), named: Arc::default() }
    }

    /// Dials also what a name that the operator has set stands for now.
    pub(super) fn name(&self, name: Multiaddr, stands_for: Sockets) {
        self.named.write().unwrap_or_else(PoisonError::into_inner).insert(name, stands_for);
    }

    /// What a name stood for last.
    pub(super) fn behind(&self, name: &Multiaddr) -> Sockets {
        self.named.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }

    /// Whether this node dials an address that somebody names.
    pub(super) fn allows(&self, address: &Multiaddr) -> bool {
        let Some((ip, port)) = socket(address) else { return false };
        if port == 0 {
            return false;
        }
        let is_named = || {
            let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
            named.values().any(|stands_for| stands_for.contains(&(ip, port)))
        };
        scope(ip).is_some_and(|scope| scope >= self.nearest) || self.set.contains(&(ip, port)) || is_named()
    }
}

#[cfg(test)]
mod tests;
