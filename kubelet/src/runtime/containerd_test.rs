//! A pod through a real containerd: an image made from the demo server, a sandbox, a container, its log, a command in
//! it, its end. Needs root and Debian's containerd and runc; says so and does nothing where they are not.
//!
//! Everything is below one temporary directory and in a network namespace of its own, and is gone afterwards.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata,
};
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::observed::RunState;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::cri::CriRuntime;
use super::observe::observe;
use super::{ANNOTATION_RESTART_COUNT, LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_UID, Runtime};
use crate::cgroups::Cgroups;

const DEADLINE: Duration = Duration::from_secs(30);

fn tools_are_there() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let have = |tool: &str| {
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if root && have("containerd") && have("runc") && have("unshare") {
        return true;
    }
    eprintln!("skipped: needs root, containerd, runc and unshare");
    false
}

/// containerd in its own network namespace; ends with all that it started.
struct Containerd {
    child: Child,
    directory: PathBuf,
}

impl Containerd {
    fn start(directory: &Path) -> Self {
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n[grpc]\n  address = \"{0}/c.sock\"\n[ttrpc]\n  address = \"{0}/t.sock\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{0}/opt\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause:v1\"\n  restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    conf_dir = \"{0}/cni\"\n",
            directory.display()
        );
        let config = directory.join("config.toml");
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(directory.join("containerd.log")).unwrap();
        let child = Command::new("unshare")
            .args(["--net", "--kill-child", "--fork", "containerd", "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, directory: directory.to_owned() }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let own = self.directory.to_string_lossy().into_owned();
        // Shims carry the socket's path on their command line; what they run goes with them.
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&own)
                && pid != i32::try_from(std::process::id()).unwrap()
            {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
        }
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for path in table.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if path.starts_with(&own) {
                let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}

/// The demo server as one static file, compiled here: it needs nothing but the standard library.
fn demo_binary(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/src/main.rs");
    let target = directory.join("coracle-demo");
    let status = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=1", "-o"])
        .arg(&target)
        .arg(&source)
        .status()
        .unwrap();
    assert!(status.success(), "the demo server does not compile");
    target
}

/// An OCI archive with the images `demo:v1` and `pause:v1` out of one binary.
fn archive(binary: &Path, target: &Path) {
    fn add(archive: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8], mode: u32) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_cksum();
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "coracle-demo", &std::fs::read(binary).unwrap(), 0o755);
    let layer = layer.into_inner().unwrap();
    let mut out = tar::Builder::new(std::fs::File::create(target).unwrap());
    let mut blob = |bytes: &[u8], kind: &str| {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        add(&mut out, &format!("blobs/sha256/{digest}"), bytes, 0o644);
        json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let layer = blob(&layer, "application/vnd.oci.image.layer.v1.tar");
    let mut manifests = Vec::new();
    for (name, command) in [("docker.io/library/demo:v1", "serve"), ("docker.io/library/pause:v1", "pause")] {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": {"Entrypoint": ["/coracle-demo"], "Cmd": [command]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
        let mut entry = blob(manifest.to_string().as_bytes(), kind);
        entry["annotations"] = json!({"io.containerd.image.name": name});
        manifests.push(entry);
    }
    add(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    add(&mut out, "index.json", index.to_string().as_bytes(), 0o644);
    out.into_inner().unwrap().flush().unwrap();
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_and_ends_in_containerd_and_leaves_nothing() {
    if !tools_are_there() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let directory = root.path();
    let containerd = Containerd::start(directory);
    let tar = directory.join("images.tar");
    archive(&demo_binary(directory), &tar);
    let runtime = CriRuntime::new(&format!("unix://{}/c.sock", directory.display())).unwrap();
    let runtime: &dyn Runtime = &runtime;
    until("containerd answers", || async { runtime.version().await.ok() }).await;
    assert!(runtime.events().await.is_ok(), "events are served or known not to be");
    let imported = Command::new("ctr")
        .arg("-a")
        .arg(directory.join("c.sock"))
        .args(["-n", "k8s.io", "images", "import"])
        .arg(&tar)
        .output()
        .unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let image = until("the image is known", || async { runtime.image("demo:v1").await.ok().flatten() }).await;

    let uid = format!("kubelet-test-{}", std::process::id());
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": uid},
        "spec": {"containers": [{"name": "web", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]}}))
    .unwrap();
    let cgroups = Cgroups::detect(&format!("/{uid}")).unwrap();
    cgroups.create(&pod, None).unwrap();
    let namespaces = NamespaceOption {
        network: NamespaceMode::Node as i32,
        pid: NamespaceMode::Container as i32,
        ..NamespaceOption::default()
    };
    let labels = HashMap::from([
        (LABEL_POD_NAME.to_owned(), "p".to_owned()),
        (LABEL_POD_UID.to_owned(), uid.clone()),
        (LABEL_CONTAINER_NAME.to_owned(), "web".to_owned()),
    ]);
    let sandbox_config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "p".into(),
            uid: uid.clone(),
            namespace: "n".into(),
            attempt: 0,
        }),
        log_directory: directory.join("logs").to_string_lossy().into_owned(),
        labels: labels.clone(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroups.pod_path(&pod),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces.clone()),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    };
    let sandbox = runtime.run_sandbox(sandbox_config.clone(), "").await.unwrap();
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "web".into(), attempt: 3 }),
        image: Some(ImageSpec { image: image.id.clone(), ..ImageSpec::default() }),
        labels,
        annotations: HashMap::from([(ANNOTATION_RESTART_COUNT.to_owned(), "3".to_owned())]),
        log_path: "web.log".into(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces),
                ..LinuxContainerSecurityContext::default()
            }),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    };
    std::fs::create_dir_all(directory.join("logs")).unwrap();
    let id = runtime.create_container(&sandbox, config, sandbox_config).await.unwrap();
    runtime.start_container(&id).await.unwrap();

    let seen = observe(runtime, &uid).await.unwrap();
    assert!(seen.ready_sandbox().is_some());
    let web = seen.newest("web").unwrap();
    assert_eq!(
        (web.state, web.restart_count, web.image.as_str()),
        (RunState::Running, 3, "docker.io/library/demo:v1")
    );
    let log = until("the server has logged", || async {
        std::fs::read_to_string(directory.join("logs/web.log")).ok().filter(|text| text.contains("listening"))
    })
    .await;
    assert!(kubelet_core::container_log::parse(log.lines().next().unwrap().as_bytes()).is_some(), "{log}");
    let command = ["/coracle-demo", "sh", "-c", "echo out; exit 4"].map(str::to_owned).to_vec();
    let outcome = runtime.exec_sync(&id, command, Duration::from_secs(5)).await.unwrap();
    assert_eq!((outcome.exit_code, outcome.stdout.as_slice()), (4, &b"out\n"[..]));
    assert!(cgroups.usage(&format!("{}/{id}", cgroups.pod_path(&pod))).is_some(), "usage can be read");

    let started = Instant::now();
    runtime.stop_container(&id, Duration::from_secs(10)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "SIGTERM was enough");
    let ended = observe(runtime, &uid).await.unwrap();
    let web = ended.newest("web").unwrap();
    assert_eq!((web.state, web.exit_code), (RunState::Exited, 0));
    runtime.stop_sandbox(&sandbox).await.unwrap();
    runtime.remove_sandbox(&sandbox).await.unwrap();
    assert_eq!(observe(runtime, &uid).await.unwrap().containers, []);
    cgroups.remove(&uid).unwrap();
    assert!(!cgroups.pod_uids().contains(&uid));
    cgroups.remove_root().unwrap();
    drop(containerd);
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!table.contains(&*directory.to_string_lossy()), "no mount is left");
}
