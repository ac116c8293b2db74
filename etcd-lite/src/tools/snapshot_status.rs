//! `snapshot status`: what is in a snapshot file.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, anyhow};
use etcd_lite_core::backend_form::parse_revision;

use super::output::{self, Cell, OutputFormat, bytes_for_people};
use crate::bolt::{BoltError, Item, Reader};

/// What is told of a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    hash: u32,
    revision: i64,
    total_keys: u64,
    total_size: u64,
}

/// Opens a snapshot file.
pub(super) fn open(path: &Path) -> anyhow::Result<Reader> {
    let file = File::open(path)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow!("stat {}: no such file or directory", path.display()),
            _ => error.into(),
        })
        .and_then(|file| match file.metadata()?.is_dir() {
            true => Err(anyhow!("{} is a directory, not a snapshot file", path.display())),
            false => Ok(file),
        })?;
    Ok(Reader::open(file)?)
}

/// Reads a snapshot file whole.
pub(super) fn status(path: &Path) -> anyhow::Result<Status> {
    let file = open(path)?;
    let mut status = Status { hash: 0, revision: 0, total_keys: 0, total_size: file.size_bytes() };
    let mut is_key = false;
    let result = file.read(&mut |item| {
        match item {
            Item::Bucket(name) => {
                is_key = name == b"key";
                status.hash = crc32c::crc32c_append(status.hash, name);
            }
            Item::Pair(key, value) => {
                status.hash = crc32c::crc32c_append(crc32c::crc32c_append(status.hash, key), value);
                status.total_keys += 1;
                if is_key {
                    let (revision, _) = parse_revision(key)
                        .ok_or_else(|| format!("{} is no revision", key.escape_ascii()))?;
                    status.revision = revision.main;
                }
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => Ok(status),
        Err(error @ BoltError::Io(_)) => Err(error).with_context(|| path.display().to_string()),
        Err(error) => Err(anyhow!("snapshot file integrity check failed. 1 errors found.\n{error}")),
    }
}

impl Status {
    pub(super) fn print(&self, format: OutputFormat) -> String {
        let cell =
            |heading, field, json, text: String, number: String| Cell { heading, text, field, json, number };
        output::print(
            &[
                cell("HASH", "Hash", "hash", format!("{:x}", self.hash), self.hash.to_string()),
                cell(
                    "REVISION",
                    "Revision",
                    "revision",
                    self.revision.to_string(),
                    self.revision.to_string(),
                ),
                cell(
                    "TOTAL KEYS",
                    "Keys",
                    "totalKey",
                    self.total_keys.to_string(),
                    self.total_keys.to_string(),
                ),
                cell(
                    "TOTAL SIZE",
                    "Size",
                    "totalSize",
                    bytes_for_people(self.total_size),
                    self.total_size.to_string(),
                ),
            ],
            format,
        )
    }
}
