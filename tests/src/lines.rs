//! Thin lines between processes on loopback: relays in user space that delay bytes, let only so many through a second, or
//! none at all.
//!
//! Each site has one line, which all its connections share in both directions, as behind a home's or a small server's link:
//! what goes from one site to another passes the first one's line up and the second one's down. Nothing is lost and nothing
//! comes out of order: that is TCP's business, and it is done before the bytes are here. A sender is slowed by the windows
//! of its own connection, since a relay reads no faster than its lines carry.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Bytes that are carried at once.
const PART: usize = 16 << 10;

/// Parts that are under way on a connection, for their delay.
const UNDER_WAY: usize = 64;

/// Bytes that the kernel holds for a relay in each direction of a connection.
const BUFFER: u32 = 128 << 10;

/// What a line is like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Bits a second, in each direction.
    pub bits_per_second: u64,
    /// How long a byte is under way, in each direction.
    pub delay: Duration,
}

/// A direction of a line.
struct Pipe {
    bytes_per_second: u64,
    free: Mutex<Instant>,
}

impl Pipe {
    fn new(shape: Shape) -> Self {
        Self { bytes_per_second: shape.bits_per_second / 8, free: Mutex::new(Instant::now()) }
    }

    /// When so many bytes are through that come now: after all that came before.
    fn carry(&self, bytes: usize) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = u64::try_from(bytes).expect("few").saturating_mul(1_000_000_000) / self.bytes_per_second;
        *free = (*free).max(Instant::now()) + Duration::from_nanos(nanos);
        *free
    }
}

/// The line of a site.
struct Line {
    up: Pipe,
    down: Pipe,
    delay: Duration,
    stalled: watch::Sender<bool>,
}

/// The way of bytes from one site to another.
#[derive(Clone)]
struct Way {
    from: Arc<Line>,
    to: Arc<Line>,
}

impl Way {
    fn back(&self) -> Self {
        Self { from: Arc::clone(&self.to), to: Arc::clone(&self.from) }
    }

    /// Waits until neither line is stalled.
    async fn open(&self) {
        for line in [&self.from, &self.to] {
            let mut stalled = line.stalled.subscribe();
            // The sender is in the line.
            let _ = stalled.wait_for(|stalled| !stalled).await;
        }
    }
}

/// The lines of some sites, and the relays on them. They end when this is dropped.
pub struct Lines {
    sites: Vec<Arc<Line>>,
    runtime: Runtime,
}

impl Lines {
    /// One line for each site.
    ///
    /// # Panics
    /// If the system has no thread left.
    pub fn new(shapes: &[Shape]) -> Self {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = threads.expect("a thread");
        let _entered = runtime.enter();
        let line = |shape: &Shape| {
            let (up, down, stalled) = (Pipe::new(*shape), Pipe::new(*shape), watch::Sender::new(false));
            Arc::new(Line { up, down, delay: shape.delay, stalled })
        };
        Self { sites: shapes.iter().map(line).collect(), runtime }
    }

    /// A relay from one site to a listener of another. Returns where the first one reaches it.
    ///
    /// # Panics
    /// If loopback has no port left.
    pub fn relay(&self, from: usize, to: usize, listener: SocketAddr) -> SocketAddr {
        let way = Way { from: Arc::clone(&self.sites[from]), to: Arc::clone(&self.sites[to]) };
        let _entered = self.runtime.enter();
        let socket = socket().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let here = socket.listen(64).expect("it is bound");
        let address = here.local_addr().expect("it is bound");
        self.runtime.spawn(async move {
            while let Ok((near, _)) = here.accept().await {
                tokio::spawn(connect(near, listener, way.clone()));
            }
        });
        address
    }

    /// Lets nothing through on a site's line any more, or again. No connection ends.
    pub fn stall(&self, site: usize, stalled: bool) {
        self.sites[site].stalled.send_replace(stalled);
    }
}

/// What is accepted by it has the same buffers.
fn socket() -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    Ok(socket)
}

async fn connect(near: TcpStream, listener: SocketAddr, way: Way) {
    way.open().await;
    let Ok(socket) = socket() else { return };
    let Ok(far) = socket.connect(listener).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    tokio::join!(carry(from_near, to_far, way.clone()), carry(from_far, to_near, way.back()));
}

/// Carries one direction of a connection to its end.
async fn carry(mut source: OwnedReadHalf, mut sink: OwnedWriteHalf, way: Way) {
    let (sender, mut parts) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let delay = way.from.delay + way.to.delay;
    let read = async {
        let mut part = vec![0; PART];
        while let Ok(count @ 1..) = source.read(&mut part).await {
            way.open().await;
            sleep_until(way.from.up.carry(count)).await;
            let through = way.to.down.carry(count);
            if sender.send((through + delay, part[..count].to_vec())).await.is_err() {
                break;
            }
            sleep_until(through).await;
        }
        drop(sender);
    };
    let write = async {
        while let Some((at, part)) = parts.recv().await {
            sleep_until(at).await;
            if sink.write_all(&part).await.is_err() {
                break;
            }
        }
        // The other side has closed, and is told so; if it reads no more, the sender is told by the queue.
        let _ = sink.shutdown().await;
        drop(parts);
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A connection through a relay, both its ends.
    fn connection(lines: &Lines) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(lines.relay(0, 1, listener.local_addr().unwrap())).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_take_no_less_than_their_way_and_come_in_order() {
        let fast = Shape { bits_per_second: 1_000_000_000, delay: 20 * MS };
        let thin = Shape { bits_per_second: 8_000_000, delay: 30 * MS };
        for (shapes, least) in [([fast, fast], 40 * MS), ([fast, thin], 350 * MS), ([thin, fast], 350 * MS)] {
            let lines = Lines::new(&shapes);
            let (mut near, mut far) = connection(&lines);
            let sent: Vec<u8> = (0..300_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let (began, copy) = (Instant::now(), sent.clone());
            let writer = std::thread::spawn(move || near.write_all(&copy));
            let mut came = Vec::new();
            far.read_to_end(&mut came).unwrap();
            writer.join().unwrap().unwrap();
            assert!(came == sent);
            assert!(began.elapsed() >= least, "{:?} of {least:?}", began.elapsed());
        }
    }

    #[test]
    fn connections_of_a_site_share_its_line() {
        let shape = Shape { bits_per_second: 8_000_000, delay: MS };
        let lines = Lines::new(&[shape, shape]);
        let began = Instant::now();
        let writers: Vec<_> = (0..3).map(|_| connection(&lines)).collect();
        let threads = writers.into_iter().map(|(mut near, mut far)| {
            std::thread::spawn(move || near.write_all(&[7; 200_000]).unwrap());
            std::thread::spawn(move || far.read_to_end(&mut Vec::new()).unwrap())
        });
        let threads: Vec<_> = threads.collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 200_000));
        assert!(began.elapsed() >= 590 * MS, "{:?}", began.elapsed());
    }

    #[test]
    fn nothing_comes_through_a_stalled_line_and_all_of_it_later() {
        let shape = Shape { bits_per_second: 1_000_000_000, delay: MS };
        let lines = Lines::new(&[shape, shape]);
        let (mut near, mut far) = connection(&lines);
        lines.stall(1, true);
        near.write_all(b"late").unwrap();
        far.set_read_timeout(Some(200 * MS)).unwrap();
        let mut came = [0; 4];
        assert!(far.read(&mut came).is_err());
        lines.stall(1, false);
        far.set_read_timeout(None).unwrap();
        far.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"late");
    }
}
