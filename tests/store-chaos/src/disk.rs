//! A disk for each member: a tmpfs of limited size in a mount namespace of the program's own, gone with the program; and ballast that fills it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MsFlags, mount};

/// Bytes of the smallest piece that a tmpfs gives out.
const PAGE: i64 = 4096;
const LARGEST_PIECE: i64 = 32 << 20;

/// Mounts an empty tmpfs.
///
/// # Errors
/// The system's.
pub fn mount_tmpfs(at: &Path, size_bytes: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(at).with_context(|| format!("directory {}", at.display()))?;
    let options = format!("size={size_bytes},mode=0700");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mount a tmpfs at {}", at.display()))
}

/// A file that takes all the room there is; dropping it gives the room back.
pub struct Ballast {
    path: PathBuf,
    file: File,
    length: i64,
}

impl Ballast {
    /// Fills the disk up to its last byte.
    ///
    /// # Errors
    /// Any but that the disk is full.
    pub fn new(disk: &Path) -> anyhow::Result<Self> {
        let path = disk.join("ballast");
        let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
        let mut ballast = Self { path, file, length: 0 };
        ballast.fill()?;
        Ok(ballast)
    }

    /// Takes what has become free since.
    ///
    /// # Errors
    /// Any but that the disk is full.
    pub fn fill(&mut self) -> anyhow::Result<()> {
        let mut piece = if self.length == 0 { LARGEST_PIECE } else { PAGE };
        while piece >= PAGE {
            match fallocate(&self.file, FallocateFlags::empty(), self.length, piece) {
                Ok(()) => {
                    self.length += piece;
                    piece = (piece * 2).min(LARGEST_PIECE);
                }
                Err(Errno::ENOSPC) => piece /= 2,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).with_context(|| format!("fill {}", self.path.display())),
            }
        }
        Ok(())
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // Fails only if somebody has removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}
