//! The pods' cgroups (cgroupfs driver, v1 and v2): made before a pod's sandbox, removed after it.
//!
//! Never here: containers' own cgroups; the runtime makes those.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kubelet_core::resources::{self, CPU_PERIOD_MICROSECONDS, CgroupValues};

/// Where cgroups are, and of which version.
#[derive(Clone, Debug)]
pub enum Hierarchy {
    /// One tree.
    V2 {
        /// Its mount point.
        mount: PathBuf,
    },
    /// One tree a controller (or group of them).
    V1 {
        /// Mount points by controller name.
        mounts: Vec<(String, PathBuf)>,
    },
}

/// Makes and removes cgroups below a root.
#[derive(Clone, Debug)]
pub struct Cgroups {
    hierarchy: Hierarchy,
    root: String,
}

/// The cgroups of the three QoS classes.
const PARENTS: [&str; 3] = ["/kubepods", "/kubepods/burstable", "/kubepods/besteffort"];
const V2_CONTROLLERS: &str = "+cpu +memory +pids +cpuset +io";

impl Cgroups {
    /// Finds the hierarchy from the mount table. `root` is `--cgroup-root`.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn detect(root: &str) -> io::Result<Self> {
        let table = std::fs::read_to_string("/proc/self/mounts")?;
        let hierarchy = parse_mounts(&table)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup file system is mounted"))?;
        let root = format!("/{}", root.trim_matches('/'));
        Ok(Self { hierarchy, root: if root == "/" { String::new() } else { root } })
    }

    /// The pod's cgroup as the runtime wants it: the path below the mount point.
    pub fn pod_path(&self, pod: &Pod) -> String {
        format!("{}{}", self.root, resources::pod_cgroup(pod))
    }

    /// Removes the root itself, for tests that have one of their own.
    #[cfg(test)]
    pub fn remove_root(&self) -> io::Result<()> {
        assert!(!self.root.is_empty(), "the machine's own root stays");
        self.directories(&self.root).iter().try_for_each(|(_, directory)| remove_tree(directory))
    }

    /// The cgroup of all pods, below the mount point.
    pub fn pods_path(&self) -> String {
        format!("{}/kubepods", self.root)
    }

    fn directories(&self, path: &str) -> Vec<(Option<&str>, PathBuf)> {
        let relative = path.trim_start_matches('/');
        match &self.hierarchy {
            Hierarchy::V2 { mount } => vec![(None, mount.join(relative))],
            Hierarchy::V1 { mounts } => mounts
                .iter()
                .map(|(controller, mount)| (Some(controller.as_str()), mount.join(relative)))
                .collect(),
        }
    }

    /// Makes the pod's cgroup with its limits, and those above it.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn create(&self, pod: &Pod, pids_max: Option<i64>) -> io::Result<()> {
        let path = self.pod_path(pod);
        for (controller, directory) in self.directories(&path) {
            if matches!(controller, None | Some("cpu" | "memory" | "pids")) {
                if controller.is_none() {
                    self.enable_v2_controllers(&path)?;
                }
                std::fs::create_dir_all(&directory).map_err(|error| with_path(error, &directory))?;
                apply(controller, &directory, &resources::pod_values(pod), pids_max)?;
            }
        }
        Ok(())
    }

    /// Changes the limits of a pod's cgroup that is there.
    ///
    /// # Errors
    /// The file system's, with the path: memory that is in use cannot be taken away.
    pub fn set(&self, pod: &Pod, values: &CgroupValues) -> io::Result<()> {
        for (controller, directory) in self.directories(&self.pod_path(pod)) {
            if matches!(controller, None | Some("cpu" | "memory")) {
                apply(controller, &directory, values, None)?;
            }
        }
        Ok(())
    }

    /// In v2 each level must pass its controllers on.
    fn enable_v2_controllers(&self, path: &str) -> io::Result<()> {
        let Hierarchy::V2 { mount } = &self.hierarchy else { return Ok(()) };
        let mut directory = mount.clone();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for part in &parts {
            for controller in V2_CONTROLLERS.split(' ') {
                // A controller that the kernel or the parent does not offer cannot be passed on.
                let _ = std::fs::write(directory.join("cgroup.subtree_control"), controller);
            }
            directory = directory.join(part);
            std::fs::create_dir_all(&directory).map_err(|error| with_path(error, &directory))?;
        }
        Ok(())
    }

    /// Removes the cgroup of a pod of whatever class. Nothing happens if there is none.
    ///
    /// # Errors
    /// If a process is still in it.
    pub fn remove(&self, pod_uid: &str) -> io::Result<()> {
        if pod_uid.is_empty() {
            return Ok(());
        }
        for parent in PARENTS {
            let path = format!("{}{parent}/pod{pod_uid}", self.root);
            self.directories(&path).iter().try_for_each(|(_, directory)| remove_tree(directory))?;
        }
        Ok(())
    }

    /// UIDs that have a cgroup here: for finding pods that no longer exist.
    pub fn pod_uids(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for parent in PARENTS {
            let path = format!("{}{parent}", self.root);
            for (_, directory) in self.directories(&path) {
                for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    found.extend(name.strip_prefix("pod").map(str::to_owned));
                }
            }
        }
        found
    }

    /// CPU nanoseconds used so far and bytes of memory in the working set, of a cgroup below the mount point.
    pub fn usage(&self, path: &str) -> Option<(u64, u64)> {
        let relative = path.trim_start_matches('/');
        let read = |path: PathBuf| std::fs::read_to_string(path).ok();
        let field = |text: &str, name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        match &self.hierarchy {
            Hierarchy::V2 { mount } => {
                let directory = mount.join(relative);
                let cpu = field(&read(directory.join("cpu.stat"))?, "usage_usec ")? * 1000;
                let memory: u64 = read(directory.join("memory.current"))?.trim().parse().ok()?;
                let inactive = field(&read(directory.join("memory.stat"))?, "inactive_file ").unwrap_or(0);
                Some((cpu, memory.saturating_sub(inactive)))
            }
            Hierarchy::V1 { mounts } => {
                let of = |name: &str| {
                    mounts.iter().find(|(have, _)| have == name).map(|(_, mount)| mount.join(relative))
                };
                let cpu = read(of("cpuacct")?.join("cpuacct.usage"))?.trim().parse().ok()?;
                let directory = of("memory")?;
                let memory: u64 = read(directory.join("memory.usage_in_bytes"))?.trim().parse().ok()?;
                let inactive =
                    field(&read(directory.join("memory.stat"))?, "total_inactive_file ").unwrap_or(0);
                Some((cpu, memory.saturating_sub(inactive)))
            }
        }
    }
}

fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn parse_mounts(table: &str) -> Option<Hierarchy> {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, mount, kind, options, ..] = fields.as_slice() else { continue };
        match *kind {
            "cgroup" => {
                for option in options.split(',') {
                    let known = [
                        "cpu", "cpuacct", "memory", "pids", "cpuset", "devices", "freezer", "blkio",
                        "hugetlb",
                    ];
                    let controller = if known.contains(&option)
                        || option.starts_with("name=")
                        || option.starts_with("net_")
                    {
                        option
                    } else {
                        continue;
                    };
                    v1.push((controller.to_owned(), PathBuf::from(mount)));
                }
            }
            "cgroup2" => v2 = Some(PathBuf::from(mount)),
            _ => {}
        }
    }
    // A v2 tree beside v1 controllers (the hybrid layout) has no controllers of its own, but the runtime uses it too.
    if v1.iter().any(|(controller, _)| controller == "memory") {
        v1.extend(v2.map(|mount| ("unified".to_owned(), mount)));
        return Some(Hierarchy::V1 { mounts: v1 });
    }
    v2.map(|mount| Hierarchy::V2 { mount })
}

fn apply(
    controller: Option<&str>,
    directory: &Path,
    values: &CgroupValues,
    pids_max: Option<i64>,
) -> io::Result<()> {
    let write = |file: &str, text: String| {
        let path = directory.join(file);
        match std::fs::write(&path, text) {
            // The controller may be missing in this kernel.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(with_path(error, &path)),
            Ok(()) => Ok(()),
        }
    };
    if let (Some(pids), None | Some("pids")) = (pids_max, controller) {
        write("pids.max", pids.to_string())?;
    }
    match controller {
        Some("cpu") => {
            write("cpu.shares", values.cpu_shares.to_string())?;
            write("cpu.cfs_period_us", CPU_PERIOD_MICROSECONDS.to_string())?;
            write("cpu.cfs_quota_us", values.cpu_quota.unwrap_or(-1).to_string())
        }
        Some("memory") => write("memory.limit_in_bytes", values.memory_limit.unwrap_or(-1).to_string()),
        Some(_) => Ok(()),
        None => {
            write("cpu.weight", resources::cpu_weight(values.cpu_shares).to_string())?;
            let quota = values.cpu_quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            write("cpu.max", format!("{quota} {CPU_PERIOD_MICROSECONDS}"))?;
            let memory = values.memory_limit.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
            write("memory.max", memory)
        }
    }
}

/// cgroup directories go one by one, children first; their files go with them.
fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(with_path(error, directory)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(with_path(error, directory)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_layout_counts_as_v1() {
        let table = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\n\
                     cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        match parse_mounts(table) {
            Some(Hierarchy::V1 { mounts }) => {
                let names: Vec<_> = mounts.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, ["cpu", "cpuacct", "memory", "unified"]);
            }
            other => panic!("{other:?}"),
        }
        let only = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert!(matches!(parse_mounts(only), Some(Hierarchy::V2 { .. })));
        assert!(parse_mounts("proc /proc proc rw 0 0").is_none());
    }

    #[test]
    fn v2_limits_are_written_in_its_own_files() {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().to_owned();
        let cgroups = Cgroups { hierarchy: Hierarchy::V2 { mount: mount.clone() }, root: "/lab".to_owned() };
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]}}))
            .unwrap();
        cgroups.create(&pod, Some(64)).unwrap();
        let read = |name: &str| std::fs::read_to_string(mount.join("lab/kubepods/podu").join(name)).unwrap();
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("pids.max"), "64");
        assert_eq!(read("memory.max"), (64 << 20).to_string());
        assert_eq!(cgroups.pod_uids(), BTreeSet::from(["u".to_owned()]));
    }
}
