//! The operator's way to a running member: a Unix socket of mode 0600 in its home. One line of JSON each way.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::board::Board;
use super::room::Order;
use super::status::Status;
use crate::files;
use crate::home::Home;

/// Most bytes of a request.
const REQUEST_BYTES_MAX: u64 = 1_024;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Requests at once.
const CONNECTIONS_MAX: usize = 8;

/// Why the operator cannot talk to the member.
#[expect(missing_docs, reason = "every variant is documented, and its message names its fields")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The socket cannot be made.
    #[error("the control socket {} cannot be made: its path may have at most 107 bytes; otherwise check the directory", path.display())]
    Bind {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The member runs and does not answer.
    #[error("the member at {} does not answer: see its log", path.display())]
    NoAnswer {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// There is no status of a stopped member.
    #[error("the member at {} does not run and has left no status: start it with \"causeway-federation run\"", path.display())]
    NeverRan { path: PathBuf },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// Asks for the [`Status`].
    Status,
    /// Says that files of the home were changed.
    Nudge,
}

/// Answers from here on. The home is locked by its key, so that what is at the socket's place is left over.
pub(super) fn serve(
    home: &Home,
    board: Arc<Mutex<Board>>,
    nudged: Arc<Notify>,
    orders: SyncSender<Order>,
) -> Result<JoinHandle<()>, ControlError> {
    let path = home.control();
    let failed = |source| ControlError::Bind { path: path.clone(), source };
    files::remove(&path).map_err(failed)?;
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let home = home.clone();
    Ok(tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (home, board, nudged, orders) = (home.clone(), Arc::clone(&board), Arc::clone(&nudged), orders.clone());
            tokio::spawn(async move {
                let answered = tokio::time::timeout(DEADLINE, answer(stream, &home, &board, &nudged, &orders)).await;
                if let Ok(Err(error)) = answered {
                    tracing::debug!(%error, "a request of the operator was not answered");
                }
                drop(permit);
            });
        }
    }))
}

async fn answer(
    stream: UnixStream,
    home: &Home,
    board: &Mutex<Board>,
    nudged: &Notify,
    orders: &SyncSender<Order>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let request: Request = serde_json::from_str(line.trim())?;
    if request == Request::Nudge {
        if home.is_paused() {
            // At once, not with the next look at the node.
            let _ = orders.try_send(Order::GiveUp);
        }
        nudged.notify_one();
    }
    let status = board.lock().unwrap_or_else(PoisonError::into_inner).status(home, true);
    let mut bytes = serde_json::to_vec(&status)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// Removes the socket.
pub(super) fn remove(home: &Home) {
    if let Err(error) = files::remove(&home.control()) {
        tracing::warn!(%error, "the control socket cannot be removed");
    }
}

pub(super) fn write_status(home: &Home, status: &Status) -> io::Result<()> {
    files::replace(&home.status(), files::SECRET_MODE, &serde_json::to_vec_pretty(status)?)
}

/// The status of a member: of the running one, or what it left when it stopped.
///
/// # Errors
/// [`ControlError`].
pub async fn ask_status(home: &Home) -> Result<Status, ControlError> {
    let path = home.path().to_owned();
    match ask(home, Request::Status).await {
        Ok(status) => Ok(status),
        Err(error) if is_absent(&error) => {
            let none = || ControlError::NeverRan { path: path.clone() };
            let failed = |source| ControlError::NoAnswer { path: path.clone(), source };
            let bytes = files::read(&home.status(), ANSWER_BYTES_MAX).map_err(failed)?.ok_or_else(none)?;
            let mut status: Status = serde_json::from_slice(&bytes).map_err(|_| none())?;
            status.running = false;
            status.paused = home.is_paused();
            status.alarm = super::load_alarm(home);
            Ok(status)
        }
        Err(source) => Err(ControlError::NoAnswer { path, source }),
    }
}

/// Tells a running member that files of its home were changed; its status if it runs.
///
/// # Errors
/// It runs and does not answer.
pub async fn nudge(home: &Home) -> Result<Option<Status>, ControlError> {
    match ask(home, Request::Nudge).await {
        Ok(status) => Ok(Some(status)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(ControlError::NoAnswer { path: home.path().to_owned(), source }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

async fn ask(home: &Home, request: Request) -> io::Result<Status> {
    let asked = async {
        let mut stream = UnixStream::connect(home.control()).await?;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
