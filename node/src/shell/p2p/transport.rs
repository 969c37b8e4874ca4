//! TCP, encrypted and multiplexed, that dials only what this node may reach.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport, noise, tcp, yamux};

use super::UNSENT_MAX;
use super::address::Reach;

/// The transport of this node.
///
/// # Errors
/// The key cannot sign.
pub(super) fn build(
    identity: &Keypair,
    reach: Reach,
    handshake: Duration,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)).map(|stream, _| short(stream));
    Ok(Guarded { inner: tcp, reach }
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(identity)?)
        .multiplex(yamux::Config::default())
        .timeout(handshake)
        .boxed())
}

/// Lets the system take no more than [`UNSENT_MAX`] bytes in advance: what it has taken cannot be overtaken, and by itself
/// it takes megabytes.
pub(super) fn short(stream: tcp::tokio::TcpStream) -> tcp::tokio::TcpStream {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket2::SockRef::from(&stream.0).set_tcp_notsent_lowat(UNSENT_MAX) {
        tracing::debug!(%error, "the system's queue of unsent bytes stays as long as it is");
    }
    stream
}

/// Dials nothing out of reach, whoever asks: the book holds what peers have named.
struct Guarded<T> {
    inner: T,
    reach: Reach,
}

impl<T: Transport + Unpin> Transport for Guarded<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<T::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<T::Dial, TransportError<T::Error>> {
        if self.reach.allows(&address) {
            self.inner.dial(address, options)
        } else {
            Err(TransportError::MultiaddrNotSupported(address))
        }
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        Pin::new(&mut self.get_mut().inner).poll(context)
    }
}
