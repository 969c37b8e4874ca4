//! Where the room's work stands, in the words of `status`.

use std::time::Duration;

use bitcoin::Txid;

use super::Open;
use crate::approve::Decline;
use crate::daemon::status::{Declined, TaskState, TaskStatus};
use crate::session::{Path, SigningTask as _};

/// Something is missing to sign a version.
pub(super) fn waits(batch: u32, txid: Txid, reason: String) -> Declined {
    Declined { batch: Some(batch), txid: Some(txid), reason, refused: false }
}

/// Why a version, or everything, is not signed.
pub(super) fn declined(what: Option<(u32, Txid)>, decline: &Decline) -> Declined {
    let refused = !matches!(decline, Decline::NotReady(_));
    let (batch, txid) = what.unzip();
    Declined { batch, txid, reason: decline.to_string(), refused }
}

/// Where a session stands.
pub(super) fn status_of(open: &Open, now: Duration) -> TaskStatus {
    let session = &open.session;
    let approved = session.task().approved();
    let path = match (session.signed(), session.path()) {
        (Some(signed), _) => Some(show_path(&signed.path)),
        (None, Some(path)) => Some(show_path(&path)),
        (None, None) => None,
    };
    let signed = session.signed().is_some();
    let took = open.took.unwrap_or_else(|| now.saturating_sub(open.started));
    TaskStatus {
        batch: approved.batch(),
        kind: format!("{:?}", approved.kind()).to_lowercase(),
        version: approved.version(),
        txid: approved.txid(),
        inputs: session.task().input_count(),
        state: if signed { TaskState::Signed } else { TaskState::Signing },
        path,
        round: session.round(),
        last_round: session.last_round(),
        missing: if signed { Vec::new() } else { session.missing() },
        faults: session.faults().iter().map(|(member, fault)| (*member, fault.to_string())).collect(),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A path in words.
pub(crate) fn show_path(path: &Path) -> String {
    match path {
        Path::Key => "key".to_owned(),
        Path::Subset(members) => format!("subset {members:?}"),
        Path::MultiA => "multi_a".to_owned(),
    }
}
