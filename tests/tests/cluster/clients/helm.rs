//! helm: the life of a release whose chart (`clients/boat`) has a definition with a custom resource, hooks that are Jobs, and a
//! test that is a Pod.

use std::path::Path;
use std::process::Command;

use coracle_tests::cluster::Cluster;
use coracle_tests::tools::{Ran, client, run};
use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/boat");

/// A namespace, with the folder that the hooks of its release write into.
struct Release<'c> {
    cluster: &'c Cluster,
    namespace: &'static str,
    journal: String,
}

impl<'c> Release<'c> {
    fn new(cluster: &'c Cluster, namespace: &'static str) -> Self {
        let journal = cluster.data().join(format!("hooks-{namespace}"));
        std::fs::create_dir(&journal).expect("a folder for the hooks");
        Self { cluster, namespace, journal: journal.to_str().expect("path").to_owned() }
    }

    fn helm(&self, line: &str) -> Ran {
        let mut command = Command::new(client("helm"));
        command.args(line.split_whitespace()).args(["--namespace", self.namespace]);
        run(command
            .env("KUBECONFIG", self.cluster.data().join("kubeconfig"))
            .env("HOME", self.cluster.data()))
    }

    /// `install`, `upgrade` and `rollback` wait for their objects; the first two take values as well.
    fn change(&self, line: &str, values: &str) -> Ran {
        let values = match line.starts_with("rollback") {
            true => String::new(),
            false => format!("{CHART} --set journal={}{values}", self.journal),
        };
        let wait = if line.contains("--wait") { "" } else { "--wait" };
        self.helm(&format!("{line} {values} {wait} --timeout 90s"))
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.helm(&format!("{line} -o json")).ok()).expect("JSON")
    }

    fn kubectl(&self, line: &str) -> Ran {
        self.cluster.kubectl(&format!("{line} --namespace {}", self.namespace))
    }

    fn color(&self) -> String {
        self.kubectl("get configmap boat-settings -o jsonpath={.data.color}").ok()
    }

    fn hooks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(Path::new(&self.journal).join("hooks")).expect("the hooks' lines");
        text.lines().map(str::to_owned).collect()
    }
}

/// A release is installed, tested, upgraded, kept from a conflict and from a failing hook, rolled back and removed.
pub fn a_release_lives(cluster: &Cluster) {
    let release = Release::new(cluster, "helm");
    installed(&release);
    tested(&release);
    upgraded(&release);
    refused(&release);
    rolled_back(&release);
    uninstalled(&release);
    applied_by_the_client(&Release::new(cluster, "helm-client-side"));
}

fn installed(release: &Release) {
    let said = release.change("install boat --create-namespace", "").ok();
    assert!(said.contains("STATUS: deployed") && said.contains("The red boat swims."), "{said}");
    // By weight before the objects, then what comes after.
    let wanted =
        ["pre-install first revision 1", "pre-install second revision 1", "post-install after revision 1"];
    assert_eq!(release.hooks(), wanted);
    // Those to be deleted when they succeed are gone.
    assert_eq!(release.kubectl("get jobs -o name").ok().trim(), "job.batch/boat-after");
    assert_eq!(release.color(), "red");
    let settings =
        release.kubectl("get configmap boat-settings -o jsonpath={.data.namespace}/{.data.anchors}");
    assert_eq!(settings.ok(), "default/true", "what the templates were told by the server");
    let anchor = release.kubectl("get anchors boat -o jsonpath={.spec.kilograms}/{.spec.chain}").ok();
    assert_eq!(anchor, "12/steel");
    let ready = release.kubectl("get deployment boat -o jsonpath={.status.readyReplicas}").ok();
    assert_eq!(ready, "1", "helm waited");
    let again = release.change("install boat", "").err();
    assert!(again.contains("cannot reuse a name that is still in use"), "{again}");

    let status = release.json("status boat");
    assert_eq!(status["info"]["status"], "deployed");
    let ended = |hook: &Value| hook["last_run"]["phase"] == "Succeeded";
    let hooks = status["hooks"].as_array().expect("hooks");
    assert_eq!(hooks.iter().filter(|hook| ended(hook)).count(), 3, "{hooks:?}");
    let text = release.helm("status boat").ok();
    for expected in ["==> v1/Anchor", "==> v1/Deployment", "==> v1/Pod(related)", "boat   12"] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
}

fn tested(release: &Release) {
    let said = release.helm("test boat --logs --timeout 90s").ok();
    let phase = said.lines().find(|line| line.starts_with("Phase:")).unwrap_or_default();
    assert!(phase.ends_with("Succeeded"), "{said}");
    // The test's own line, and what the Service answered.
    assert!(said.contains("asking the red boat\nHostname: boat-"), "{said}");
}

