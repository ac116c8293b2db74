//! Builds container images out of one static binary, as archives in the OCI image layout, and loads archives into nodes.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::layout::Layout;

/// The image every cluster has on all nodes, as people write it.
pub const DEMO_IMAGE: &str = "demo:v1";
/// The same content under a second name, to show rolling updates with.
pub const DEMO_IMAGE_NEXT: &str = "demo:v2";
/// The image of pod sandboxes.
pub const PAUSE_IMAGE: &str = "docker.io/coracle/pause:v1";
/// The namespace of containerd that CRI uses.
const CRI_NAMESPACE: &str = "k8s.io";
/// Where the binary lies inside the image.
const BINARY: &str = "coracle-demo";
/// Tools of the multi-call binary, linked into `/bin` so that `kubectl exec POD -- sh` works.
const TOOLS: [&str; 15] = [
    "sh", "cat", "ls", "env", "echo", "sleep", "hostname", "get", "true", "false", "id", "mkdir", "rm",
    "touch", "date",
];

/// One image to build.
struct Image {
    file: &'static str,
    references: &'static [&'static str],
    /// What the binary does unless told otherwise.
    applet: &'static str,
}

const BUILT_IN: [Image; 2] = [
    Image { file: "demo.tar", references: &[DEMO_IMAGE, DEMO_IMAGE_NEXT], applet: "serve" },
    Image { file: "pause.tar", references: &[PAUSE_IMAGE], applet: "pause" },
];

/// Builds the built-in images into `images/`; an archive that is newer than the binary is kept.
///
/// # Errors
/// The binary is missing, is not static, or an archive cannot be written.
pub fn ensure_built_in(layout: &Layout) -> anyhow::Result<()> {
    let binary = demo_binary()?;
    let content = std::fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    if is_dynamic(&content) {
        bail!(
            "{} is linked dynamically and cannot run in an empty image; build it with `make build`",
            binary.display()
        );
    }
    let layer = layer(&content)?;
    for image in &BUILT_IN {
        let path = layout.images().join(image.file);
        let archive = archive(&layer, image)?;
        if std::fs::read(&path).is_ok_and(|old| old == archive) {
            continue;
        }
        crate::cluster::write_atomically(&path, &archive)?;
    }
    Ok(())
}

/// The archives that every node gets when its containerd starts.
pub fn built_in_archives(layout: &Layout) -> Vec<PathBuf> {
    BUILT_IN.iter().map(|image| layout.images().join(image.file)).collect()
}

/// Loads a docker or OCI archive into the containerd behind `socket`; returns the names it now has.
///
/// # Errors
/// `ctr` is missing, the archive is unreadable or damaged.
pub async fn import(socket: &Path, archive: &Path) -> anyhow::Result<Vec<String>> {
    const DEADLINE: std::time::Duration = std::time::Duration::from_secs(300);
    let import = tokio::process::Command::new("ctr")
        .arg("--address")
        .arg(socket)
        .args(["--namespace", CRI_NAMESPACE, "images", "import"])
        .arg(archive)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, import)
        .await
        .with_context(|| format!("importing {} took more than {DEADLINE:?}", archive.display()))?
        .context("cannot run `ctr`; install the package containerd")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("cannot load {}: {}", archive.display(), said.trim().trim_start_matches("ctr: "));
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(said
        .lines()
        .filter_map(|line| line.strip_prefix("unpacking ")?.split(' ').next().map(str::to_owned))
        .collect())
}

fn demo_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("CORACLE_DEMO_BINARY") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot find the own binary")?;
    let folder = own.parent().unwrap_or(Path::new("."));
    // Cargo's profile for the image builds beside the others; an installation has it next to the launcher.
    let candidates = [folder.join("../image").join(BINARY), folder.join(BINARY)];
    candidates.iter().find(|path| path.exists()).cloned().with_context(|| {
        format!(
            "there is no {BINARY} next to {}; build it with `make build`, or name it in CORACLE_DEMO_BINARY",
            own.display()
        )
    })
}

/// An ELF file with a `PT_INTERP` program header asks for a dynamic loader.
fn is_dynamic(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(elf.get(at..at + size)?);
        Some(u64::from_le_bytes(bytes))
    };
    let find = || -> Option<bool> {
        let (offset, size, count) =
            (number(32, 8)? as usize, number(54, 2)? as usize, number(56, 2)? as usize);
        Some((0..count).any(|i| number(offset + i * size, 4) == Some(u64::from(PT_INTERP))))
    };
    find().unwrap_or(true)
}

struct Blob {
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        Self { digest: digest(&content), content }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.content.len()})
    }
}

fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let mut text = String::from("sha256:");
    for byte in hash {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

struct Layer {
    compressed: Blob,
    /// Digest of the uncompressed tar.
    diff_id: String,
}

fn layer(binary: &[u8]) -> anyhow::Result<Layer> {
    let mut tar = tar::Builder::new(Vec::new());
    for (dir, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("var/", 0o755)] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        tar.append_data(&mut header, dir, std::io::empty())?;
    }
    tar.append_data(&mut header(tar::EntryType::Regular, 0o755, binary.len()), BINARY, binary)?;
    for tool in TOOLS {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{tool}"), format!("/{BINARY}"))?;
    }
    let users = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
    tar.append_data(&mut header(tar::EntryType::Regular, 0o644, users.len()), "etc/passwd", &users[..])?;
    let groups = b"root:x:0:\nnogroup:x:65534:\n";
    tar.append_data(&mut header(tar::EntryType::Regular, 0o644, groups.len()), "etc/group", &groups[..])?;
    let tar = tar.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar)?;
    Ok(Layer { diff_id: digest(&tar), compressed: Blob::new(gzip.finish()?) })
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    // A fixed time makes the archive a function of the binary.
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The name containerd keeps an image under: the default registry and its `library` written out.
fn canonical(reference: &str) -> String {
    if reference.contains('/') { reference.to_owned() } else { format!("docker.io/library/{reference}") }
}

fn archive(layer: &Layer, image: &Image) -> anyhow::Result<Vec<u8>> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = Blob::new(serde_json::to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{BINARY}")],
            "Cmd": [image.applet],
            "Env": ["PATH=/bin:/"],
            "WorkingDir": "/",
            "ExposedPorts": {"8080/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created_by": "coracle"}],
    }))?);
    let manifest = Blob::new(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.compressed.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    }))?);
    let manifests: Vec<Value> = image
        .references
        .iter()
        .map(|reference| {
            let mut descriptor = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
            descriptor["annotations"] = json!({
                "io.containerd.image.name": canonical(reference),
                "org.opencontainers.image.ref.name": reference.rsplit(':').next(),
            });
            descriptor
        })
        .collect();
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests}))?;

    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: String, content: &[u8]| {
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, content.len()), name, content)
    };
    add("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    for blob in [&config, &layer.compressed, &manifest] {
        add(format!("blobs/{}", blob.digest.replace(':', "/")), &blob.content)?;
    }
    add("index.json".into(), &index)?;
    Ok(tar.into_inner()?)
}

/// Checks that a file looks like an image archive before any node is asked to load it.
///
/// # Errors
/// Unreadable, or neither a docker nor an OCI archive, plain or gzipped.
pub fn check_archive(path: &Path) -> anyhow::Result<()> {
    let open = || File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let mut magic = [0; 2];
    let gzipped = open()?.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    let reader: Box<dyn Read> =
        if gzipped { Box::new(flate2::read::GzDecoder::new(open()?)) } else { Box::new(open()?) };
    let mut names = Vec::new();
    for entry in tar::Archive::new(reader)
        .entries()
        .with_context(|| format!("{} is no tar archive", path.display()))?
    {
        let entry = entry.with_context(|| format!("{} is damaged or truncated", path.display()))?;
        names.push(entry.path().map(|p| p.display().to_string()).unwrap_or_default());
    }
    if names.iter().any(|name| matches!(name.trim_start_matches("./"), "index.json" | "manifest.json")) {
        return Ok(());
    }
    bail!(
        "{} is no image archive: it has neither index.json (OCI) nor manifest.json (docker save)",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_a_complete_oci_layout() {
        let layer = layer(b"binary").expect("layer");
        let bytes = archive(&layer, &BUILT_IN[0]).expect("archive");
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().expect("tar") {
            let mut entry = entry.expect("entry");
            let name = entry.path().expect("name").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(name, content);
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("index");
        for descriptor in index["manifests"].as_array().expect("manifests") {
            let blob = |d: &Value| {
                &files[&format!("blobs/{}", d["digest"].as_str().expect("digest").replace(':', "/"))]
            };
            let manifest: Value = serde_json::from_slice(blob(descriptor)).expect("manifest");
            assert_eq!(manifest["config"]["size"], blob(&manifest["config"]).len());
            assert_eq!(manifest["layers"][0]["size"], blob(&manifest["layers"][0]).len());
        }
        let names: Vec<_> = index["manifests"]
            .as_array()
            .expect("list")
            .iter()
            .map(|m| m["annotations"]["io.containerd.image.name"].clone())
            .collect();
        assert_eq!(names, ["docker.io/library/demo:v1", "docker.io/library/demo:v2"]);
    }

    #[test]
    fn archives_that_are_none_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x.tar");
        std::fs::write(&path, b"not a tar archive at all").expect("write");
        assert!(check_archive(&path).is_err());
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, 1), "readme", &b"x"[..]).expect("append");
        std::fs::write(&path, tar.into_inner().expect("tar")).expect("write");
        assert!(check_archive(&path).expect_err("no image").to_string().contains("neither index.json"));
        let layer = layer(b"binary").expect("layer");
        let archive = archive(&layer, &BUILT_IN[1]).expect("archive");
        std::fs::write(&path, &archive).expect("write");
        check_archive(&path).expect("an OCI archive");
        std::fs::write(&path, &archive[..archive.len() / 2]).expect("write");
        assert!(check_archive(&path).is_err(), "a truncated archive was accepted");
    }

    #[test]
    fn own_test_binary_is_seen_as_dynamic() {
        let own = std::fs::read(std::env::current_exe().expect("path")).expect("read");
        assert!(is_dynamic(&own));
    }
}
