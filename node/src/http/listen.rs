//! Taking an address, and why it cannot be had.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why there is no server on an address. `section` is the one of config.toml that says which.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody listens there.
    #[error("{bind} is in use by another process: stop that one, or set `bind` in section [{section}] of config.toml")]
    InUse {
        bind: SocketAddr,
        section: &'static str,
        #[source]
        source: io::Error,
    },
    /// The machine has no such address.
    #[error("{bind} is no address of this machine: set `bind` in section [{section}] of config.toml to one that is")]
    NotHere {
        bind: SocketAddr,
        section: &'static str,
        #[source]
        source: io::Error,
    },
    /// The system does not permit it.
    #[error(
        "{bind} is not permitted to this user: set `bind` in section [{section}] of config.toml, with a port from 1024 on"
    )]
    NotPermitted {
        bind: SocketAddr,
        section: &'static str,
        #[source]
        source: io::Error,
    },
    /// Listening failed for another reason.
    #[error("cannot listen on {bind}: see the cause, and check `bind` in section [{section}] of config.toml")]
    Other {
        bind: SocketAddr,
        section: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Listens, and says where: with port 0 the system chooses one.
///
/// # Errors
/// [`ListenError`], each with what to do.
pub async fn listen(bind: SocketAddr, section: &'static str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { bind, section, source },
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere { bind, section, source },
        io::ErrorKind::PermissionDenied => ListenError::NotPermitted { bind, section, source },
        _ => ListenError::Other { bind, section, source },
    };
    let listener = TcpListener::bind(bind).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
