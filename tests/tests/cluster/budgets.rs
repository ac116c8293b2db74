//! Budgets of namespaces and of disruptions on hollow nodes: what their controllers count, and what is refused because of it.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

fn shows(cluster: &Cluster, what: &str, path: &str, expected: &str) {
    wait_for(&format!("{what} shows {expected} at {path}"), PATIENCE, || {
        let found = cluster.kubectl(&format!("get {what} -o jsonpath={path}")).result()?;
        if found == expected { Ok(()) } else { Err(found) }
    });
}

#[test]
fn a_disruption_budget_follows_its_pods_and_holds_evictions_back() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "2"]);
    cluster.kubectl("create deployment web --image=anything:v1 --replicas=3").ok();
    cluster.kubectl("create poddisruptionbudget web --selector=app=web --max-unavailable=1").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    let numbers = "{.status.expectedPods}/{.status.desiredHealthy}/{.status.currentHealthy}/{.status.disruptionsAllowed}";
    shows(&cluster, "pdb/web", numbers, "3/2/3/1");
    shows(&cluster, "pdb/web", "{.status.conditions[0].reason}", "SufficientPods");
    // Draining both nodes at once cannot take two pods at a time, and goes through in the end.
    cluster.kubectl("scale deployment web --replicas=1").ok();
    shows(&cluster, "pdb/web", numbers, "1/0/1/1");
    cluster.kubectl("patch pdb web --type=merge -p {\"spec\":{\"maxUnavailable\":0}}").ok();
    shows(&cluster, "pdb/web", numbers, "1/1/1/0");
    shows(&cluster, "pdb/web", "{.status.conditions[0].reason}", "InsufficientPods");
    let node = cluster.kubectl("get pods -l app=web -o jsonpath={.items[0].spec.nodeName}").ok();
    let drain = format!("drain {node} --ignore-daemonsets --delete-emptydir-data --force --timeout=3s");
    let refused = cluster.kubectl(&drain).err();
    assert!(
        refused.contains("Cannot evict pod as it would violate the pod's disruption budget"),
        "{refused}"
    );
    cluster.kubectl("patch pdb web --type=merge -p {\"spec\":{\"maxUnavailable\":1}}").ok();
    cluster.kubectl(&drain.replace("3s", "60s")).ok();
    shows(&cluster, "pdb/web", numbers, "1/0/1/1");
}

#[test]
fn a_quota_counts_what_there_is_and_is_never_exceeded() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    cluster.kubectl("create namespace small").ok();
    cluster.kubectl("-n small create configmap before").ok();
    cluster
        .kubectl("-n small create quota all --hard=pods=3,configmaps=4,count/deployments.apps=1,services=1")
        .ok();
    let used = |what: &str, expected: &str| {
        shows(&cluster, "-n small quota/all", &format!("{{.status.used.{what}}}"), expected);
    };
    used("pods", "0");
    // The root certificate's and the one from before.
    used("configmaps", "2");
    shows(&cluster, "-n small quota/all", "{.status.hard.pods}", "3");
    cluster.kubectl("-n small create deployment web --image=anything:v1 --replicas=6").ok();
    used("pods", "3");
    used("count/deployments\\.apps", "1");
    let second = cluster.kubectl("-n small create deployment other --image=anything:v1").err();
    assert!(second.contains("exceeded quota: all, requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1"), "{second}");
    // Many at once take what there is room for, and no more.
    let creates: Vec<_> = (0..8)
        .map(|index| {
            let mut command = cluster.kubectl_command();
            command.args(["-n", "small", "create", "configmap", &format!("c{index}")]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            command.spawn().expect("kubectl")
        })
        .collect();
    let made =
        creates.into_iter().filter_map(|mut child| child.wait().ok()).filter(|status| status.success());
    assert_eq!(made.count(), 2);
    used("configmaps", "4");
    cluster.kubectl("-n small delete configmap before").ok();
    used("configmaps", "3");
    cluster.kubectl("-n small delete deployment web").ok();
    used("pods", "0");
    used("count/deployments\\.apps", "0");
}
