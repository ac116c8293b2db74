//! A set of plugins under a scheduler name. Owns which plugins decide, in which order and with which weights, and upstream's rules for
//! how a configuration changes that.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::extender::Extender;
use crate::framework::{FilterPlugin, PostFilterPlugin, ScorePlugin};
use crate::gangs;
use crate::plugins::registry::{self, Arguments, DEFAULTS, ExtensionPoint};

/// The name pods ask for if they ask for none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// The scheduler a pod asks for.
pub fn scheduler_name(pod: &Pod) -> &str {
    let named = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    named.unwrap_or(DEFAULT_SCHEDULER_NAME)
}

/// A plugin with its weight among the scores.
pub struct Weighted {
    /// The plugin.
    pub plugin: Box<dyn ScorePlugin>,
    /// How much its score counts.
    pub weight: i64,
}

/// The plugins that decide for pods with this `spec.schedulerName`.
pub struct Profile {
    /// `spec.schedulerName` of the pods it serves.
    pub scheduler_name: String,
    /// Filters in the order in which they are asked; the first that objects names the reason.
    pub filters: Vec<Box<dyn FilterPlugin>>,
    /// What may help a pod that found no node, in the order in which it is tried.
    pub post_filters: Vec<Box<dyn PostFilterPlugin>>,
    /// Scores.
    pub scores: Vec<Weighted>,
    /// Whether pods of a group that has a minimum are placed together.
    pub gangs: bool,
    /// How many of the nodes are compared, in percent; `None` lets it shrink as the cluster grows.
    pub percentage_of_nodes_to_score: Option<u32>,
    /// Servers outside that have a say, in the order in which they are asked.
    pub extenders: Vec<Arc<dyn Extender>>,
}

/// Plugins switched on, with weights (0 for none given), and off (`*` for all).
#[derive(Clone, Debug, Default)]
pub struct PluginSet {
    /// Names and weights.
    pub enabled: Vec<(String, i64)>,
    /// Names.
    pub disabled: BTreeSet<String>,
}

/// What a configuration says of a profile's plugins.
#[derive(Clone, Debug, Default)]
pub struct PluginSets {
    /// At all their extension points.
    pub multi_point: PluginSet,
    /// At one extension point.
    pub points: Vec<(ExtensionPoint, PluginSet)>,
}

/// Why a configuration of plugins cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileError {
    /// There is no plugin of this name.
    Unknown(String),
    /// The plugin does nothing at this extension point.
    NotThere(String, ExtensionPoint),
    /// The plugin is named twice.
    Twice(String),
    /// The plugin's parts cannot be switched one by one.
    Apart(String, ExtensionPoint),
    /// Nothing is left at an extension point that needs a plugin.
    Missing(ExtensionPoint),
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "plugin {name:?} does not exist"),
            Self::NotThere(name, point) => write!(f, "plugin {name:?} does not extend {point:?}"),
            Self::Twice(name) => write!(f, "plugin {name:?} already registered"),
            Self::Apart(name, point) => {
                write!(
                    f,
                    "plugin {name:?} cannot be switched at {point:?} alone; switch it where it filters or scores"
                )
            }
            Self::Missing(point) => write!(f, "no plugin is left at {point:?}, which needs one"),
        }
    }
}

impl std::error::Error for ProfileError {}

impl Profile {
    /// Upstream's default plugins.
    pub fn new(scheduler_name: &str) -> Self {
        let chosen = |point| {
            let there = DEFAULTS.iter().filter(move |(_, points, _)| points.contains(&point));
            there.map(|(name, _, weight)| ((*name).to_owned(), *weight)).collect::<Vec<_>>()
        };
        Self::made_of(scheduler_name, &chosen, &Arguments::default())
    }

