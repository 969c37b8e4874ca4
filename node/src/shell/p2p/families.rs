//! Machines without IPv6: the default is to listen on both families, and such a machine has one.

use std::io;
use std::net::{IpAddr, Ipv6Addr, TcpListener};

use libp2p::Multiaddr;
use rustix::io::Errno;

use super::address;

/// Leaves out `/ip6/::` where the machine has no IPv6, and says so; unless there is nothing else to listen on, or it was
/// an address of its own that the operator has set. `bind` tries whether there is IPv6.
pub(super) fn present(addresses: &[Multiaddr], bind: impl FnOnce() -> io::Result<()>) -> Vec<Multiaddr> {
    let is_any = |address: &&Multiaddr| address::ip(address) == Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let (any, others): (Vec<_>, Vec<_>) = addresses.iter().partition(is_any);
    if any.is_empty() || others.is_empty() {
        return addresses.to_vec();
    }
    match bind() {
        Err(error) if is_missing(&error) => {
            tracing::warn!("this machine has no IPv6: peers reach this node by IPv4 only");
            others.into_iter().cloned().collect()
        }
        // If it fails for another reason, whoever listens says why.
        _ => addresses.to_vec(),
    }
}

/// Tries to listen by IPv6, on any port.
pub(super) fn bind() -> io::Result<()> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).map(drop)
}

fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| missing.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Multiaddr {
        address.parse().unwrap()
    }

    #[test]
    fn without_ipv6_the_rest_is_listened_on() {
        let both = [at("/ip4/0.0.0.0/tcp/1"), at("/ip6/::/tcp/1")];
        let missing = || Err(io::Error::from_raw_os_error(Errno::AFNOSUPPORT.raw_os_error()));
        assert_eq!(present(&both, missing), both[..1]);
        assert_eq!(present(&both, || Ok(())), both);
        assert_eq!(present(&both, || Err(io::ErrorKind::PermissionDenied.into())), both);
        // What the operator has set on purpose is an error as any other.
        assert_eq!(present(&both[1..], missing), both[1..]);
        let own = [at("/ip4/0.0.0.0/tcp/1"), at("/ip6/2600::1/tcp/1")];
        assert_eq!(present(&own, missing), own);
    }
}
