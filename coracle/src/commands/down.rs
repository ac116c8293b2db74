//! `coracle down`: end the cluster's processes and containers, remove mounts, cgroups, links and namespaces. Works from
//! what it finds in the kernel, so that it also cleans up after a crash.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::signal::Signal;

use super::existing;
use crate::cluster::Cluster;
use crate::layout::Layout;
use crate::network;
use crate::processes::{self, ProcessTable};
use crate::progress::Progress;
use crate::supervisor::control;

#[derive(Args, Debug)]
pub struct Options {
    /// Delete the data directory as well: the store, the nodes' images, the certificates.
    #[arg(long)]
    purge: bool,
}

const KILL_DEADLINE: Duration = Duration::from_secs(10);

pub async fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    // A cluster whose description is damaged can still be purged: its processes and mounts are found by the directory.
    let cluster = match existing(layout) {
        Ok(cluster) => Some(cluster),
        Err(error) if options.purge && layout.cluster_file().exists() => {
            eprintln!("warning: {error:#}");
            None
        }
        Err(error) => return Err(error),
    };
    let mut progress = Progress::new();
    progress.step("processes");
    // Ends them in order if a supervisor is there; whatever it leaves is found below.
    let _ = control::ask(layout, &control::Request::Stop).await;
    end_processes(layout).await?;
    // Hollow clusters have no containers, and share their slot, by which cgroups are named, with others.
    if let Some(cluster) = cluster.as_ref().filter(|cluster| cluster.has_namespaces()) {
        progress.step("containers");
        end_containers(cluster).await?;
    }
    progress.step("mounts and sockets");
    remove_shim_sockets(layout);
    unmount_below(layout.root())?;
    clear_volatile(layout);
    if let Some(cluster) = cluster.filter(Cluster::has_namespaces) {
        progress.step("network");
        network::remove(&cluster);
    }
    if options.purge {
        progress.step("data");
        std::fs::remove_dir_all(layout.root())
            .with_context(|| format!("cannot delete {}", layout.root().display()))?;
    }
    progress.finish();
    println!("The cluster is down.{}", if options.purge { "" } else { " `coracle up` resumes it." });
    Ok(())
}

/// Ends everything whose command line names the data directory: supervisor, components, containerd, shims.
async fn end_processes(layout: &Layout) -> anyhow::Result<()> {
    let root = layout.root().to_str().context("the data directory's name is not UTF-8")?;
    // The supervisor first, or it starts again what is ended.
    if let Some(supervisor) = ProcessTable::read().supervisor(layout.root()) {
        processes::send(supervisor, Signal::SIGKILL);
        processes::wait_gone(&[supervisor], KILL_DEADLINE).await;
    }
    let inside = format!("{root}/");
    let left = ours(&inside);
    for pid in &left {
        processes::send(*pid, Signal::SIGKILL);
    }
    let alive = processes::wait_gone(&left, KILL_DEADLINE).await;
    if !alive.is_empty() {
        bail!("processes {alive:?} do not end; look at them with `ps -fp` and run `coracle down` again");
    }
    Ok(())
}

/// Components of the cluster, by program and argument; an editor or pager with a file of the cluster open is not one.
fn ours(inside: &str) -> Vec<u32> {
    const PROGRAMS: [&str; 10] = [
        "etcd-lite",
        "apiserver",
        "scheduler",
        "controller-manager",
        "kubelet",
        "kube-proxy",
        "containerd",
        "containerd-shim-runc-v2",
        "ctr",
        "runc",
    ];
    let program = |pid: u32| {
        let path = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = path.split('\0').next().unwrap_or_default().to_owned();
        first.rsplit('/').next().unwrap_or_default().to_owned()
    };
    ProcessTable::read()
        .mentioning(inside)
        .into_iter()
        .filter(|pid| PROGRAMS.contains(&program(*pid).as_str()))
        .collect()
}

/// Kills what is in the cluster's cgroups and removes them, in every hierarchy.
async fn end_containers(cluster: &Cluster) -> anyhow::Result<()> {
    let name = cluster.cgroup_root();
    let name = name.trim_start_matches('/');
    let hierarchies =
        std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let roots: Vec<PathBuf> = std::iter::once(PathBuf::from("/sys/fs/cgroup"))
        .chain(hierarchies)
        .map(|hierarchy| hierarchy.join(name))
        .filter(|root| root.is_dir())
        .collect();
    let mut killed = Vec::new();
    for root in &roots {
        for dir in tree(root) {
            let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|line| line.parse::<u32>().ok()) {
                processes::send(pid, Signal::SIGKILL);
                killed.push(pid);
            }
        }
    }
    let alive = processes::wait_gone(&killed, KILL_DEADLINE).await;
    if !alive.is_empty() {
        bail!("container processes {alive:?} do not end; run `coracle down` again");
    }
    for root in &roots {
        for dir in tree(root).into_iter().rev() {
            if let Err(error) = std::fs::remove_dir(&dir) {
                eprintln!("warning: cannot remove cgroup {}: {error}", dir.display());
            }
        }
    }
    Ok(())
}

/// A folder and all below it, parents before children.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        found.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()),
        );
    }
    found
}

/// Shims that were killed leave their sockets outside the data directory; each bundle names its own.
fn remove_shim_sockets(layout: &Layout) {
    let nodes = std::fs::read_dir(layout.node("")).into_iter().flatten().flatten();
    for node in nodes {
        let tasks = node.path().join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
        for bundle in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let address = std::fs::read_to_string(bundle.path().join("address")).unwrap_or_default();
            if let Some(path) = address.trim().strip_prefix("unix://") {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Unmounts everything below a directory, innermost first.
fn unmount_below(root: &Path) -> anyhow::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(root) && point != root)
        .collect();
    points.sort();
    for point in points.into_iter().rev() {
        let flags = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW;
        if let Err(error) = nix::mount::umount2(&point, flags) {
            eprintln!("warning: cannot unmount {}: {error}", point.display());
        }
    }
    Ok(())
}

/// The kernel writes spaces and the like in mount points as `\040`.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match (bytes[at], octal) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Removes what describes the run that has just ended: sockets, sandboxes' state, and the addresses they held.
fn clear_volatile(layout: &Layout) {
    let _ = std::fs::remove_dir_all(layout.run());
    for node in std::fs::read_dir(layout.node("")).into_iter().flatten().flatten() {
        for dir in ["containerd/state", "containerd/runc", "kubelet/cni-networks"] {
            let _ = std::fs::remove_dir_all(node.path().join(dir));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b/c"), "/a b/c");
        assert_eq!(unescape(r"/plain\x"), r"/plain\x");
    }

    #[test]
    fn trees_list_parents_first() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(dir.path().join("a/b")).expect("create");
        let found = tree(dir.path());
        assert_eq!(found, [dir.path().to_owned(), dir.path().join("a"), dir.path().join("a/b")]);
    }
}
