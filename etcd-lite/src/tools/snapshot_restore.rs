//! `snapshot restore`: the data directory of a member of a new cluster, which begins with what a snapshot file holds.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{ArgAction, Args};
use etcd_lite_core::Store;
use sha2::{Digest, Sha256};

use super::snapshot_status::open;
use crate::backend_file::{self, CHECKSUM_BYTES};
use crate::checkpoint::snapshot_file;
use crate::options::{ClusterDescription, Options};
use crate::wal::{Wal, WalHardState, WalRecord};

/// The place of the restored state in the new cluster's log: the same for all members, which are restored one by one.
const INDEX: u64 = 1;
const TERM: u64 = 1;

/// The flags of `snapshot restore`, as etcdutl has them.
#[derive(Args, Debug)]
pub(super) struct RestoreOptions {
    /// The snapshot file.
    #[arg(value_name = "FILENAME")]
    files: Vec<PathBuf>,
    /// Path to the output data directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Path to the WAL directory (use --data-dir if none given).
    #[arg(long)]
    wal_dir: Option<PathBuf>,
    /// Human-readable name for this member.
    #[arg(long, default_value = "default")]
    name: String,
    /// Initial cluster configuration for restore bootstrap.
    #[arg(long, default_value = "default=http://localhost:2380")]
    initial_cluster: String,
    /// Initial cluster token for the cluster during restore bootstrap.
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// List of this member's peer URLs to advertise to the rest of the cluster.
    #[arg(long, default_value = "http://localhost:2380", value_name = "URLS")]
    initial_advertise_peer_urls: String,
    /// Ignore snapshot integrity hash value (required if copied from data directory).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    skip_hash_check: bool,
    /// How much to increase the latest revision after restore.
    #[arg(long, default_value_t = 0, value_name = "N")]
    bump_revision: u64,
    /// Mark the latest revision after restore as compacted (required if --bump-revision > 0, disallowed otherwise).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    mark_compacted: bool,
}

/// Restores. Nothing is left behind when it does not succeed.
pub(super) fn run(options: RestoreOptions) -> Result<(), super::Failure> {
    let [file] = options.files.as_slice() else {
        return Err(super::bad_arguments("snapshot restore requires exactly one argument"));
    };
    let data_dir = super::required(options.data_dir.clone())?;
    if (options.bump_revision > 0) != options.mark_compacted {
        return Err(super::bad_arguments("--mark-compacted required if --revision-bump > 0"));
    }
    let cluster = cluster(&options)?;
    if is_occupied(&data_dir) {
        return Err(anyhow!("data-dir {data_dir:?} not empty or could not be read").into());
    }
    if let Some(wal_dir) = options.wal_dir.as_deref().filter(|dir| dir.exists()) {
        return Err(anyhow!("wal-dir {wal_dir:?} exists").into());
    }
    let mut store = read(file, &options)?;
    store.begin_with(cluster.records());
    let (revision, keys) = (store.revision(), store.key_count());
    write(&data_dir, options.wal_dir.as_deref(), &store, &cluster)?;
    eprintln!(
        "restored {} to {}: revision {revision}, {keys} keys, member {:x} of cluster {:x}",
        file.display(),
        data_dir.display(),
        cluster.id,
        cluster.cluster_id
    );
    Ok(())
}

/// The members of the new cluster, with the ids that the server finds for the same flags.
fn cluster(options: &RestoreOptions) -> anyhow::Result<ClusterDescription> {
    let flags = [
        format!("--name={}", options.name),
        format!("--initial-cluster={}", options.initial_cluster),
        format!("--initial-cluster-token={}", options.initial_cluster_token),
        format!("--initial-advertise-peer-urls={}", options.initial_advertise_peer_urls),
    ];
    let arguments = std::iter::once("etcd-lite".to_owned()).chain(flags).map(Into::into);
    let server: Options = component_base::flags::try_parse_from(arguments, &[])?;
    server.cluster()
}

fn is_occupied(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

fn read(path: &Path, options: &RestoreOptions) -> anyhow::Result<Store> {
    let file = open(path)?;
    check_hash(path, options.skip_hash_check)?;
    let mut imported = backend_file::import(&file)
        .with_context(|| format!("{} is damaged or not a snapshot of etcd", path.display()))?;
    if options.bump_revision > 0 {
        imported.bump_revision(options.bump_revision)?;
    }
    Ok(imported.into_store(INDEX, TERM)?)
}

/// Compares the checksum behind the file with its content.
fn check_hash(path: &Path, skip: bool) -> anyhow::Result<()> {
    if skip {
        return Ok(());
    }
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if !backend_file::has_checksum(length) {
        bail!("snapshot missing hash but --skip-hash-check=false");
    }
    let mut hasher = Sha256::new();
    std::io::copy(&mut (&mut file).take(length - CHECKSUM_BYTES), &mut hasher)?;
    let mut expected = [0; CHECKSUM_BYTES as usize];
    file.seek(SeekFrom::Start(length - CHECKSUM_BYTES))?;
    file.read_exact(&mut expected)?;
    let found: [u8; CHECKSUM_BYTES as usize] = hasher.finalize().into();
    if found != expected {
        let decimal = |bytes: [u8; 32]| bytes.map(|byte| byte.to_string()).join(" ");
        bail!("expected sha256 [{}], got [{}]", decimal(expected), decimal(found));
    }
    Ok(())
}

/// Writes the directory beside its place and gives it its name last.
fn write(
    data_dir: &Path,
    wal_dir: Option<&Path>,
    store: &Store,
    cluster: &ClusterDescription,
) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", data_dir.display());
    let mut partial = data_dir.as_os_str().to_owned();
    partial.push(".restoring");
    let partial = PathBuf::from(partial);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(failed)?;
    }
    let log = wal_dir.map_or_else(|| partial.join("member").join("wal"), Path::to_owned);
    let result = write_member(&partial, &log, store, cluster).and_then(|()| {
        if data_dir.exists() {
            // Empty, as was seen.
            std::fs::remove_dir(data_dir).with_context(failed)?;
        }
        std::fs::rename(&partial, data_dir).with_context(failed)?;
        let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()).with_context(failed)
    });
    if result.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_dir_all(&partial);
        // It was not there before.
        let _ = std::fs::remove_dir_all(&log);
    }
    result
}

fn write_member(dir: &Path, log: &Path, store: &Store, cluster: &ClusterDescription) -> anyhow::Result<()> {
    let member = dir.join("member");
    std::fs::create_dir_all(&member).with_context(|| format!("cannot make {}", member.display()))?;
    let records = store.records().collect();
    snapshot_file::write(&member.join("snap"), INDEX, TERM, records)
        .with_context(|| format!("cannot write {}", member.display()))?;
    let (mut log, _) = Wal::open(log, cluster.cluster_id, cluster.id)?;
    log.append(&WalRecord::Snapshot { index: INDEX, term: TERM });
    log.append(&WalRecord::HardState(WalHardState { term: TERM, vote: 0, commit: INDEX }));
    log.sync()?;
    for made in [member.as_path(), dir] {
        File::open(made).and_then(|dir| dir.sync_all())?;
    }
    Ok(())
}