    /// The default plugins, changed as a configuration says.
    ///
    /// # Errors
    /// The configuration names plugins that are not there, or leaves too few.
    pub fn configured(
        scheduler_name: &str,
        sets: &PluginSets,
        arguments: &Arguments,
    ) -> Result<Self, ProfileError> {
        let every = merged(&sets.multi_point)?;
        for (point, set) in &sets.points {
            for name in set.enabled.iter().map(|(name, _)| name) {
                let points = registry::points(name).ok_or_else(|| ProfileError::Unknown(name.clone()))?;
                if !points.contains(point) {
                    return Err(ProfileError::NotThere(name.clone(), *point));
                }
            }
        }
        let at = |point: ExtensionPoint| expanded(point, &every, sets);
        let names = |point| -> Vec<String> { at(point).into_iter().map(|(name, _)| name).collect() };
        for point in [ExtensionPoint::PreEnqueue, ExtensionPoint::QueueSort, ExtensionPoint::Bind] {
            if names(point).is_empty() {
                return Err(ProfileError::Missing(point));
            }
        }
        for (prepares, acts) in [
            (ExtensionPoint::PreFilter, ExtensionPoint::Filter),
            (ExtensionPoint::PreScore, ExtensionPoint::Score),
            (ExtensionPoint::Reserve, ExtensionPoint::Filter),
            (ExtensionPoint::PreBind, ExtensionPoint::Filter),
            (ExtensionPoint::PreEnqueue, ExtensionPoint::Permit),
            (ExtensionPoint::Reserve, ExtensionPoint::Permit),
        ] {
            let (preparing, acting) = (names(prepares), names(acts));
            let both =
                DEFAULTS.iter().filter(|(_, points, _)| points.contains(&prepares) && points.contains(&acts));
            for (name, _, _) in both {
                if preparing.iter().any(|there| there == name) != acting.iter().any(|there| there == name) {
                    // Switching the part that acts is how one says it; the part that prepares follows.
                    let said = sets.points.iter().any(|(point, set)| *point == prepares && says(set, name));
                    if said {
                        return Err(ProfileError::Apart((*name).to_owned(), prepares));
                    }
                }
            }
        }
        Ok(Self::made_of(scheduler_name, &at, arguments))
    }

    fn made_of(
        scheduler_name: &str,
        at: &dyn Fn(ExtensionPoint) -> Vec<(String, i64)>,
        arguments: &Arguments,
    ) -> Self {
        let scored = |(name, weight): (String, i64)| {
            registry::score(&name, arguments).map(|plugin| Weighted { plugin, weight: weight.max(1) })
        };
        let names = |point| at(point).into_iter().map(|(name, _)| name);
        Self {
            scheduler_name: scheduler_name.to_owned(),
            filters: names(ExtensionPoint::Filter)
                .filter_map(|name| registry::filter(&name, arguments))
                .collect(),
            post_filters: names(ExtensionPoint::PostFilter)
                .filter_map(|name| registry::post_filter(&name, arguments))
                .collect(),
            scores: at(ExtensionPoint::Score).into_iter().filter_map(scored).collect(),
            gangs: names(ExtensionPoint::Permit).any(|name| name == gangs::NAME),
            percentage_of_nodes_to_score: None,
            extenders: Vec::new(),
        }
    }
}

fn says(set: &PluginSet, name: &str) -> bool {
    set.disabled.contains(name) || set.disabled.contains("*") || set.enabled.iter().any(|(on, _)| on == name)
}

/// The default plugins with those of `multiPoint` taken away, changed in place, or added at the end.
fn merged(multi_point: &PluginSet) -> Result<Vec<(String, i64)>, ProfileError> {
    let mut custom = multi_point.enabled.clone();
    for (at, (name, _)) in custom.iter().enumerate() {
        registry::points(name).ok_or_else(|| ProfileError::Unknown(name.clone()))?;
        if custom[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(ProfileError::Twice(name.clone()));
        }
    }
    let mut every = Vec::new();
    if !multi_point.disabled.contains("*") {
        for (name, _, weight) in DEFAULTS.iter().filter(|(name, _, _)| !multi_point.disabled.contains(*name))
        {
            match custom.iter().position(|(changed, _)| changed == name) {
                Some(at) => every.push(custom.remove(at)),
                None => every.push(((*name).to_owned(), *weight)),
            }
        }
    }
    every.append(&mut custom);
    Ok(every)
}

