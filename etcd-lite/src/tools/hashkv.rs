//! `hashkv`: etcd's checksum of the key space in a file or a data directory.

use std::path::Path;

use etcd_lite_core::Store;
use etcd_lite_core::hash::HashScope;

use super::output::{self, Cell, OutputFormat};
use super::{data_dir, snapshot_status};
use crate::backend_file;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashKv {
    hash: u32,
    scope: HashScope,
}

fn of_store(store: &Store, revision: i64) -> anyhow::Result<HashKv> {
    Ok(HashKv { hash: store.hash(revision)?, scope: store.hash_scope(revision)? })
}

/// Of a snapshot file.
pub(super) fn of_file(path: &Path, revision: i64) -> anyhow::Result<HashKv> {
    of_store(&backend_file::import(&snapshot_status::open(path)?)?.into_store(0, 0)?, revision)
}

/// Of what a member's data directory holds, up to the last entry the member knew to be committed.
pub(super) fn of_data_dir(path: &Path, wal_dir: Option<&Path>, revision: i64) -> anyhow::Result<HashKv> {
    of_store(&data_dir::state(path, wal_dir)?, revision)
}

impl HashKv {
    pub(super) fn print(&self, format: OutputFormat) -> String {
        let cell = |heading, field, json, number: String| Cell {
            heading,
            text: number.clone(),
            field,
            json,
            number,
        };
        output::print(
            &[
                cell("HASH", "Hash", "hash", self.hash.to_string()),
                cell("HASH REVISION", "Hash revision", "hashRevision", self.scope.revision.to_string()),
                cell(
                    "COMPACT REVISION",
                    "Compact revision",
                    "compactRevision",
                    self.scope.compacted_revision.to_string(),
                ),
            ],
            format,
        )
    }
}
