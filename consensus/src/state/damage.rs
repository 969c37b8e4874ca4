//! Damage to the indexes, which is no reason to stop: validation never looks into them, and they follow from the blocks.
//!
//! They are given up as soon as it is seen, and dropped, unread, when the store is opened next: then they are built again.

use std::path::Path;

use rocksdb::{ColumnFamilyDescriptor, DB, LiveFile};

use super::schema::{self, FAMILIES, FORMAT_VERSION, INDEX_FAMILIES};

/// The file in the store's directory that says that the indexes are damaged, and how it was seen.
const NOTE_FILE: &str = "index-damaged";

/// Notes that the indexes are to be dropped. Without the note they are found damaged again.
pub(super) fn note(path: &Path, why: &dyn std::error::Error) {
    let text = format!("{why}\nThe indexes are built again when the node starts.\n");
    if let Err(error) = std::fs::write(path.join(NOTE_FILE), text) {
        tracing::error!(%error, "the damage to the indexes cannot be noted in {}", path.display());
    }
}

/// Whether the indexes are to be dropped.
pub(super) fn is_noted(path: &Path) -> bool {
    path.join(NOTE_FILE).exists()
}

/// Removes the note.
pub(super) fn forget(path: &Path) {
    // It is read again otherwise, and the indexes built once more.
    let _ = std::fs::remove_file(path.join(NOTE_FILE));
}

/// Whether all files of a database that does not open for this reason belong to the indexes: those that are gone or cut
/// short, and those that the reason names. Changes nothing.
pub(super) fn is_of_indexes(directory: &Path, reason: &rocksdb::Error) -> bool {
    let mut options = schema::database_options();
    // As much as there is.
    options.set_paranoid_checks(false);
    let open = || {
        let names = DB::list_cf(&options, directory)?;
        DB::open_cf_descriptors_read_only(&options, directory, descriptors(&names), false)
    };
    let Ok(files) = open().and_then(|db| db.live_files()) else { return false };
    let is_damaged = |file: &&LiveFile| {
        let size =
            std::fs::metadata(directory.join(bare_name(file))).ok().and_then(|it| usize::try_from(it.len()).ok());
        size != Some(file.size) || reason.as_ref().contains(bare_name(file))
    };
    let mut damaged = files.iter().filter(is_damaged).peekable();
    damaged.peek().is_some() && damaged.all(is_of_index)
}

/// Whether a failure of an open database names a file of the indexes.
pub(super) fn names_index_file(db: &DB, failure: &rocksdb::Error) -> bool {
    let files = db.live_files().unwrap_or_default();
    files.iter().any(|file| is_of_index(file) && failure.as_ref().contains(bare_name(file)))
}

fn is_of_index(file: &LiveFile) -> bool {
    INDEX_FAMILIES.contains(&file.column_family_name.as_str())
}

fn bare_name(file: &LiveFile) -> &str {
    file.name.trim_start_matches('/')
}

/// Drops the column families of the indexes from a closed database, without reading what they hold. Returns `false`, and
/// changes nothing, if it is not of this format.
pub(super) fn drop_indexes(directory: &Path) -> Result<bool, rocksdb::Error> {
    let mut options = schema::database_options();
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    // What is damaged is about to go.
    options.set_paranoid_checks(false);
    let names = DB::list_cf(&options, directory)?;
    if names.iter().any(|name| name != "default" && !FAMILIES.contains(&name.as_str())) {
        return Ok(false);
    }
    let mut db = DB::open_cf_descriptors(&options, directory, descriptors(&names))?;
    let meta = db.cf_handle(schema::META).map(|meta| db.get_cf(meta, schema::META_FORMAT)).transpose()?.flatten();
    if meta.as_deref() != Some(FORMAT_VERSION.to_le_bytes().as_slice()) {
        return Ok(false);
    }
    for name in INDEX_FAMILIES.iter().filter(|name| names.iter().any(|there| there == **name)) {
        db.drop_cf(name)?;
    }
    Ok(true)
}

/// All column families, none of them rewritten meanwhile.
fn descriptors(names: &[String]) -> Vec<ColumnFamilyDescriptor> {
    let descriptor = |name: &String| {
        let mut options = schema::family_options(name);
        options.set_disable_auto_compactions(true);
        ColumnFamilyDescriptor::new(name, options)
    };
    names.iter().map(descriptor).collect()
}
