//! What extenders say decides as upstream has it: also when they fail, are not asked, or know nothing.

use serde_json::json;

use super::*;
use crate::pod_info::PodToSchedule;
use crate::profile::Profile;
use crate::schedule::{Decision, Relief, Turn, schedule};
use crate::snapshot::Snapshot;
use crate::testing::{node, pod_from};

/// One whose answers are written down; what is not makes it fail.
#[derive(Default)]
struct Scripted {
    ignorable: bool,
    stranger: bool,
    passed: Option<Passed>,
    scores: Option<Vec<(String, i64)>>,
    going: Option<BTreeMap<String, Going>>,
}

impl Extender for Scripted {
    fn name(&self) -> &str {
        "http://outside"
    }
    fn is_ignorable(&self) -> bool {
        self.ignorable
    }
    fn is_interested(&self, _: &PodInfo) -> bool {
        !self.stranger
    }
    fn filter(&self, _: &PodInfo, nodes: &[&NodeInfo]) -> Result<Passed, String> {
        assert!(!nodes.is_empty(), "nobody is asked about nothing");
        self.passed.clone().ok_or_else(|| "no answer".to_owned())
    }
    fn prioritize(&self, _: &PodInfo, _: &[&NodeInfo]) -> Result<Vec<(String, i64)>, String> {
        self.scores.clone().ok_or_else(|| "no answer".to_owned())
    }
    fn judges_preemption(&self) -> bool {
        self.going.is_some()
    }
    fn preempt(&self, _: &PodInfo, _: &[Victims<'_>]) -> Result<BTreeMap<String, Going>, String> {
        self.going.clone().ok_or_else(|| "no answer".to_owned())
    }
}

fn these(names: &[&str]) -> Passed {
    Passed { nodes: names.iter().map(|name| (*name).to_owned()).collect(), ..Passed::default() }
}

/// Three nodes of four cores, each with a pod of three that may be preempted.
fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c"] {
        snapshot.set_node(node(name, "4", name));
        let low = json!({"metadata": {"name": format!("low-{name}")}, "spec": {"priority": 1, "containers":
            [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}});
        snapshot.place(Arc::new(PodInfo::new(pod_from(low))), name);
    }
    snapshot
}

fn decide(cpu: &str, extenders: Vec<Scripted>) -> Decision {
    let mut profile = Profile::new("default-scheduler");
    profile.extenders = extenders.into_iter().map(|one| Arc::new(one) as Arc<dyn Extender>).collect();
    let pod = json!({"spec": {"priority": 9, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    schedule(&profile, &PodToSchedule::new(pod_from(pod)), &cluster(), Turn::default())
}

fn node_of(decision: Decision) -> String {
    match decision {
        Decision::Assigned(assignment) => assignment.node.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_nodes_that_pass_are_chosen_and_the_others_have_their_reasons() {
    let only_b = Scripted { passed: Some(these(&["b"])), ..Scripted::default() };
    assert_eq!(node_of(decide("1", vec![only_b])), "b");
    let none = Passed {
        failed: [("a".to_owned(), "no device".to_owned()), ("b".to_owned(), "no device".to_owned())].into(),
        // Takes precedence over having passed.
        nodes: ["c".to_owned()].into(),
        unresolvable: [("c".to_owned(), "broken device".to_owned())].into(),
    };
    let Decision::Unschedulable(error, _) =
        decide("1", vec![Scripted { passed: Some(none), ..Scripted::default() }])
    else {
        panic!("scheduled");
    };
    let text = error.to_string();
    assert!(text.starts_with("0/3 nodes are available: 1 broken device, 2 no device."), "{text}");
    assert_eq!(error.plugins, BTreeSet::from([NAME]));
}

#[test]
fn one_that_fails_stops_the_decision_unless_it_may_be_ignored_or_is_not_asked() {
    let failing = |ignorable, stranger| Scripted { ignorable, stranger, ..Scripted::default() };
    assert!(
        matches!(decide("1", vec![failing(false, false)]), Decision::Failed(error) if error == "no answer")
    );
    for quiet in [failing(true, false), failing(false, true)] {
        let only_c = Scripted { passed: Some(these(&["c"])), ..Scripted::default() };
        assert_eq!(node_of(decide("1", vec![quiet, only_c])), "c");
    }
}

#[test]
fn scores_are_brought_to_the_range_of_the_plugins() {
    let all = || Some(these(&["a", "b", "c"]));
    for best in ["a", "b", "c"] {
        let scores = Some(vec![(best.to_owned(), 10), ("unknown".to_owned(), 1_000)]);
        let chosen = decide("1", vec![Scripted { passed: all(), scores, ..Scripted::default() }]);
        assert_eq!(node_of(chosen), best);
    }
}

#[test]
fn room_is_made_only_where_they_agree() {
    let going =
        |uid: &str| Some([("b".to_owned(), Going { uids: vec![uid.to_owned()], violations: 0 })].into());
    let judge = |going, ignorable| Scripted { going, ignorable, ..Scripted::default() };
    let Decision::Unschedulable(_, Relief::Preempt(preemption)) =
        decide("2", vec![judge(going("uid-low-b"), false)])
    else {
        panic!("no preemption");
    };
    assert_eq!((&*preemption.node, &*preemption.victims[0].uid), ("b", "uid-low-b"));
    let Decision::Unschedulable(error, Relief::None) = decide("2", vec![judge(going("uid-low-a"), false)])
    else {
        panic!("a pod of another node went");
    };
    assert!(error.to_string().contains("claims to preempt pod (UID: uid-low-a) on node: b"), "{error}");
    let ignored = decide("2", vec![judge(going("uid-low-a"), true)]);
    assert!(matches!(ignored, Decision::Unschedulable(_, Relief::Preempt(_))), "{ignored:?}");
}
