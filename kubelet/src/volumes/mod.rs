//! A pod's volumes: made ready before its containers, kept current while it runs, removed after it.
//!
//! Never here: making volumes that outlive the pod.

pub mod atomic_writer;
pub mod claims;
pub mod host_path;
pub mod ownership;
pub mod payload;
pub mod token;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, EmptyDirVolumeSource, Pod, Secret, Volume};
use kube::Client;
use kubelet_core::field_ref::NodeFacts;
use kubelet_core::{pod_view, resources};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use parking_lot::Mutex;

use crate::objects::ObjectCache;
use claims::ClaimError;
use payload::Fetched;
use token::Tokens;

/// Why a volume is not ready. `Display` is the `FailedMount` event's text.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The volume cannot be made or reached.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {cause}")]
    SetUp {
        /// The volume's name.
        volume: String,
        /// What is wrong.
        cause: String,
    },
    /// The claim has no volume (yet).
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: {cause}"
    )]
    Claim {
        /// The volume's name in the pod.
        volume: String,
        /// What is wrong.
        cause: String,
    },
}

/// Volumes behind claims, by pod UID and the volume's name in the pod.
type Located = BTreeMap<(String, String), PathBuf>;

/// Makes and removes volumes below the kubelet's root directory.
pub struct Volumes {
    root: PathBuf,
    config_maps: Arc<ObjectCache<ConfigMap>>,
    secrets: Arc<ObjectCache<Secret>>,
    tokens: Arc<Tokens>,
    client: Client,
    located: Mutex<Located>,
}

impl Volumes {
    /// Volumes below `root` (`--root-dir`).
    pub fn new(
        root: PathBuf,
        config_maps: Arc<ObjectCache<ConfigMap>>,
        secrets: Arc<ObjectCache<Secret>>,
        tokens: Arc<Tokens>,
        client: Client,
    ) -> Self {
        Self { root, config_maps, secrets, tokens, client, located: Mutex::default() }
    }

    /// The pod's directory.
    pub fn pod_directory(&self, pod_uid: &str) -> PathBuf {
        self.root.join("pods").join(pod_uid)
    }

    fn directory(&self, pod_uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod_directory(pod_uid).join("volumes").join(plugin).join(name)
    }