fn upgraded(release: &Release) {
    let said = release.change("upgrade boat", ",color=blue,replicas=2").ok();
    assert!(said.contains("REVISION: 2"), "{said}");
    assert_eq!(release.color(), "blue");
    assert_eq!(release.hooks().last().map(String::as_str), Some("pre-upgrade change revision 2"));
    let deployment = "get deployment boat -o jsonpath={.status.updatedReplicas}/{.status.availableReplicas}";
    assert_eq!(release.kubectl(deployment).ok(), "2/2");
    assert_eq!(release.json("get values boat")["color"], "blue");
    assert_eq!(release.json("get values boat --revision 1").get("color"), None);
    assert!(release.helm("get manifest boat").ok().contains("\n  color: blue\n"));
    assert!(release.helm("get hooks boat").ok().contains("helm.sh/hook: post-delete"));
    assert!(release.helm("get notes boat").ok().contains("The blue boat swims."));
    assert_eq!(release.json("get metadata boat")["applyMethod"], "ssa");
}

/// What fails leaves the release as it was, or puts it back.
fn refused(release: &Release) {
    release.kubectl("scale deployment boat --replicas=3").ok();
    let conflict = release.change("upgrade boat --no-hooks", ",color=blue,replicas=1").err();
    let expected = "Apply failed with 1 conflict: conflict with \"kubectl-1.35\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert!(conflict.contains(expected), "{conflict}");
    release.change("upgrade boat --no-hooks --force-conflicts", ",color=blue,replicas=1").ok();
    let replicas = "get deployment boat -o jsonpath={.spec.replicas}";
    assert_eq!(release.kubectl(replicas).ok(), "1");

    let invalid = release.change("upgrade boat --no-hooks", ",kilograms=0").err();
    let expected =
        "spec.kilograms: Invalid value: 0: spec.kilograms in body should be greater than or equal to 1";
    assert!(invalid.contains(expected), "{invalid}");

    let failed =
        release.change("upgrade boat --rollback-on-failure", ",color=green,failing=pre-upgrade").err();
    assert!(failed.contains("pre-upgrade hooks failed: resource Job/helm/boat-change not ready"), "{failed}");
    assert!(failed.contains("has been rolled back"), "{failed}");
    assert_eq!(release.color(), "blue");
    let history = release.json("history boat");
    let last: Vec<_> = history.as_array().expect("revisions").iter().rev().take(2).collect();
    assert_eq!((&last[0]["status"], &last[1]["status"]), (&json!("deployed"), &json!("failed")), "{history}");
}

fn rolled_back(release: &Release) {
    release.change("rollback boat 1", "").ok();
    assert_eq!(release.color(), "red");
    assert_eq!(release.hooks().last().map(String::as_str), Some("post-rollback back revision 1"));
    let history = release.json("history boat");
    let last = history.as_array().and_then(|revisions| revisions.last()).expect("revisions");
    assert_eq!((&last["status"], &last["description"]), (&json!("deployed"), &json!("Rollback to 1")));
    let listed = release.json("list");
    assert_eq!((&listed[0]["name"], &listed[0]["chart"]), (&json!("boat"), &json!("boat-0.1.0")));
}

fn uninstalled(release: &Release) {
    let said = release.helm("uninstall boat --wait --timeout 90s").ok();
    assert!(said.contains("[Secret] boat-kept") && said.contains("release \"boat\" uninstalled"), "{said}");
    assert_eq!(release.hooks().last().map(String::as_str), Some("post-delete end revision 1"));
    let left =
        release.kubectl("get deployments,services,configmaps,anchors,secrets,pods -l app!=none -o name").ok();
    let left: Vec<&str> = left.split_whitespace().collect();
    // The hooks that nothing deletes, what is to be kept, and what every namespace has.
    let own = |name: &&&str| name.starts_with("pod/boat-after-");
    assert_eq!(left.iter().filter(own).count(), 1, "{left:?}");
    let others: Vec<_> = left.iter().filter(|name| !own(name)).copied().collect();
    assert_eq!(others, ["configmap/kube-root-ca.crt", "secret/boat-kept", "pod/boat-test"]);
    assert_eq!(release.json("list"), json!([]));
    assert!(release.helm("status boat").err().contains("release: not found"));
    // Definitions stay, as helm has it.
    release.cluster.kubectl("get crd anchors.boats.example.com").ok();
}

/// As helm 3 did it: three-way merges by the client, and waiting by polling. A later upgrade goes over to apply.
fn applied_by_the_client(release: &Release) {
    let install = "upgrade --install boat --create-namespace --no-hooks";
    release.change(&format!("{install} --server-side=false --wait=legacy"), "").ok();
    release.change("upgrade boat --no-hooks --server-side=false --wait=legacy", ",color=blue").ok();
    assert_eq!(release.color(), "blue");
    release.change("upgrade boat --no-hooks --server-side=true --force-conflicts", ",color=green").ok();
    assert_eq!(release.color(), "green");
    release.helm("uninstall boat --no-hooks --wait --timeout 90s").ok();
}
