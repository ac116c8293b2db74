//! What a profile of the file tells its plugins (`pluginConfig`). Owns the form of each plugin's arguments and upstream's rules for what
//! they may be.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::NodeAffinity as NodeAffinityTerms;
use scheduler_core::node_selector::{RequiredNodeAffinity, Term};
use scheduler_core::plugins::inter_pod_affinity::InterPodAffinity;
use scheduler_core::plugins::node_affinity::NodeAffinity;
use scheduler_core::plugins::node_resources_balanced_allocation::NodeResourcesBalancedAllocation;
use scheduler_core::plugins::node_resources_fit::NodeResourcesFit;
use scheduler_core::plugins::pod_topology_spread::{DefaultConstraint, PodTopologySpread};
use scheduler_core::plugins::registry::Arguments;
use scheduler_core::plugins::scoring_strategy::{CurvePoint, ScoringStrategy, StrategyKind};
use scheduler_core::preemption::DefaultPreemption;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The highest score in a file; ours go ten times as high.
const SCORE_MAX: i64 = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FitFile {
    ignored_resources: BTreeSet<String>,
    ignored_resource_groups: BTreeSet<String>,
    scoring_strategy: StrategyFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StrategyFile {
    r#type: Option<String>,
    resources: Vec<ResourceFile>,
    requested_to_capacity_ratio: Option<CurveFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceFile {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CurveFile {
    shape: Vec<PointFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PointFile {
    utilization: i64,
    score: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct BalancedFile {
    resources: Vec<ResourceFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NodeAffinityFile {
    added_affinity: Option<NodeAffinityTerms>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SpreadFile {
    default_constraints: Vec<ConstraintFile>,
    defaulting_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConstraintFile {
    max_skew: i64,
    topology_key: String,
    when_unsatisfiable: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct InterPodAffinityFile {
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PreemptionFile {
    min_candidate_nodes_percentage: Option<usize>,
    min_candidate_nodes_absolute: Option<usize>,
}

/// Reads the arguments of all plugins.
///
/// # Errors
/// A plugin takes no arguments, has them twice, or cannot take these.
pub(super) fn read(configs: &[PluginConfig]) -> anyhow::Result<Arguments> {
    let mut arguments = Arguments::default();
    let mut seen = BTreeSet::new();
    for config in configs {
        let name = config.name.as_str();
        if !seen.insert(name) {
            bail!("pluginConfig: repeated config for plugin {name}");
        }
        read_one(name, &config.args, &mut arguments).with_context(|| format!("pluginConfig: {name}"))?;
    }
    Ok(arguments)
}

fn read_one(name: &str, args: &Value, arguments: &mut Arguments) -> anyhow::Result<()> {
    match name {
        "NodeResourcesFit" => arguments.fit = fit(typed(name, args)?)?,
        "NodeResourcesBalancedAllocation" => arguments.balanced = balanced(typed(name, args)?)?,
        "NodeAffinity" => arguments.node_affinity = node_affinity(typed(name, args)?)?,
        "PodTopologySpread" => arguments.spread = spread(typed(name, args)?)?,
        "InterPodAffinity" => arguments.inter_pod_affinity = inter_pod_affinity(typed(name, args)?)?,
        "DefaultPreemption" => arguments.preemption = preemption(typed(name, args)?)?,
        _ => bail!("there is no such plugin, or it takes no arguments"),
    }
    Ok(())
}

/// The arguments in their form, which may name itself.
fn typed<T: DeserializeOwned + Default>(name: &str, args: &Value) -> anyhow::Result<T> {
    let mut fields = match args {
        Value::Null => return Ok(T::default()),
        Value::Object(fields) => fields.clone(),
        other => bail!("args: {other} is not an object"),
    };
    let expected =
        [("apiVersion", "kubescheduler.config.k8s.io/v1".to_owned()), ("kind", format!("{name}Args"))];
    for (field, expected) in expected {
        if let Some(given) = fields.remove(field)
            && given != expected
        {
            bail!("args.{field}: {given} is not {expected:?}");
        }
    }
    serde_json::from_value(Value::Object(fields)).context("args")
}

fn fit(file: FitFile) -> anyhow::Result<NodeResourcesFit> {
    let strategy = file.scoring_strategy;
    let kind = match (strategy.r#type.as_deref(), strategy.requested_to_capacity_ratio) {
        (None | Some("LeastAllocated"), None) => StrategyKind::LeastAllocated,
        (Some("MostAllocated"), None) => StrategyKind::MostAllocated,
        (Some("RequestedToCapacityRatio"), Some(curve)) => {
            StrategyKind::RequestedToCapacityRatio(points(&curve)?)
        }
        (Some("RequestedToCapacityRatio"), None) => {
            bail!("scoringStrategy.requestedToCapacityRatio.shape: Required value")
        }
        (Some(kind @ ("LeastAllocated" | "MostAllocated")), Some(_)) => {
            bail!("scoringStrategy.requestedToCapacityRatio: not with type {kind}")
        }
        (None, Some(_)) => bail!("scoringStrategy.requestedToCapacityRatio: not without its type"),
        (Some(other), _) => bail!("scoringStrategy.type: Unsupported value: {other:?}"),
    };
    let resources = match strategy.resources.as_slice() {
        [] => ScoringStrategy::default().resources,
        given => weights(given, "scoringStrategy.resources")?,
    };
    for group in &file.ignored_resource_groups {
        if group.contains('/') {
            bail!("ignoredResourceGroups: {group:?} must not have a slash");
        }
    }
    Ok(NodeResourcesFit {
        strategy: ScoringStrategy { kind, resources },
        ignored_resources: file.ignored_resources,
        ignored_resource_groups: file.ignored_resource_groups,
    })
}

fn points(curve: &CurveFile) -> anyhow::Result<Vec<CurvePoint>> {
    let path = "scoringStrategy.requestedToCapacityRatio.shape";
    if curve.shape.is_empty() {
        bail!("{path}: Required value: at least one point must be specified");
    }
    for (at, point) in curve.shape.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) {
            bail!(
                "{path}[{at}].utilization: Invalid value: {}: not in the range 0 to 100",
                point.utilization
            );
        }
        if !(0..=SCORE_MAX).contains(&point.score) {
            bail!("{path}[{at}].score: Invalid value: {}: not in the range 0 to {SCORE_MAX}", point.score);
        }
        if at > 0 && curve.shape[at - 1].utilization >= point.utilization {
            bail!("{path}[{at}].utilization: Invalid value: {}: not above the one before", point.utilization);
        }
    }
    let ready = |point: &PointFile| CurvePoint {
        utilization: point.utilization,
        score: point.score * 100 / SCORE_MAX,
    };
    Ok(curve.shape.iter().map(ready).collect())
}

fn weights(resources: &[ResourceFile], path: &str) -> anyhow::Result<Vec<(String, i64)>> {
    let mut weights: Vec<(String, i64)> = Vec::new();
    for (at, resource) in resources.iter().enumerate() {
        let weight = if resource.weight == 0 { 1 } else { resource.weight };
        if !(1..=100).contains(&weight) {
            bail!("{path}[{at}].weight: Invalid value: {weight}: not in the range 1 to 100");
        }
        if weights.iter().any(|(name, _)| *name == resource.name) {
            bail!("{path}[{at}].name: Duplicate value: {:?}", resource.name);
        }
        weights.push((resource.name.clone(), weight));
    }
    Ok(weights)
}

fn balanced(file: BalancedFile) -> anyhow::Result<NodeResourcesBalancedAllocation> {
    if file.resources.is_empty() {
        return Ok(NodeResourcesBalancedAllocation::default());
    }
    let weights = weights(&file.resources, "resources")?;
    if let Some((name, weight)) = weights.iter().find(|(_, weight)| *weight != 1) {
        bail!("resources: the weight of {name:?} is {weight} and must be 1");
    }
    Ok(NodeResourcesBalancedAllocation { resources: weights.into_iter().map(|(name, _)| name).collect() })
}

fn node_affinity(file: NodeAffinityFile) -> anyhow::Result<NodeAffinity> {
    let Some(added) = file.added_affinity else { return Ok(NodeAffinity::default()) };
    let required = added.required_during_scheduling_ignored_during_execution;
    if required.as_ref().is_some_and(|required| required.node_selector_terms.is_empty()) {
        bail!(
            "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value"
        );
    }
    let preferred = added.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
    Ok(NodeAffinity {
        added_required: required
            .map(|required| RequiredNodeAffinity::of_terms(&required.node_selector_terms))
            .unwrap_or_default(),
        added_preferred: preferred
            .iter()
            .map(|preferred| (i64::from(preferred.weight), Term::new(&preferred.preference)))
            .collect(),
    })
}

fn spread(file: SpreadFile) -> anyhow::Result<PodTopologySpread> {
    match file.defaulting_type.as_deref() {
        None | Some("System") if file.default_constraints.is_empty() => {
            return Ok(PodTopologySpread::default());
        }
        None | Some("System") => bail!("defaultConstraints: not with defaultingType System; use List"),
        Some("List") => {}
        Some(other) => {
            bail!("defaultingType: Unsupported value: {other:?}: supported values: \"System\", \"List\"")
        }
    }
    let mut defaults: Vec<DefaultConstraint> = Vec::new();
    for (at, given) in file.default_constraints.into_iter().enumerate() {
        let hard = match given.when_unsatisfiable.as_str() {
            "DoNotSchedule" => true,
            "ScheduleAnyway" => false,
            other => bail!("defaultConstraints[{at}].whenUnsatisfiable: Unsupported value: {other:?}"),
        };
        if given.max_skew < 1 {
            bail!("defaultConstraints[{at}].maxSkew: Invalid value: {}: not above 0", given.max_skew);
        }
        if given.topology_key.is_empty() {
            bail!("defaultConstraints[{at}].topologyKey: Required value");
        }
        if defaults.iter().any(|other| other.topology_key == given.topology_key && other.hard == hard) {
            bail!("defaultConstraints[{at}]: Duplicate value: {:?}", given.topology_key);
        }
        defaults.push(DefaultConstraint { topology_key: given.topology_key, max_skew: given.max_skew, hard });
    }
    Ok(PodTopologySpread { defaults: Some(defaults) })
}

fn inter_pod_affinity(file: InterPodAffinityFile) -> anyhow::Result<InterPodAffinity> {
    let weight = file.hard_pod_affinity_weight.unwrap_or(1);
    if !(0..=100).contains(&weight) {
        bail!("hardPodAffinityWeight: Invalid value: {weight}: not in the range 0 to 100");
    }
    Ok(InterPodAffinity {
        hard_pod_affinity_weight: weight,
        ignore_preferred_terms_of_existing_pods: file.ignore_preferred_terms_of_existing_pods,
    })
}

fn preemption(file: PreemptionFile) -> anyhow::Result<DefaultPreemption> {
    let usual = DefaultPreemption::default();
    let percentage = file.min_candidate_nodes_percentage.unwrap_or(usual.min_candidate_nodes_percentage);
    let absolute = file.min_candidate_nodes_absolute.unwrap_or(usual.min_candidate_nodes_absolute);
    if percentage > 100 {
        bail!("minCandidateNodesPercentage: Invalid value: {percentage}: not in the range 0 to 100");
    }
    if percentage == 0 && absolute == 0 {
        bail!("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be 0");
    }
    Ok(DefaultPreemption {
        min_candidate_nodes_percentage: percentage,
        min_candidate_nodes_absolute: absolute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arguments(name: &str, args: Value) -> Result<Arguments, String> {
        let config = PluginConfig { name: name.to_owned(), args };
        read(&[config]).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn arguments_reach_their_plugins() {
        let fit = json!({"scoringStrategy": {"type": "RequestedToCapacityRatio",
            "resources": [{"name": "example.com/gpu", "weight": 5}, {"name": "memory"}],
            "requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]}}});
        let strategy = arguments("NodeResourcesFit", fit).expect("read").fit.strategy;
        assert_eq!(strategy.resources, [("example.com/gpu".to_owned(), 5), ("memory".to_owned(), 1)]);
        let StrategyKind::RequestedToCapacityRatio(curve) = strategy.kind else { panic!("{strategy:?}") };
        assert_eq!(curve[1], CurvePoint { utilization: 100, score: 100 });
        let spread = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "PodTopologySpreadArgs", "defaultingType": "List",
            "defaultConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
        });
        let defaults = arguments("PodTopologySpread", spread).expect("read").spread.defaults.expect("a list");
        assert!(defaults[0].hard && defaults[0].topology_key == "rack");
        let weight = arguments("InterPodAffinity", json!({"hardPodAffinityWeight": 7})).expect("read");
        assert_eq!(weight.inter_pod_affinity.hard_pod_affinity_weight, 7);
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        let shape = |points: Value| json!({"scoringStrategy": {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": points}}});
        for (name, args, named) in [
            ("NodeResourcesFit", json!({"scoringStrategy": {"type": "Bogus"}}), "scoringStrategy.type"),
            ("NodeResourcesFit", shape(json!([])), "shape"),
            ("NodeResourcesFit", shape(json!([{"utilization": 5, "score": 11}])), "shape[0].score"),
            (
                "NodeResourcesFit",
                shape(json!([{"utilization": 5, "score": 1}, {"utilization": 5, "score": 1}])),
                "shape[1]",
            ),
            ("NodeResourcesFit", json!({"bogus": 1}), "bogus"),
            ("NodeResourcesFit", json!({"kind": "PodTopologySpreadArgs"}), "args.kind"),
            (
                "PodTopologySpread",
                json!({"defaultConstraints": [{"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}]}),
                "List",
            ),
            ("InterPodAffinity", json!({"hardPodAffinityWeight": 101}), "hardPodAffinityWeight"),
            (
                "DefaultPreemption",
                json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0}),
                "both",
            ),
            ("ImageLocality", json!({}), "ImageLocality"),
        ] {
            let error = arguments(name, args).expect_err("refused");
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