    /// The directory or file on the node behind a volume of the pod; `None` for kinds that are not supported.
    pub fn host_path(&self, pod_uid: &str, volume: &Volume) -> Option<PathBuf> {
        let plugin = if let Some(host) = &volume.host_path {
            return Some(PathBuf::from(&host.path));
        } else if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            return self.located.lock().get(&(pod_uid.to_owned(), volume.name.clone())).cloned();
        } else if volume.empty_dir.is_some() {
            "kubernetes.io~empty-dir"
        } else if volume.config_map.is_some() {
            "kubernetes.io~configmap"
        } else if volume.secret.is_some() {
            "kubernetes.io~secret"
        } else if volume.downward_api.is_some() {
            "kubernetes.io~downward-api"
        } else if volume.projected.is_some() {
            "kubernetes.io~projected"
        } else {
            return None;
        };
        Some(self.directory(pod_uid, plugin, &volume.name))
    }

    /// Makes all volumes of the pod ready, or brings them up to date. Cheap when nothing has changed. Returns when it
    /// wants to be called again: tokens must be renewed.
    ///
    /// # Errors
    /// The first volume that is not ready.
    pub async fn set_up(&self, pod: &Pod, node: &NodeFacts) -> Result<Option<Timestamp>, MountError> {
        let mut renew_at: Option<Timestamp> = None;
        for volume in pod_view::spec(pod).volumes.iter().flatten() {
            if let Some((claim, generated)) = claims::claim_of(pod, volume) {
                self.locate(pod, volume, &claim, generated, node).await?;
                continue;
            }
            let again = self
                .set_up_one(pod, volume, node)
                .await
                .map_err(|cause| MountError::SetUp { volume: volume.name.clone(), cause })?;
            renew_at = [renew_at, again].into_iter().flatten().min();
        }
        Ok(renew_at)
    }

    /// Finds the directory behind a claim, once a pod: what it is bound to never changes.
    async fn locate(
        &self,
        pod: &Pod,
        volume: &Volume,
        claim: &str,
        generated: bool,
        node: &NodeFacts,
    ) -> Result<(), MountError> {
        let key = (pod_view::uid(pod).to_owned(), volume.name.clone());
        if self.located.lock().contains_key(&key) {
            return Ok(());
        }
        let here = (node.node_name.as_str(), &node.node_labels);
        let located =
            claims::locate(&self.client, pod, claim, generated, here).await.map_err(|error| match error {
                ClaimError::Claim(cause) => MountError::Claim { volume: volume.name.clone(), cause },
                ClaimError::Volume(volume, cause) => MountError::SetUp { volume, cause },
            })?;
        if let Some(group) = fs_group(pod).filter(|_| located.owned) {
            let security = pod_view::spec(pod).security_context.as_ref();
            let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
            ownership::give(&located.path, group, policy == Some("OnRootMismatch")).map_err(|error| {
                MountError::SetUp { volume: volume.name.clone(), cause: error.to_string() }
            })?;
        }
        self.located.lock().insert(key, located.path);
        Ok(())
    }

    async fn set_up_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        node: &NodeFacts,
    ) -> Result<Option<Timestamp>, String> {
        let uid = pod_view::uid(pod);
        if let Some(host) = &volume.host_path {
            return host_path::check(host).map(|()| None);
        }
        let Some(directory) = self.host_path(uid, volume) else {
            return Err(format!("volume kind {} is not supported by this kubelet yet", kind_of(volume)));
        };
        let group = fs_group(pod);
        let failed = |error: io::Error| format!("{}: {error}", directory.display());
        if let Some(empty) = &volume.empty_dir {
            empty_dir(pod, empty, &directory, group).map_err(failed)?;
            return Ok(None);
        }
        let secret = volume.secret.is_some() || volume.projected.is_some();
        std::fs::create_dir_all(&directory).map_err(failed)?;
        if secret {
            mount_tmpfs(&directory, None).map_err(failed)?;
        }
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let fetched = self.fetch(pod, volume).await?;
        let (files, renew_at) = payload::files(pod, volume, &fetched, node)?;
        if atomic_writer::write(&directory, &files, group, Timestamp::now()).map_err(failed)? {
            tracing::debug!(pod = pod_view::describe(pod), volume = volume.name, "volume content written");
        }
        Ok(renew_at)
    }

    /// Gets everything that the volume's content comes from.
    async fn fetch(&self, pod: &Pod, volume: &Volume) -> Result<Fetched, String> {
        let (namespace, uid) = (pod_view::namespace(pod), pod_view::uid(pod));
        let mut fetched = Fetched::default();
        for (name, is_secret) in payload::references(volume) {
            if is_secret {
                if let Some(secret) = self.secrets.get(namespace, &name, uid).await? {
                    fetched.secrets.insert(name, secret);
                }
            } else if let Some(map) = self.config_maps.get(namespace, &name, uid).await? {
                fetched.config_maps.insert(name, map);
            }
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(wanted) = &source.service_account_token {
                let token = self.tokens.get(pod, wanted).await?;
                fetched.tokens.insert(wanted.path.clone(), token);
            }
        }
        Ok(fetched)
    }

    /// Removes everything of a pod below the root directory; mounts first.
    ///
    /// # Errors
    /// If a mount is still in use.
    pub fn tear_down(&self, pod_uid: &str) -> io::Result<()> {
        let directory = self.pod_directory(pod_uid);
        self.tokens.release(pod_uid);
        self.config_maps.release(pod_uid);
        self.secrets.release(pod_uid);
        self.located.lock().retain(|(uid, _), _| uid != pod_uid);
        if pod_uid.is_empty() || !directory.exists() {
            return Ok(());
        }
        let prefix = std::fs::canonicalize(&directory)?;
        let table = std::fs::read_to_string("/proc/self/mounts")?;
        let mut mounts: Vec<PathBuf> = table
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .map(|path| PathBuf::from(unescape_mount(path)))
            .filter(|path| path.starts_with(&prefix))
            .collect();
        mounts.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for path in mounts {
            umount2(&path, MntFlags::MNT_DETACH).map_err(io::Error::from)?;
        }
        std::fs::remove_dir_all(&directory)
    }

    /// UIDs of pods that have a directory.
    pub fn pod_uids(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("pods")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// `/proc/self/mounts` writes blanks and the like as `\040`.
fn unescape_mount(path: &str) -> String {
    let mut out = Vec::new();
    let bytes = path.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let octal = (bytes[index] == b'\\')
            .then(|| path.get(index + 1..index + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                index += 4;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut kinds = value.as_object().into_iter().flat_map(|map| map.keys()).filter(|key| *key != "name");
    kinds.next().cloned().unwrap_or_else(|| "unknown".to_owned())
}

/// The group that owns the pod's volumes.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod_view::spec(pod).security_context.as_ref()?;
    context.fs_group.and_then(|group| u32::try_from(group).ok())
}

fn is_mount_point(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let parent = directory.parent().unwrap_or(directory);
    match (std::fs::metadata(directory), std::fs::metadata(parent)) {
        (Ok(own), Ok(above)) => own.dev() != above.dev(),
        _ => false,
    }
}

/// Mounts a tmpfs unless there is one already.
fn mount_tmpfs(directory: &Path, size_bytes: Option<i64>) -> io::Result<()> {
    if is_mount_point(directory) {
        return Ok(());
    }
    let options = size_bytes.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .map_err(io::Error::from)
}

fn empty_dir(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    directory: &Path,
    group: Option<u32>,
) -> io::Result<()> {
    let exists = directory.exists();
    std::fs::create_dir_all(directory)?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(resources::value).filter(|bytes| *bytes > 0);
            mount_tmpfs(directory, limit.or_else(|| resources::pod_values(pod).memory_limit))?;
        }
        other => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("emptyDir medium {other:?} is not supported yet"),
            ));
        }
    }
    if !exists {
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        if group.is_some() {
            std::os::unix::fs::chown(directory, None, group)?;
        }
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// What the environment of a container is built from.
pub struct EnvironmentObjects {
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
}

impl kubelet_core::environment::Sources for EnvironmentObjects {
    fn config_map(&self, _: &str, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(name).map(Arc::as_ref)
    }

    fn secret(&self, _: &str, name: &str) -> Option<&Secret> {
        self.secrets.get(name).map(Arc::as_ref)
    }
}

impl Volumes {
    /// Gets the ConfigMaps and Secrets that a container's environment names.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn environment_objects(
        &self,
        pod: &Pod,
        container: &k8s_openapi::api::core::v1::Container,
    ) -> Result<EnvironmentObjects, String> {
        let (namespace, uid) = (pod_view::namespace(pod), pod_view::uid(pod));
        let mut objects = EnvironmentObjects { config_maps: BTreeMap::new(), secrets: BTreeMap::new() };
        let from = container.env_from.iter().flatten();
        let keys = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
        let maps = from
            .clone()
            .filter_map(|from| from.config_map_ref.as_ref().map(|reference| reference.name.clone()))
            .chain(keys.clone().filter_map(|from| from.config_map_key_ref.as_ref().map(|r| r.name.clone())));
        for name in maps {
            if let Some(map) = self.config_maps.get(namespace, &name, uid).await? {
                objects.config_maps.insert(name, map);
            }
        }
        let secrets = from
            .filter_map(|from| from.secret_ref.as_ref().map(|reference| reference.name.clone()))
            .chain(keys.filter_map(|from| from.secret_key_ref.as_ref().map(|r| r.name.clone())));
        for name in secrets {
            if let Some(secret) = self.secrets.get(namespace, &name, uid).await? {
                objects.secrets.insert(name, secret);
            }
        }
        Ok(objects)
    }

    /// Credentials for an image from the pod's pull secrets.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn pull_secrets(&self, pod: &Pod) -> Result<Vec<Arc<Secret>>, String> {
        let mut found = Vec::new();
        for reference in pod_view::spec(pod).image_pull_secrets.iter().flatten() {
            if let Some(secret) =
                self.secrets.get(pod_view::namespace(pod), &reference.name, pod_view::uid(pod)).await?
            {
                found.push(secret);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_paths_with_blanks_are_read() {
        assert_eq!(unescape_mount("/a\\040b\\134c"), "/a b\\c");
    }

    #[test]
    fn unsupported_kinds_are_named() {
        let volume: Volume =
            serde_json::from_value(serde_json::json!({"name": "v", "nfs": {"server": "s", "path": "/"}}))
                .unwrap();
        assert_eq!(kind_of(&volume), "nfs");
    }
}
