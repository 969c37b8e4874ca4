//! The source of Bitcoin Core that `libbitcoinkernel-sys` builds, for the test vectors in it.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// The crate that ships Core's source, in its folder `bitcoin`.
const CRATE: &str = "libbitcoinkernel-sys";

/// Returns Core's source directory, the one with `src` in it.
///
/// # Panics
/// If cargo does not know where the crate is.
pub fn core_source() -> &'static PathBuf {
    static SOURCE: OnceLock<PathBuf> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let metadata = metadata();
        let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
        let package = packages.iter().find(|package| package["name"] == CRATE).expect("a dependency of the workspace");
        let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a path"));
        let source = manifest.parent().expect("a manifest lies in a folder").join("bitcoin");
        assert!(source.join("src").is_dir(), "{CRATE} ships Core's source");
        source
    })
}

/// Returns a file of `src/test/data`, parsed.
///
/// # Panics
/// If it is not there or not JSON.
pub fn core_vectors(name: &str) -> Value {
    let path = core_source().join("src/test/data").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn metadata() -> Value {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}
