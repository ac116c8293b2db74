//! `defrag`: gives back the space of what compaction dropped.

use std::path::Path;

use anyhow::{Context, bail};

use super::{data_dir, output::bytes_for_people};
use crate::checkpoint::sled_state::SledState;
use crate::checkpoint::snapshot_file;

/// Writes the files of versions anew that hold any that were dropped, and removes what nothing names.
///
/// # Errors
/// The directory is in use or damaged, or the disk failed; what was there still counts.
pub(super) fn defrag(path: &Path) -> anyhow::Result<()> {
    let data = data_dir::take(path, None)?;
    if !data.checkpoint.exists() {
        bail!("{} has no checkpoint yet; start the member once", path.display());
    }
    let (state, _) = SledState::try_open(&data.checkpoint).with_context(|| {
        format!("{} is damaged; start the member, which makes a new one", data.checkpoint.display())
    })?;
    let (before, _) = state.disk_bytes();
    state.defragment()?;
    state.flush()?;
    let named = snapshot_file::files_named(&data.snapshots)
        .with_context(|| format!("cannot read {}", data.snapshots.display()))?;
    state.remove_unreferenced(&named)?;
    let (after, _) = state.disk_bytes();
    println!(
        "Finished defragmenting directory {}: {} before, {} after",
        path.display(),
        bytes_for_people(before),
        bytes_for_people(after)
    );
    Ok(())
}
