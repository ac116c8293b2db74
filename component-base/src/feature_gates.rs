//! Feature gates as upstream's `--feature-gates` and `featureGates` set them: the table of v1.35, and what a program makes of what it is given. A gate may be
//! set to what is so anyway; what would switch something on or off that cannot be switched is refused by name. Pure, but for the gauge of `/metrics`.
//!
//! Never here: what any feature does.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::go_bool;

const TABLE: &str = include_str!("feature_gates.txt");
const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

static GATES: LazyLock<BTreeMap<&'static str, Gate>> =
    LazyLock::new(|| TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(Gate::parse).collect());

/// Who is asked; gates that do not concern a program change nothing there, whatever they are set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// kubelet.
    Kubelet,
    /// kube-proxy.
    KubeProxy,
}

impl Program {
    fn letter(self) -> char {
        match self {
            Self::ApiServer => 'a',
            Self::ControllerManager => 'c',
            Self::Scheduler => 's',
            Self::Kubelet => 'k',
            Self::KubeProxy => 'p',
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Gate {
    /// As upstream's metric has it: empty for what is generally available.
    stage: &'static str,
    default: bool,
    locked: bool,
    programs: &'static str,
    /// Both settings are obeyed, or come to the same.
    either: bool,
}

impl Gate {
    fn parse(line: &'static str) -> Option<(&'static str, Self)> {
        let mut columns = line.split(' ');
        let (name, stage, default, locked, programs) =
            (columns.next()?, columns.next()?, columns.next()?, columns.next()?, columns.next()?);
        let stage = match stage {
            "alpha" => "ALPHA",
            "beta" => "BETA",
            "ga" => "",
            "deprecated" => "DEPRECATED",
            _ => return None,
        };
        let either = columns.next() == Some("any");
        Some((name, Self { stage, default: default == "on", locked: locked == "locked", programs, either }))
    }

    /// Whether a program already behaves as the setting says.
    fn allows(&self, program: Program, value: bool) -> bool {
        value == self.default || self.either || !self.programs.contains(program.letter())
    }
}

/// The gates of a program, set.
#[derive(Clone, Debug, Default)]
pub struct FeatureGates {
    /// What was set, the two names for many among them.
    given: BTreeMap<String, bool>,
}

impl FeatureGates {
    /// Reads `A=true,B=false` as the flag has it; `kube:A=true` names the component that all gates are of.
    ///
    /// # Errors
    /// Upstream's texts for what is malformed, and those of [`FeatureGates::from_map`].
    pub fn parse(program: Program, text: &str) -> Result<Self, String> {
        let mut given = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let pair = match pair.split_once(':') {
                Some(("kube", rest)) => rest,
                Some((component, _)) => return Err(format!("component not registered: {component}")),
                None => pair,
            };
            let Some((name, value)) = pair.split_once('=') else {
                return Err(format!("missing bool value for {}", pair.trim()));
            };
            let (name, value) = (name.trim(), value.trim());
            let Some(value) = go_bool::parse(value) else {
                return Err(format!("invalid value of {name}={value}, err: {}", go_bool::problem(value)));
            };
            given.insert(name.to_owned(), value);
        }
        Self::from_map(program, given)
    }

    /// Takes what a configuration file says.
    ///
    /// # Errors
    /// Upstream's text for a gate that is unknown or locked; otherwise the gate that asks for what is not built.
    pub fn from_map(program: Program, given: BTreeMap<String, bool>) -> Result<Self, String> {
        let mut errors = Vec::new();
        for (name, value) in &given {
            if name == ALL_ALPHA || name == ALL_BETA {
                let stage = if name == ALL_ALPHA { "ALPHA" } else { "BETA" };
                let refused: Vec<&str> = GATES
                    .iter()
                    .filter(|(gate, spec)| {
                        spec.stage == stage && !given.contains_key(**gate) && !spec.allows(program, *value)
                    })
                    .map(|(gate, _)| *gate)
                    .collect();
                // Switching the unfinished off is what is done anyway; all of them at once are never there.
                if !refused.is_empty() {
                    errors.push(format!(
                        "{name}={value} is not implemented by Coracle's {}, because of {}",
                        program.name(),
                        refused.join(", ")
                    ));
                }
                continue;
            }
            let Some(gate) = GATES.get(name.as_str()) else {
                return Err(format!("unrecognized feature gate: {name}"));
            };
            if gate.locked && gate.default != *value {
                errors.push(format!(
                    "cannot set feature gate {name} to {value}, feature is locked to {}",
                    gate.default
                ));
            } else if !gate.allows(program, *value) {
                errors.push(format!(
                    "feature gate {name}={value} is not implemented by Coracle's {} yet; remove it",
                    program.name()
                ));
            }
        }
        match errors.len() {
            0 => Ok(Self { given }),
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    /// What upstream warns of: gates that will go away, having done their work.
    fn warnings(&self) -> Vec<String> {
        let said = |(name, value): (&String, &bool)| {
            let stage = match GATES.get(name.as_str())?.stage {
                "" => "GA",
                "DEPRECATED" => "deprecated",
                _ => return None,
            };
            Some(format!(
                "Setting {stage} feature gate {name}={value}. It will be removed in a future release."
            ))
        };
        self.given.iter().filter_map(said).collect()
    }

    /// Whether a gate is on.
    pub fn is_on(&self, gate: &str) -> bool {
        self.settings().any(|(name, _, on)| name == gate && on)
    }

    /// All gates by name and stage with their settings.
    fn settings(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let given = |name: &str| self.given.get(name).copied();
        let many = [(ALL_ALPHA, "ALPHA"), (ALL_BETA, "BETA")];
        let (alpha, beta) = (given(ALL_ALPHA), given(ALL_BETA));
        let gates = GATES.iter().map(move |(name, gate)| {
            let by_stage = match gate.stage {
                "ALPHA" => alpha,
                "BETA" => beta,
                _ => None,
            };
            (*name, gate.stage, given(name).or(by_stage).unwrap_or(gate.default))
        });
        many.into_iter().map(move |(name, stage)| (name, stage, given(name).unwrap_or(false))).chain(gates)
    }

    /// Registers upstream's `kubernetes_feature_enabled`, and logs what upstream warns of.
    pub fn register(&self, registry: &mut Registry) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
        let family: Family<Labels, Gauge> = Family::default();
        for (name, stage, enabled) in self.settings() {
            family.get_or_create(&Labels { name, stage }).set(i64::from(enabled));
        }
        registry.register(
            "kubernetes_feature_enabled",
            "[BETA] This metric records the data about the stage and enablement of a k8s feature",
            family,
        );
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    name: &'static str,
    stage: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FeatureGates, String> {
        FeatureGates::parse(Program::Scheduler, text)
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(GATES.len(), rows, "a malformed or a doubled row");
        assert!(
            GATES
                .values()
                .all(|gate| gate.programs == "-" || gate.programs.chars().all(|c| "acskp".contains(c)))
        );
        // What is locked is settled: generally available, or about to go.
        assert!(GATES.values().all(|gate| !gate.locked || matches!(gate.stage, "" | "DEPRECATED")));
        assert!(GATES.values().all(|gate| gate.stage != "ALPHA" || !gate.default));
    }

    #[test]
    fn what_is_so_anyway_may_be_said() {
        for text in [
            "",
            "AllAlpha=false",
            "AllAlpha=0,SidecarContainers=true",
            "kube:MatchLabelKeysInPodTopologySpread=true, StorageCapacityScoring=false",
            // Of other programs.
            "EventedPLEG=true,MemoryQoS=T,KubeletPSI=false",
            // The same either way.
            "SchedulerAsyncPreemption=false",
        ] {
            parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        }
        FeatureGates::parse(Program::KubeProxy, "AllBeta=true").expect("they are on");
    }

    #[test]
    fn what_is_unknown_locked_malformed_or_not_built_is_named() {
        let long =
            "invalid value of SidecarContainers=yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax";
        for (text, error) in [
            ("NoSuchGate=true", "unrecognized feature gate: NoSuchGate"),
            ("SidecarContainers", "missing bool value for SidecarContainers"),
            ("SidecarContainers=yes", long),
            (
                "SidecarContainers=false",
                "cannot set feature gate SidecarContainers to false, feature is locked to true",
            ),
            ("other:A=true", "component not registered: other"),
            (
                "StorageCapacityScoring=true",
                "feature gate StorageCapacityScoring=true is not implemented by Coracle's scheduler yet; remove it",
            ),
        ] {
            assert_eq!(parse(text).expect_err(text), error);
        }
        let many = parse("AllAlpha=true,StorageCapacityScoring=false").expect_err("refused");
        assert!(
            many.starts_with("AllAlpha=true is not implemented by Coracle's scheduler, because of "),
            "{many}"
        );
        assert!(!many.contains("GenericWorkload") && !many.contains("StorageCapacityScoring"), "{many}");
    }

    #[test]
    fn what_is_on_is_what_is_set_by_name_by_stage_or_by_default() {
        let of = |text: &str| {
            FeatureGates::parse(Program::ApiServer, text).expect("set").is_on("MutatingAdmissionPolicy")
        };
        assert!(!of("") && of("MutatingAdmissionPolicy=true") && !of("MutatingAdmissionPolicy=false"));
        assert!(FeatureGates::default().is_on("SidecarContainers"));
        assert!(
            FeatureGates::from_map(Program::KubeProxy, BTreeMap::from([(ALL_BETA.to_owned(), true)]))
                .expect("they are on")
                .is_on("MutatingAdmissionPolicy")
        );
    }

    #[test]
    fn settled_gates_are_warned_of() {
        let gates =
            parse("SidecarContainers=true,StorageNamespaceIndex=false,PodDeletionCost=true").expect("set");
        assert_eq!(
            gates.warnings(),
            [
                "Setting GA feature gate SidecarContainers=true. It will be removed in a future release.",
                "Setting deprecated feature gate StorageNamespaceIndex=false. It will be removed in a future release.",
            ]
        );
    }

    #[test]
    fn the_gauge_says_what_is_set() {
        let mut registry = Registry::default();
        parse("EventedPLEG=true").expect("set").register(&mut registry);
        let text = crate::metrics::encode(&registry);
        for line in [
            "# TYPE kubernetes_feature_enabled gauge",
            "kubernetes_feature_enabled{name=\"EventedPLEG\",stage=\"ALPHA\"} 1",
            "kubernetes_feature_enabled{name=\"SidecarContainers\",stage=\"\"} 1",
            "kubernetes_feature_enabled{name=\"AllBeta\",stage=\"BETA\"} 0",
            "kubernetes_feature_enabled{name=\"KMSv1\",stage=\"DEPRECATED\"} 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
    }
}