/// The plugins of one extension point: those named there that `multiPoint` has too come first, then the rest of `multiPoint`
/// but for what is switched off there, then the others named there.
fn expanded(point: ExtensionPoint, every: &[(String, i64)], sets: &PluginSets) -> Vec<(String, i64)> {
    let none = PluginSet::default();
    let own = sets.points.iter().find(|(at, _)| *at == point).map_or(&none, |(_, set)| set);
    let works_here = |name: &str| registry::points(name).is_some_and(|points| points.contains(&point));
    let is_named = |name: &str| own.enabled.iter().find(|(named, _)| named == name);
    let off = |name: &str| own.disabled.contains(name) || own.disabled.contains("*");
    let here = || every.iter().filter(|(name, _)| works_here(name));
    let overridden = here().filter_map(|(name, _)| is_named(name));
    let rest = here().filter(|(name, _)| is_named(name).is_none() && !off(name));
    let others = own.enabled.iter().filter(|(name, _)| !here().any(|(there, _)| there == name));
    overridden.chain(rest).chain(others).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(enabled: &[(&str, i64)], disabled: &[&str]) -> PluginSet {
        PluginSet {
            enabled: enabled.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
            disabled: disabled.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn profile(
        multi_point: PluginSet,
        points: Vec<(ExtensionPoint, PluginSet)>,
    ) -> Result<Profile, ProfileError> {
        Profile::configured("s", &PluginSets { multi_point, points }, &Arguments::default())
    }

    fn scores(profile: &Profile) -> Vec<(&str, i64)> {
        profile.scores.iter().map(|scored| (scored.plugin.name(), scored.weight)).collect()
    }

    #[test]
    fn a_star_switches_everything_off_and_what_is_named_stays() {
        let only = profile(
            PluginSet::default(),
            vec![(ExtensionPoint::Score, set(&[("ImageLocality", 5), ("NodeAffinity", 0)], &["*"]))],
        );
        assert_eq!(scores(&only.expect("profile")), [("NodeAffinity", 1), ("ImageLocality", 5)]);
        let bare = profile(
            set(
                &[("NodeName", 0), ("PrioritySort", 0), ("DefaultBinder", 0), ("SchedulingGates", 0)],
                &["*"],
            ),
            vec![],
        );
        let bare = bare.expect("profile");
        assert_eq!(bare.filters.iter().map(|filter| filter.name()).collect::<Vec<_>>(), ["NodeName"]);
        assert!(bare.scores.is_empty() && bare.post_filters.is_empty());
    }

    #[test]
    fn weights_come_from_the_most_particular_place() {
        let both = profile(
            set(&[("TaintToleration", 7), ("NodeAffinity", 8)], &[]),
            vec![(ExtensionPoint::Score, set(&[("NodeAffinity", 9)], &[]))],
        );
        let both = both.expect("profile");
        assert_eq!(scores(&both)[..2], [("NodeAffinity", 9), ("TaintToleration", 7)]);
        assert_eq!(both.filters.len(), Profile::new("s").filters.len());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |multi_point, points| profile(multi_point, points).err();
        assert_eq!(error(set(&[("Bogus", 0)], &[]), vec![]), Some(ProfileError::Unknown("Bogus".into())));
        assert_eq!(
            error(PluginSet::default(), vec![(ExtensionPoint::Score, set(&[("NodeName", 0)], &[]))]),
            Some(ProfileError::NotThere("NodeName".into(), ExtensionPoint::Score))
        );
        assert_eq!(
            error(set(&[], &["PrioritySort"]), vec![]),
            Some(ProfileError::Missing(ExtensionPoint::QueueSort))
        );
        assert_eq!(
            error(PluginSet::default(), vec![(ExtensionPoint::PreFilter, set(&[], &["NodePorts"]))]),
            Some(ProfileError::Apart("NodePorts".into(), ExtensionPoint::PreFilter))
        );
    }
}
