//! Names in the operator's settings: `/dns4/../tcp/..`, `/dns6/..`, and `/dns/..` for either. Names that peers tell are
//! never looked up.

use std::net::IpAddr;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::address;

/// Addresses that are used of one name.
const ANSWERS_MAX: usize = 16;

/// How long the system may take for a name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Which addresses a name may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

/// A name with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    host: String,
    port: u16,
    family: Family,
}

/// Returns the name in an address, with or without `/p2p/..`; nothing if it is of another form.
pub(super) fn name(address: &Multiaddr) -> Option<Name> {
    let mut parts = address.iter();
    let (host, family) = match parts.next()? {
        Protocol::Dns(host) => (host.into_owned(), Family::Any),
        Protocol::Dns4(host) => (host.into_owned(), Family::V4),
        Protocol::Dns6(host) => (host.into_owned(), Family::V6),
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some(Name { host, port, family }),
        _ => None,
    }
}

/// Whether an address can be dialled once its name, if it has one, is looked up.
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    address::socket(address).is_some() || name(address).is_some()
}

/// Asks the system what a name stands for. At most [`ANSWERS_MAX`] addresses, within [`LOOKUP_TIMEOUT`]; none, and a
/// warning, if it has no answer.
pub(super) async fn look_up(name: &Name) -> Vec<(IpAddr, u16)> {
    let Name { host, port, family } = name;
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host.as_str(), *port))).await;
    let mut addresses = Vec::new();
    match found {
        Ok(Ok(found)) => {
            for ip in found.map(|found| found.ip().to_canonical()) {
                let fits = match family {
                    Family::Any => true,
                    Family::V4 => ip.is_ipv4(),
                    Family::V6 => ip.is_ipv6(),
                };
                if fits && address::scope(ip).is_some() && !addresses.contains(&(ip, *port)) {
                    addresses.push((ip, *port));
                }
                if addresses.len() >= ANSWERS_MAX {
                    break;
                }
            }
            if addresses.is_empty() {
                tracing::warn!(name = host, "a name has no such address: check p2p in config.toml");
            }
        }
        Ok(Err(error)) => {
            tracing::warn!(name = host, %error, "a name cannot be looked up: check p2p in config.toml, and this machine's DNS");
        }
        Err(_) => tracing::warn!(name = host, "a name was not looked up in time: check this machine's DNS"),
    }
    addresses
}

#[cfg(test)]
mod tests;
