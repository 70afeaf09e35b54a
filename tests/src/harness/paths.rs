//! Where tests put what they make: everything under cargo's target directory.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Tested;

/// Cargo's target directory: the nearest one above this executable that carries cargo's
/// `CACHEDIR.TAG`.
pub fn target() -> Tested<PathBuf> {
    let executable = std::env::current_exe()?;
    let found = executable.ancestors().find(|path| path.join("CACHEDIR.TAG").is_file());
    Ok(found.ok_or("no CACHEDIR.TAG above the test executable")?.to_path_buf())
}

/// The directory of the tests crate, where the programs of foreign clients lie.
pub fn tests_crate() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh directory under `target/test-data`, removed when dropped.
pub fn fresh(prefix: &str) -> Tested<TempDir> {
    let root = target()?.join("test-data");
    std::fs::create_dir_all(&root)?;
    Ok(tempfile::Builder::new().prefix(&format!("{prefix}-")).tempdir_in(root)?)
}
