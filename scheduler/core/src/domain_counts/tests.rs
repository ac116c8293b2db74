//! What is kept up to date step by step is what a count from scratch gives, after any changes in any order.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::pod_info::{PodInfo, PodToSchedule};
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use crate::testing::{node_from, pod_from};
use crate::why::explain;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const NODES: usize = 5;
const PODS: usize = 8;

/// Something that happens to the cluster, or a question that is asked from then on.
#[derive(Clone, Debug)]
enum Step {
    Node { name: usize, zone: usize, rack: usize, tainted: bool },
    NodeGone(usize),
    Pod { name: usize, node: usize, app: usize, namespace: usize, going: bool, affinity: usize },
    PodGone(usize),
    Namespace { name: usize, team: usize },
    NamespaceGone(usize),
    Ask(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..NODES, 0..4usize, 0..3usize, any::<bool>())
            .prop_map(|(name, zone, rack, tainted)| Step::Node { name, zone, rack, tainted }),
        1 => (0..NODES).prop_map(Step::NodeGone),
        6 => (0..PODS, 0..=NODES, 0..2usize, 0..2usize, any::<bool>(), 0..5usize).prop_map(
            |(name, node, app, namespace, going, affinity)| Step::Pod { name, node, app, namespace, going, affinity }
        ),
        2 => (0..PODS).prop_map(Step::PodGone),
        1 => (0..2usize, 0..2usize).prop_map(|(name, team)| Step::Namespace { name, team }),
        1 => (0..2usize).prop_map(Step::NamespaceGone),
        3 => (0..questions().len()).prop_map(Step::Ask),
    ]
}

const NAMESPACES: [&str; 2] = ["default", "other"];
const APPS: [&str; 2] = ["web", "db"];

fn node(name: usize, zone: usize, rack: usize, tainted: bool) -> Arc<Node> {
    let mut labels = json!({});
    // Not every node has every label; two nodes may say they are the same host.
    if zone > 0 {
        labels[ZONE] = json!(format!("zone-{zone}"));
    }
    if rack > 0 {
        labels["rack"] = json!(format!("rack-{rack}"));
    }
    if rack == 1 {
        labels[HOST] = json!("the-same");
    }
    let taints = if tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
    node_from(&format!("n{name}"), json!({"metadata": {"labels": labels}, "spec": {"taints": taints}}))
}

fn term(app: usize, key: &str, everywhere: bool) -> Value {
    let mut term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": APPS[app]}}});
    if everywhere {
        term["namespaceSelector"] = json!({"matchLabels": {"team": "team-1"}});
    }
    term
}

fn affinity(kind: usize) -> Value {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    match kind {
        1 => json!({"podAntiAffinity": {required: [term(0, HOST, false)]}}),
        2 => {
            json!({"podAffinity": {required: [term(0, ZONE, true)]}, "podAntiAffinity": {required: [term(1, "rack", true)]}})
        }
        3 => json!({"podAffinity": {required: [term(0, ZONE, false), term(0, "rack", false)]}}),
        4 => json!({
            "podAffinity": {preferred: [{"weight": 3, "podAffinityTerm": term(1, ZONE, false)}]},
            "podAntiAffinity": {preferred: [{"weight": 2, "podAffinityTerm": term(0, HOST, true)}]},
        }),
        _ => json!({}),
    }
}

fn pod(name: usize, app: usize, namespace: usize, going: bool, kind: usize) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": format!("p{name}"), "namespace": NAMESPACES[namespace], "labels": {"app": APPS[app]}},
        "spec": {"affinity": affinity(kind)},
    });
    if going {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    pod_from(pod)
}

