//! What the scheduler runs with: flags, and a KubeSchedulerConfiguration file where there is one. Every field of the file is honoured or
//! refused by name. Owns the file's form.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use component_base::duration::GoDuration;
use component_base::feature_gates::FeatureGates;
use coracle_client::leader_election::{LeaderElectionConfig, LeaderElectionFlags};
use scheduler_core::gangs;
use scheduler_core::plugins::registry::Arguments;
use scheduler_core::profile::{DEFAULT_SCHEDULER_NAME, PluginSets, Profile};
use scheduler_core::queue::Backoff;
use serde::Deserialize;

use crate::configuration::arguments::PluginConfig;
use crate::configuration::extenders::ExtenderFile;
use crate::configuration::plugins::PluginsFile;
use crate::options::Options;

mod arguments;
pub mod extenders;
mod plugins;

/// The feature gate of the API that groups of pods are declared with.
pub const WORKLOADS: &str = "GenericWorkload";

/// The name of the lease.
const LEASE_NAME: &str = "kube-scheduler";

/// What the scheduler runs with.
pub struct Settings {
    /// Empty for in-cluster.
    pub kubeconfig: PathBuf,
    /// `None` to act without an election.
    pub leader_election: Option<LeaderElectionConfig>,
    /// How long pods wait after a failed attempt.
    pub backoff: Backoff,
    file: File,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    client_connection: ClientConnection,
    #[serde(default)]
    leader_election: LeaderElection,
    #[serde(default)]
    profiles: Vec<ProfileFile>,
    percentage_of_nodes_to_score: Option<u32>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
    #[serde(default)]
    extenders: Vec<ExtenderFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientConnection {
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LeaderElection {
    leader_elect: Option<bool>,
    lease_duration: Option<GoDuration>,
    renew_deadline: Option<GoDuration>,
    retry_period: Option<GoDuration>,
    resource_lock: Option<String>,
    resource_name: Option<String>,
    resource_namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProfileFile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<u32>,
    #[serde(default)]
    plugins: PluginsFile,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
}

impl Settings {
    /// Reads the file if there is one and merges the flags.
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        let file = match &options.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        extenders::check(&file.extenders)?;
        let flags = merge_election(&options.leader_election, &file.leader_election)?;
        let leader_election = match flags.leader_elect {
            true => Some(flags.config(LEASE_NAME).map_err(anyhow::Error::msg)?),
            false => None,
        };
        let backoff = Backoff {
            initial: Duration::from_secs(file.pod_initial_backoff_seconds.unwrap_or(1)),
            max: Duration::from_secs(file.pod_max_backoff_seconds.unwrap_or(10)),
        };
        if backoff.initial.is_zero() || backoff.max < backoff.initial {
            bail!("podInitialBackoffSeconds must be above 0 and podMaxBackoffSeconds not below it");
        }
        let kubeconfig = options
            .kubeconfig
            .clone()
            .or_else(|| file.client_connection.kubeconfig.clone())
            .unwrap_or_default();
        Ok(Self { kubeconfig, leader_election, backoff, file })
    }

    /// Whom to ask beside the plugins.
    pub fn extenders(&self) -> &[ExtenderFile] {
        &self.file.extenders
    }

    /// Makes the profiles, without extenders.
    pub fn profiles(&self, gates: &FeatureGates) -> anyhow::Result<Vec<Profile>> {
        if self.file.profiles.is_empty() {
            let arguments = self.arguments(&[])?;
            let mut profile = Profile::configured(
                DEFAULT_SCHEDULER_NAME,
                &gated(PluginSets::default(), gates)?,
                &arguments,
            )?;
            profile.percentage_of_nodes_to_score = self.file.percentage_of_nodes_to_score;
            return Ok(vec![profile]);
        }
        let mut profiles: Vec<Profile> = Vec::new();
        for (index, given) in self.file.profiles.iter().enumerate() {
            let name = given.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER_NAME);
            if profiles.iter().any(|profile| profile.scheduler_name == name) {
                bail!("profiles[{index}].schedulerName: Duplicate value: {name:?}");
            }
            let arguments =
                self.arguments(&given.plugin_config).with_context(|| format!("profiles[{index}]"))?;
            let mut profile = gated(given.plugins.ready(), gates)
                .and_then(|sets| Ok(Profile::configured(name, &sets, &arguments)?))
                .with_context(|| format!("profiles[{index}].plugins"))?;
            profile.percentage_of_nodes_to_score =
                given.percentage_of_nodes_to_score.or(self.file.percentage_of_nodes_to_score);
            profiles.push(profile);
        }
        Ok(profiles)
    }

    /// The arguments of a profile's plugins; what extenders keep account of is theirs.
    fn arguments(&self, given: &[PluginConfig]) -> anyhow::Result<Arguments> {
        let mut arguments = arguments::read(given)?;
        let managed = self.file.extenders.iter().flat_map(|extender| &extender.managed_resources);
        let left =
            managed.filter(|resource| resource.ignored_by_scheduler).map(|resource| resource.name.clone());
        arguments.fit.ignored_resources.extend(left);
        Ok(arguments)
    }
}

