//! `fsGroup` on volumes that outlive the pod: every file gets the group, readable and writable by it.
//!
//! Never here: volumes that are made for the pod; those get their group as they are written.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const FILE_BITS: u32 = 0o660;
const DIRECTORY_BITS: u32 = 0o2770;

/// Gives everything below `root` to the group. `only_on_mismatch` (`fsGroupChangePolicy: OnRootMismatch`): nothing is done
/// when the root has it already.
///
/// # Errors
/// The file system's, with the path.
pub fn give(root: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(root)?;
    let bits = if meta.is_dir() { DIRECTORY_BITS } else { FILE_BITS };
    if only_on_mismatch && meta.gid() == group && meta.mode() & bits == bits {
        return Ok(());
    }
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let meta = std::fs::symlink_metadata(&path).map_err(failed)?;
        lchown(&path, None, Some(group)).map_err(failed)?;
        if meta.is_symlink() {
            continue;
        }
        let bits = if meta.is_dir() { DIRECTORY_BITS } else { FILE_BITS };
        let permissions = std::fs::Permissions::from_mode(meta.mode() & 0o7777 | bits);
        std::fs::set_permissions(&path, permissions).map_err(failed)?;
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                waiting.push(entry.map_err(failed)?.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_given_but_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let volume = root.path().join("v");
        std::fs::create_dir_all(volume.join("d")).unwrap();
        std::fs::write(volume.join("d/f"), "x").unwrap();
        std::fs::set_permissions(volume.join("d/f"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(outside.path(), volume.join("link")).unwrap();
        let own = std::fs::metadata(&volume).unwrap().gid();
        give(&volume, own, false).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&volume.join("d/f")), 0o660);
        assert_eq!(mode(&volume.join("d")) & DIRECTORY_BITS, DIRECTORY_BITS);
        assert_eq!(mode(outside.path()), 0o600, "what a link leads to is left alone");
        std::fs::set_permissions(volume.join("d/f"), std::fs::Permissions::from_mode(0o600)).unwrap();
        give(&volume, own, true).unwrap();
        assert_eq!(mode(&volume.join("d/f")), 0o600, "the root has the group already");
    }
}