/// Questions as plugins ask them.
fn questions() -> Vec<Question> {
    let selector = |app: usize| {
        let mut selector = Selector::default();
        selector.require("app", APPS[app]);
        selector
    };
    let spread = |app, namespace: usize, key: &str, rule, by_node| Question {
        selected: Selected::Spread { namespace: NAMESPACES[namespace].to_owned(), selector: selector(app) },
        rule,
        topology_key: key.to_owned(),
        by_node,
    };
    let near = |kind: usize, key: &str| {
        let pod = PodInfo::new(pod(0, 0, 0, false, kind));
        let terms = pod.affinity.as_ref().map(|affinity| affinity.required.clone()).unwrap_or_default();
        Question {
            selected: Selected::Near(terms),
            rule: NodeRule::default(),
            topology_key: key.to_owned(),
            by_node: false,
        }
    };
    let keys = vec![ZONE.to_owned(), "rack".to_owned()];
    let picky = pod_from(json!({"spec": {"nodeSelector": {"rack": "rack-2"}}}));
    let affinity = PodToSchedule::new(picky).required_affinity;
    vec![
        spread(0, 0, ZONE, NodeRule::default(), false),
        spread(0, 0, HOST, NodeRule::default(), true),
        spread(1, 1, HOST, NodeRule::default(), false),
        spread(0, 0, ZONE, NodeRule { keys, ..NodeRule::default() }, false),
        spread(0, 0, ZONE, NodeRule { affinity, ..NodeRule::default() }, false),
        spread(0, 0, "rack", NodeRule { tolerations: Some(Vec::new()), ..NodeRule::default() }, false),
        near(2, ZONE),
        near(3, ZONE),
        near(3, "rack"),
    ]
}

fn selects(snapshot: &Snapshot, question: &Question, pod: &PodInfo) -> bool {
    match &question.selected {
        Selected::Spread { namespace, selector } => {
            pod.namespace() == namespace && !pod.is_terminating() && selector.matches(pod.labels())
        }
        Selected::Near(terms) => terms.iter().all(|term| {
            term.matches(pod.namespace(), snapshot.namespace_labels(pod.namespace()), pod.labels())
        }),
    }
}

/// Pods by label value, or by node.
fn from_scratch(snapshot: &Snapshot, question: &Question) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for node in snapshot.nodes() {
        let Some(value) = node.labels().get(&question.topology_key) else { continue };
        if question.rule.admits(node) {
            let domain = if question.by_node { node.name.to_string() } else { value.clone() };
            let pods = node.pods.iter().filter(|pod| selects(snapshot, question, pod)).count() as i64;
            *counts.entry(domain).or_insert(0) += pods;
        }
    }
    counts
}

fn check(snapshot: &Snapshot, question: &Question) {
    let mut counted = snapshot.count(question.clone());
    let mut expected = from_scratch(snapshot, question);
    assert_eq!(counted.counts().domains(), expected.len(), "domains of {question:?}");
    // As it is, and with pods supposed to come and go.
    for round in 0..3 {
        for node in snapshot.nodes() {
            let domain = counted.domain(node);
            let value = node.labels().get(&question.topology_key);
            assert_eq!(domain.is_some(), value.is_some());
            let (Some(domain), Some(value)) = (domain, value) else { continue };
            let name = if question.by_node { &*node.name } else { value.as_str() };
            let there = expected.get(name).copied();
            assert_eq!(counted.counts().at(domain).is_some(), there.is_some(), "{name} in {question:?}");
            assert_eq!(counted.pods(domain), there.unwrap_or(0), "{name} in {question:?}");
        }
        assert_eq!(counted.total(), expected.values().sum::<i64>(), "all of {question:?}");
        assert_eq!(counted.fewest(), expected.values().copied().min().unwrap_or(0), "least of {question:?}");
        let Some(node) = snapshot.nodes().nth(round) else { break };
        let (Some(domain), Some(value)) = (counted.domain(node), node.labels().get(&question.topology_key))
        else {
            continue;
        };
        let name = if question.by_node { &*node.name } else { value.as_str() };
        if let Some(pods) = expected.get_mut(name) {
            let change = if round == 1 && *pods > 0 { -1 } else { 2 };
            *pods += change;
            counted.suppose(domain, change);
        }
    }
}

/// What each plugin says of each node.
fn opinions(snapshot: &Snapshot, pod: &PodToSchedule) -> BTreeSet<String> {
    let why = explain(&Profile::new("s"), pod, snapshot);
    let told = why.nodes.iter().map(|verdict| {
        let scores: Vec<_> = verdict.scores.iter().map(|score| (score.plugin, score.score)).collect();
        format!("{} {:?} {scores:?}", verdict.node, verdict.objections)
    });
    told.chain(why.before).collect()
}

#[derive(Default)]
struct World {
    nodes: BTreeMap<usize, Arc<Node>>,
    pods: BTreeMap<usize, (Arc<Pod>, usize)>,
    namespaces: BTreeMap<usize, usize>,
}

