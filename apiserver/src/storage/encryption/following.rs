//! The rules of `--encryption-provider-config`: as they were at the start, or with `--encryption-provider-config-automatic-reload` as the file has them now.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use component_base::followed::Followed;

use super::Encryption;

/// Where the rules come from.
pub(in crate::storage) enum Rules {
    /// They stay as they are.
    Fixed(Arc<Encryption>),
    /// They follow their file; one that makes no sense changes nothing.
    Followed {
        /// The file.
        path: PathBuf,
        /// What all keys of the store begin with.
        prefix: String,
        /// What it says.
        followed: Followed<Encryption>,
    },
}

impl Rules {
    /// No rules: values stay plain.
    pub(in crate::storage) fn none() -> Self {
        Self::Fixed(Arc::default())
    }

    /// Reads the file for the first time, and again whenever it is replaced if it `reloads`.
    ///
    /// # Errors
    /// What is wrong with the file, naming it.
    pub(in crate::storage) fn open(path: &Path, prefix: &str, reloads: bool) -> Result<Self, String> {
        let read = || Encryption::read(path, prefix);
        if !reloads {
            return Ok(Self::Fixed(Arc::new(read()?)));
        }
        let followed = Followed::open(&[path], read)?;
        Ok(Self::Followed { path: path.to_owned(), prefix: prefix.to_owned(), followed })
    }

    /// The rules at this moment.
    pub(in crate::storage) fn current(&self) -> Arc<Encryption> {
        match self {
            Self::Fixed(rules) => Arc::clone(rules),
            Self::Followed { path, prefix, followed } => {
                followed.current(|| Encryption::read(path, prefix)).1
            }
        }
    }
}