/// Takes away the plugin that is there only with its feature gates.
fn gated(mut sets: PluginSets, gates: &FeatureGates) -> anyhow::Result<PluginSets> {
    if gates.is_on(gangs::NAME) && gates.is_on(WORKLOADS) {
        return Ok(sets);
    }
    let every = sets.points.iter().map(|(_, set)| set).chain([&sets.multi_point]);
    if every.flat_map(|set| &set.enabled).any(|(name, _)| name == gangs::NAME) {
        bail!("plugin {:?} needs --feature-gates={WORKLOADS}=true,{}=true", gangs::NAME, gangs::NAME);
    }
    sets.multi_point.disabled.insert(gangs::NAME.to_owned());
    Ok(sets)
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read --config {}", path.display()))?;
    let file: File = serde_yaml_ng::from_str(&text).with_context(|| {
        format!(
            "--config {} has a field that Coracle does not have or not yet, or a wrong value",
            path.display()
        )
    })?;
    let (version, kind) = (file.api_version.as_deref().unwrap_or(""), file.kind.as_deref().unwrap_or(""));
    if version != "kubescheduler.config.k8s.io/v1" || kind != "KubeSchedulerConfiguration" {
        bail!(
            "--config {} is {version:?} {kind:?}; expected kubescheduler.config.k8s.io/v1 KubeSchedulerConfiguration",
            path.display()
        );
    }
    Ok(file)
}

fn merge_election(flags: &LeaderElectionFlags, file: &LeaderElection) -> anyhow::Result<LeaderElectionFlags> {
    if file.resource_lock.as_deref().is_some_and(|lock| lock != "leases") {
        bail!("leaderElection.resourceLock: only \"leases\" is supported");
    }
    let mut merged = flags.clone();
    if let Some(elect) = file.leader_elect {
        // The flag is on by default, so that only the file can say no here; the flag's own no stays a no.
        merged.leader_elect &= elect;
    }
    for (target, value) in [
        (&mut merged.leader_elect_lease_duration, file.lease_duration),
        (&mut merged.leader_elect_renew_deadline, file.renew_deadline),
        (&mut merged.leader_elect_retry_period, file.retry_period),
    ] {
        if let Some(value) = value {
            *target = value.get();
        }
    }
    merged.leader_elect_resource_name =
        merged.leader_elect_resource_name.or_else(|| file.resource_name.clone());
    if let Some(namespace) = &file.resource_namespace {
        merged.leader_elect_resource_namespace.clone_from(namespace);
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use component_base::feature_gates::Program;

    fn load(yaml: &str) -> anyhow::Result<(Settings, Vec<Profile>)> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("config.yaml");
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        std::fs::write(&path, format!("{head}{yaml}"))?;
        let options = Options::try_parse_from(["scheduler", "--config", &path.to_string_lossy()])?;
        let settings = Settings::load(&options)?;
        let profiles = settings.profiles(&FeatureGates::default())?;
        Ok((settings, profiles))
    }

    #[test]
    fn profiles_change_names_weights_and_sampling() {
        let yaml = "
leaderElection: {leaderElect: false}
podInitialBackoffSeconds: 2
percentageOfNodesToScore: 30
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  percentageOfNodesToScore: 100
  plugins:
    score:
      disabled: [{name: NodeResourcesBalancedAllocation}]
      enabled: [{name: ImageLocality, weight: 7}]
    multiPoint:
      disabled: [{name: PodTopologySpread}]
";
        let (settings, profiles) = load(yaml).expect("loads");
        assert!(settings.leader_election.is_none());
        assert_eq!(settings.backoff.initial, Duration::from_secs(2));
        assert_eq!(profiles[0].percentage_of_nodes_to_score, Some(30));
        let packer = &profiles[1];
        assert_eq!(packer.percentage_of_nodes_to_score, Some(100));
        let weight =
            |name| packer.scores.iter().find(|scored| scored.plugin.name() == name).map(|s| s.weight);
        assert_eq!(weight("ImageLocality"), Some(7));
        assert_eq!(weight("NodeResourcesBalancedAllocation"), None);
        assert_eq!(weight("PodTopologySpread"), None);
        assert!(!packer.filters.iter().any(|filter| filter.name() == "PodTopologySpread"));
        assert!(!packer.gangs, "not without its feature gates");
        let on = FeatureGates::parse(Program::Scheduler, "GenericWorkload=true,GangScheduling=true");
        let with = settings.profiles(&on.expect("gates")).expect("profiles");
        assert!(with.iter().all(|profile| profile.gangs));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (yaml, named) in [
            ("extenders: [{bindings: 1}]\n", "bindings"),
            ("extenders: [{urlPrefix: 'http://e', prioritizeVerb: p}]\n", "extenders[0].weight"),
            (
                "extenders: [{urlPrefix: 'http://e', bindVerb: b}, {urlPrefix: 'http://f', bindVerb: b}]\n",
                "found 2 extenders",
            ),
            (
                "extenders: [{urlPrefix: 'http://e', managedResources: [{name: cpu}]}]\n",
                "managedResources[0].name",
            ),
            ("profiles: [{pluginConfig: [{name: ImageLocality}]}]\n", "ImageLocality"),
            ("profiles: [{plugins: {score: {enabled: [{name: Bogus}]}}}]\n", "Bogus"),
            (
                "profiles: [{plugins: {multiPoint: {enabled: [{name: GangScheduling}]}}}]\n",
                "GenericWorkload=true",
            ),
            ("profiles: [{}, {}]\n", "profiles[1].schedulerName"),
        ] {
            let error = format!("{:#}", load(yaml).err().expect("refused"));
            assert!(error.contains(named), "{error}");
        }
    }
}
