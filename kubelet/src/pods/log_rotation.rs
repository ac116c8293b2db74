//! Keeps container logs bounded: renames a log that has grown too large and removes the oldest.
//!
//! Never here: reading logs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::pod_view;

use crate::context::Context;

/// Looks at the logs of all running containers.
pub async fn rotate(context: &Context, pods: &[Arc<Pod>]) {
    let (bytes_max, files_max) = context.settings.log_rotation;
    for pod in pods {
        for (id, path) in too_large(context, pod, bytes_max) {
            if let Err(error) = rotate_one(context, &id, &path, files_max).await {
                tracing::warn!(pod = pod_view::describe(pod), path = %path.display(), error, "cannot rotate a log");
            }
        }
    }
}

/// Ids and log files of the pod's running containers whose logs have grown too large.
fn too_large(context: &Context, pod: &Pod, bytes_max: u64) -> Vec<(String, PathBuf)> {
    let statuses = pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    let mut found = Vec::new();
    for status in statuses {
        let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        let id = status.container_id.as_deref().and_then(|id| id.split_once("://"));
        let (true, Some((_, id))) = (running, id) else { continue };
        let path =
            context.log_directory(pod).join(&status.name).join(format!("{}.log", status.restart_count));
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= bytes_max) {
            found.push((id.to_owned(), path));
        }
    }
    found
}

async fn rotate_one(context: &Context, id: &str, path: &Path, files_max: usize) -> Result<(), String> {
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let renamed = PathBuf::from(format!("{}.{stamp}", path.display()));
    std::fs::rename(path, &renamed).map_err(|error| error.to_string())?;
    if let Err(error) = context.runtime.reopen_log(id).await {
        // The runtime goes on writing to the renamed file: give it its name back.
        std::fs::rename(&renamed, path).map_err(|error| error.to_string())?;
        return Err(error.to_string());
    }
    for old in superseded(path, files_max) {
        std::fs::remove_file(old).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Rotated files of a log, oldest first.
pub fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// The files beyond `files_max`, the current one counted.
fn superseded(path: &Path, files_max: usize) -> Vec<PathBuf> {
    let mut old = rotated(path);
    let keep = files_max.saturating_sub(1);
    old.truncate(old.len().saturating_sub(keep));
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_files_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("0.log");
        for name in
            ["0.log", "0.log.20260101-000000", "0.log.20260102-000000", "0.log.20260103-000000", "1.log"]
        {
            std::fs::write(root.path().join(name), "x").unwrap();
        }
        let names: Vec<_> = superseded(&log, 3)
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["0.log.20260101-000000"]);
    }
}
