//! The dependency edges between the workspace's crates are those of docs/architecture.md, no others.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Which workspace crates each one may depend on outside its tests.
const ALLOWED: [(&str, &[&str]); 28] = [
    ("coracle-proto", &[]),
    ("coracle-api", &[]),
    ("component-base", &[]),
    ("coracle-client", &["coracle-api"]),
    ("etcd-lite-core", &["coracle-proto", "planted-faults"]),
    ("etcd-lite", &["etcd-lite-core", "coracle-proto", "component-base"]),
    ("apiserver", &["coracle-api", "coracle-proto", "component-base"]),
    ("scheduler-core", &["coracle-api", "planted-faults"]),
    ("scheduler", &["scheduler-core", "coracle-api", "coracle-client", "component-base"]),
    ("controller-manager-core", &["coracle-api", "planted-faults"]),
    ("controller-manager", &["controller-manager-core", "coracle-api", "coracle-client", "component-base"]),
    ("kubelet-core", &["coracle-api"]),
    ("kubelet", &["kubelet-core", "coracle-api", "coracle-client", "component-base"]),
    ("kube-proxy-core", &["coracle-api"]),
    ("kube-proxy", &["kube-proxy-core", "coracle-api", "coracle-client", "component-base"]),
    ("metrics-server", &["coracle-api", "coracle-client", "component-base"]),
    ("coracle", &["component-base", "coracle-api", "scheduler-core"]),
    ("coracle-demo", &[]),
    ("coracle-bench", &["coracle-proto"]),
    ("store-checker", &["coracle-proto"]),
    ("store-clients", &["coracle-proto", "store-checker"]),
    ("store-chaos", &["coracle-bench", "coracle-proto", "store-checker", "store-clients"]),
    ("planted-faults", &[]),
    ("seed-runner", &["planted-faults"]),
    (
        "store-simulation",
        &[
            "etcd-lite",
            "etcd-lite-core",
            "coracle-proto",
            "planted-faults",
            "seed-runner",
            "store-checker",
            "store-clients",
        ],
    ),
    ("history-oracle", &["coracle-api"]),
    (
        "controller-simulation",
        &[
            "controller-manager",
            "controller-manager-core",
            "history-oracle",
            "planted-faults",
            "scheduler-core",
            "seed-runner",
        ],
    ),
    (
        "coracle-tests",
        &[
            "component-base",
            "coracle-api",
            "coracle-client",
            "coracle-proto",
            "etcd-lite-core",
            "history-oracle",
        ],
    ),
];

/// What a pure core must not be able to reach: an async runtime, the network, randomness.
const FORBIDDEN_IN_CORES: [&str; 6] = ["tokio", "kube", "hyper", "tonic", "rand", "nix"];

fn metadata() -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn direct_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let dependencies = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        all.iter()
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().expect("name").to_owned())
            .collect()
    };
    packages.iter().map(|p| (p["name"].as_str().expect("name").to_owned(), dependencies(p))).collect()
}

#[test]
fn crates_depend_only_on_what_the_house_plan_allows() {
    let dependencies = direct_dependencies();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let names: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        allowed.keys().copied().collect(),
        "a crate is missing here or gone from the workspace"
    );
    for (name, of) in &dependencies {
        for dependency in of.iter().filter(|d| names.contains(d.as_str())) {
            assert!(
                allowed[name.as_str()].contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn cores_cannot_reach_the_outside_world() {
    let cores = direct_dependencies()
        .into_iter()
        .filter(|(name, _)| name.ends_with("-core") || name == "coracle-api");
    let mut checked = 0;
    for (core, dependencies) in cores {
        checked += 1;
        for forbidden in FORBIDDEN_IN_CORES {
            assert!(!dependencies.contains(forbidden), "{core} must stay pure but depends on {forbidden}");
        }
    }
    assert_eq!(
        checked, 6,
        "etcd-lite, scheduler, controller-manager, kubelet, kube-proxy and the vocabulary"
    );
}
