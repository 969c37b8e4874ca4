//! Where a file lives, so that a copy of it is told from the original.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use causeway_chainspec::tagged_hash;

/// Bytes of encoded [`Places`].
pub(super) const PLACES_BYTES: usize = 2 * PLACE_BYTES + 32;

const PLACE_BYTES: usize = 24;

/// Who a machine is, on Linux: written when the system was installed.
const MACHINE_ID: &str = "/etc/machine-id";

/// Where mark and key live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    mark: Place,
    key: Place,
    /// Zeros if the machine has no id.
    machine: [u8; 32],
}

/// What tells a file from every copy of it, and stays the same when the file is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 if the file system does not say. No copy has it: only the
    /// file system sets it.
    born: u64,
    /// Number of the device. Compared only where `born` is missing, as a restart may number devices anew.
    device: u64,
}

impl Places {
    /// Where an open mark file and the file at `key` live.
    pub(super) fn of(mark: &File, key: &Path) -> io::Result<Self> {
        let machine = std::fs::read_to_string(MACHINE_ID).ok();
        Ok(Self {
            mark: Place::of(&mark.metadata()?),
            key: Place::of(&std::fs::metadata(key)?),
            machine: machine_hash(machine.as_deref()),
        })
    }

    /// In what `here` differs from the places where mark and key lived.
    pub(super) fn difference(&self, here: &Self) -> Option<&'static str> {
        let unknown = [0; 32];
        if self.machine != here.machine && self.machine != unknown && here.machine != unknown {
            Some("the machine is another one")
        } else if !self.mark.is(&here.mark) {
            Some("the file of the high-water mark is another one")
        } else if !self.key.is(&here.key) {
            Some("the file of the key is another one")
        } else {
            None
        }
    }

    pub(super) fn encode(&self) -> [u8; PLACES_BYTES] {
        let mut bytes = [0; PLACES_BYTES];
        bytes[..PLACE_BYTES].copy_from_slice(&self.mark.encode());
        bytes[PLACE_BYTES..2 * PLACE_BYTES].copy_from_slice(&self.key.encode());
        bytes[2 * PLACE_BYTES..].copy_from_slice(&self.machine);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; PLACES_BYTES]) -> Self {
        let number = |index: usize| {
            let bytes = bytes[8 * index..8 * index + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes are a number"))
        };
        let place = |first: usize| Place { inode: number(first), born: number(first + 1), device: number(first + 2) };
        let machine = bytes[2 * PLACE_BYTES..].try_into().expect("32 bytes follow the places");
        Self { mark: place(0), key: place(3), machine }
    }
}

impl Place {
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0);
        Self { inode: metadata.ino(), born, device: metadata.dev() }
    }

    fn is(&self, other: &Self) -> bool {
        self.inode == other.inode && self.born == other.born && (self.born != 0 || self.device == other.device)
    }

    fn encode(&self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.born.to_le_bytes());
        bytes[16..].copy_from_slice(&self.device.to_le_bytes());
        bytes
    }
}

fn machine_hash(id: Option<&str>) -> [u8; 32] {
    // systemd writes the word while a new machine starts for the first time.
    match id.map(str::trim) {
        None | Some("" | "uninitialized") => [0; 32],
        Some(id) => tagged_hash("causeway/machine/v1", &[id.as_bytes()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let place = |inode| Place { inode, born: 1_700_000_000_000_000_000, device: 65_025 };
        Places { mark: place(12), key: place(13), machine: machine_hash(Some("4c4c4544\n")) }
    }

    #[test]
    fn decode_of_encode_is_the_identity() {
        assert_eq!(Places::decode(&places().encode()), places());
    }

    #[test]
    fn a_copy_differs_and_a_restart_does_not() {
        assert_eq!(places().difference(&places()), None);
        let changes: [fn(&mut Places); 5] = [
            |it| it.mark.inode += 1,
            |it| it.mark.born += 1,
            |it| it.key.inode += 1,
            |it| it.key.born += 1,
            |it| it.machine = machine_hash(Some("other")),
        ];
        for change in changes {
            let mut other = places();
            change(&mut other);
            assert!(places().difference(&other).is_some());
        }

        // Devices are numbered at every start; without a time of birth there is nothing better.
        let mut renumbered = places();
        renumbered.mark.device += 1;
        assert_eq!(places().difference(&renumbered), None);
        let mut unborn = places();
        unborn.mark.born = 0;
        let mut elsewhere = unborn;
        elsewhere.mark.device += 1;
        assert_eq!(unborn.difference(&unborn), None);
        assert!(unborn.difference(&elsewhere).is_some());
    }

    #[test]
    fn a_machine_without_an_id_is_any_machine() {
        for id in [None, Some(""), Some("uninitialized\n")] {
            let nobody = Places { machine: machine_hash(id), ..places() };
            assert_eq!(nobody.difference(&places()), None);
            assert_eq!(places().difference(&nobody), None);
        }
        assert_eq!(machine_hash(Some("id\n")), machine_hash(Some("id")));
    }
}
