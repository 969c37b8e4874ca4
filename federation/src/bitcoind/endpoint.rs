//! Where a bitcoind listens, and the file with its user and password.

use std::fmt;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bitcoin::Network;
use zeroize::Zeroizing;

/// Most bytes of a file with user and password. bitcoind's cookie has 75.
const CREDENTIALS_BYTES_MAX: u64 = 1_024;

/// Most bytes of a host name (RFC 1035).
const HOST_NAME_MAX: usize = 253;

/// `IP:port`, `[IPv6]:port` or `host name:port`. The traffic is plain HTTP: anything but loopback belongs in a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Ip(IpAddr),
    Name(Box<str>),
}

/// Text that is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address of a Bitcoin node: write IP:port or host:port, without http:// and without a path")]
pub struct EndpointError;

impl Endpoint {
    /// The endpoint on 127.0.0.1 at this port.
    pub const fn loopback(port: u16) -> Endpoint {
        Endpoint { host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), port }
    }

    /// Where bitcoind listens for RPC unless it is told otherwise: loopback, the network's own port.
    pub const fn default_of(network: Network) -> Endpoint {
        Endpoint::loopback(match network {
            Network::Bitcoin => 8_332,
            Network::Testnet => 18_332,
            Network::Testnet4 => 48_332,
            Network::Signet => 38_332,
            Network::Regtest => 18_443,
        })
    }

    /// Whether what is sent there stays on this machine, as far as the text says.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => &**name == "localhost",
        }
    }

    /// What a resolver takes.
    pub(super) fn to_host_and_port(&self) -> (String, u16) {
        let host = match &self.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.to_string(),
        };
        (host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let (ip, port) = (address.ip(), address.port());
            // Which interface is meant would be lost.
            let is_scoped = matches!(address, SocketAddr::V6(address) if address.scope_id() != 0);
            return if port == 0 || is_scoped { Err(EndpointError) } else { Ok(Endpoint { host: Host::Ip(ip), port }) };
        }
        let (name, port) = text.rsplit_once(':').ok_or(EndpointError)?;
        let label = |label: &str| {
            !label.is_empty() && label.len() <= 63 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        // A name whose last label is a number would be read as a wrong IPv4 address.
        let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if name.len() > HOST_NAME_MAX || numeric || !name.split('.').all(label) {
            return Err(EndpointError);
        }
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EndpointError);
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Endpoint { host: Host::Name(name.to_ascii_lowercase().into()), port }),
            _ => Err(EndpointError),
        }
    }
}

/// One bitcoind of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// A file with `user:password` on its first line: bitcoind's own `.cookie`, or one for `-rpcauth`. Read again for
    /// every connection, because bitcoind writes another cookie whenever it starts.
    pub credentials_file: PathBuf,
}

/// Why user and password cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("the file with bitcoind's user and password cannot be read: start bitcoind, or name its .cookie")]
    Read(#[source] std::io::Error),
    /// Something else than `user:password`.
    #[error(
        "the file with bitcoind's user and password does not hold user:password on one line of at most 1,024 bytes"
    )]
    Form,
}

/// The value of an `Authorization` header (RFC 7617) for the user and password in this file.
pub(super) fn read_authorization(path: &Path) -> Result<Zeroizing<String>, CredentialsError> {
    let file = std::fs::File::open(path).map_err(CredentialsError::Read)?;
    if !file.metadata().map_err(CredentialsError::Read)?.is_file() {
        return Err(CredentialsError::Form);
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2_048));
    file.take(CREDENTIALS_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(CredentialsError::Read)?;
    if bytes.len() as u64 > CREDENTIALS_BYTES_MAX {
        return Err(CredentialsError::Form);
    }
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let written = line.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f);
    match line.iter().position(|byte| *byte == b':') {
        Some(colon) if colon > 0 && written => Ok(basic(line)),
        _ => Err(CredentialsError::Form),
    }
}

/// `Basic` and the bytes in base64 (RFC 4648, with padding).
fn basic(bytes: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Zeroizing::new(String::with_capacity(6 + bytes.len().div_ceil(3) * 4));
    text.push_str("Basic ");
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_an_address_and_a_port() {
        for text in ["127.0.0.1:8332", "[::1]:18443", "node-1.example.org:8332", "localhost:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in [
            "",
            ":1",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "http://127.0.0.1:8332",
            "h:8332/wallet",
            "u:p@h:1",
            "h:+1",
            "a..b:1",
            "1.2.3:80",
            "h h:1",
            "h\r\n:1",
            "[::1]",
            "[fe80::1%3]:1",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError), "{text}");
        }
        assert!(Endpoint::default_of(Network::Regtest).is_loopback());
        assert!(!"10.0.0.1:8332".parse::<Endpoint>().unwrap().is_loopback());
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(basic(bytes.as_bytes()).as_str(), format!("Basic {text}"));
        }
        assert_eq!(basic(&[0xfb, 0xff, 0xfe]).as_str(), "Basic +//+");
    }

    #[test]
    fn credentials_are_one_bounded_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cookie");
        assert!(matches!(read_authorization(&path), Err(CredentialsError::Read(_))));
        for good in ["a:b", "a:b\n", "a:b:c\r\n"] {
            std::fs::write(&path, good).unwrap();
            assert_eq!(*read_authorization(&path).unwrap(), *basic(good.trim_end().as_bytes()));
        }
        for bad in ["", "ab", ":b", "a:b\nc:d", "a:\0", &"a:".repeat(600)] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read_authorization(&path), Err(CredentialsError::Form)), "{bad:?}");
        }
        assert!(matches!(read_authorization(directory.path()), Err(CredentialsError::Form)));
    }
}