impl World {
    fn take(&mut self, snapshot: &mut Snapshot, step: &Step) {
        match *step {
            Step::Node { name, zone, rack, tainted } => {
                let node = node(name, zone, rack, tainted);
                snapshot.set_node(Arc::clone(&node));
                self.nodes.insert(name, node);
            }
            Step::NodeGone(name) => {
                snapshot.remove_node(&format!("n{name}"));
                self.nodes.remove(&name);
            }
            Step::Pod { name, node, app, namespace, going, affinity } => {
                let pod = pod(name, app, namespace, going, affinity);
                snapshot.place(Arc::new(PodInfo::new(Arc::clone(&pod))), &format!("n{node}"));
                self.pods.insert(name, (pod, node));
            }
            Step::PodGone(name) => {
                snapshot.remove_pod(&format!("uid-p{name}"));
                self.pods.remove(&name);
            }
            Step::Namespace { name, team } => {
                snapshot.set_namespace(NAMESPACES[name], team_labels(team));
                self.namespaces.insert(name, team);
            }
            Step::NamespaceGone(name) => {
                snapshot.remove_namespace(NAMESPACES[name]);
                self.namespaces.remove(&name);
            }
            Step::Ask(_) => {}
        }
    }

    /// The same cluster as seen by a scheduler that has just started.
    fn afresh(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, team) in &self.namespaces {
            snapshot.set_namespace(NAMESPACES[*name], team_labels(*team));
        }
        for (pod, node) in self.pods.values() {
            snapshot.place(Arc::new(PodInfo::new(Arc::clone(pod))), &format!("n{node}"));
        }
        self.nodes.values().for_each(|node| snapshot.set_node(Arc::clone(node)));
        snapshot
    }
}

fn team_labels(team: usize) -> Labels {
    [("team".to_owned(), format!("team-{team}"))].into()
}

proptest! {
    #[test]
    fn what_is_kept_up_to_date_is_what_a_count_from_scratch_gives(steps in prop::collection::vec(step(), 1..50)) {
        let (mut snapshot, mut world) = (Snapshot::default(), World::default());
        let (questions, mut asked) = (questions(), BTreeSet::new());
        for step in &steps {
            world.take(&mut snapshot, step);
            if let Step::Ask(question) = step {
                asked.insert(*question);
            }
            asked.iter().for_each(|question| check(&snapshot, &questions[*question]));
        }
    }

    #[test]
    fn decisions_are_those_of_a_scheduler_that_has_just_started(
        steps in prop::collection::vec(step(), 1..30), app in 0..2usize, kind in 0..5usize,
    ) {
        let constraint = |key: &str, otherwise: &str, taints: &str| json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": otherwise, "nodeTaintsPolicy": taints,
            "labelSelector": {"matchLabels": {"app": APPS[app]}},
        });
        let subject = PodToSchedule::new(pod_from(json!({
            "metadata": {"name": "subject", "labels": {"app": APPS[app]}},
            "spec": {
                "affinity": affinity(kind),
                "topologySpreadConstraints": [
                    constraint(ZONE, "DoNotSchedule", "Honor"), constraint("rack", "DoNotSchedule", "Ignore"),
                    constraint(ZONE, "ScheduleAnyway", "Honor"), constraint(HOST, "ScheduleAnyway", "Ignore"),
                ],
            },
        })));
        let (mut snapshot, mut world) = (Snapshot::default(), World::default());
        for step in &steps {
            world.take(&mut snapshot, step);
            prop_assert_eq!(opinions(&snapshot, &subject), opinions(&world.afresh(), &subject));
        }
    }
}

#[test]
fn a_question_that_was_not_asked_for_long_is_forgotten_and_counted_anew() {
    let mut snapshot = Snapshot::default();
    snapshot.set_node(node(0, 1, 1, false));
    let first = questions().remove(0);
    check(&snapshot, &first);
    for other in 0..QUESTIONS_MAX + 5 {
        let mut selector = Selector::default();
        selector.require("app", &format!("app-{other}"));
        let selected = Selected::Spread { namespace: "default".to_owned(), selector };
        snapshot.count(Question { selected, topology_key: HOST.to_owned(), ..first.clone() });
    }
    snapshot.place(Arc::new(PodInfo::new(pod(0, 0, 0, false, 0))), "n0");
    check(&snapshot, &first);
    assert_eq!(snapshot.remembered(), QUESTIONS_MAX);
}
