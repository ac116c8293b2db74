//! hostPath volumes: checks, and makes what `...OrCreate` asks for.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Checks that the path is of the asked type; makes it if the type says so.
///
/// # Errors
/// Upstream's text when the path is of another type or missing.
pub fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let text = &source.path;
    let path = Path::new(text);
    let kind = source.type_.as_deref().unwrap_or_default();
    let failed = |error: std::io::Error| format!("hostPath {text}: {error}");
    match kind {
        "" => {
            // The runtime would make a missing path a directory; so that the owner is known, it is made here.
            return if path.exists() { Ok(()) } else { std::fs::create_dir_all(path).map_err(failed) };
        }
        "DirectoryOrCreate" if !path.exists() => {
            std::fs::create_dir_all(path).map_err(failed)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
        "FileOrCreate" if !path.exists() => {
            std::fs::File::create(path).map_err(failed)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
        }
        _ => {}
    }
    let meta = std::fs::metadata(path);
    let file_type = meta.as_ref().ok().map(std::fs::Metadata::file_type);
    let (fits, name) = match kind {
        "Directory" | "DirectoryOrCreate" => (file_type.is_some_and(|t| t.is_dir()), "directory"),
        "File" | "FileOrCreate" => (file_type.is_some_and(|t| t.is_file()), "file"),
        "Socket" => (file_type.is_some_and(|t| t.is_socket()), "socket file"),
        "CharDevice" => (file_type.is_some_and(|t| t.is_char_device()), "character device"),
        "BlockDevice" => (file_type.is_some_and(|t| t.is_block_device()), "block device"),
        other => return Err(format!("hostPath {text}: unknown type {other:?}")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {text} is not a {name}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let root = tempfile::tempdir().unwrap();
        let source = |name: &str, kind: &str| HostPathVolumeSource {
            path: root.path().join(name).to_string_lossy().into_owned(),
            type_: Some(kind.to_owned()),
        };
        assert!(check(&source("d", "Directory")).unwrap_err().ends_with("is not a directory"));
        check(&source("d", "DirectoryOrCreate")).unwrap();
        check(&source("d", "Directory")).unwrap();
        assert!(check(&source("d", "File")).is_err());
        check(&source("f", "FileOrCreate")).unwrap();
        assert!(check(&source("f", "Socket")).is_err());
        assert!(check(&source("f", "Strange")).is_err());
    }
}
