//! Which plugins a profile of the file switches on and off, and where. Owns that part of the file's form; upstream's rules for what
//! follows are `scheduler-core`'s.

use scheduler_core::plugins::registry::ExtensionPoint;
use scheduler_core::profile::{PluginSet, PluginSets};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct PluginsFile {
    multi_point: SetFile,
    pre_enqueue: SetFile,
    queue_sort: SetFile,
    pre_filter: SetFile,
    filter: SetFile,
    post_filter: SetFile,
    pre_score: SetFile,
    score: SetFile,
    reserve: SetFile,
    permit: SetFile,
    pre_bind: SetFile,
    bind: SetFile,
    post_bind: SetFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SetFile {
    enabled: Vec<PluginFile>,
    disabled: Vec<PluginFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginFile {
    name: String,
    #[serde(default)]
    weight: i64,
}

impl SetFile {
    fn ready(&self) -> PluginSet {
        PluginSet {
            enabled: self.enabled.iter().map(|plugin| (plugin.name.clone(), plugin.weight)).collect(),
            disabled: self.disabled.iter().map(|plugin| plugin.name.clone()).collect(),
        }
    }
}

impl PluginsFile {
    /// The same for the core.
    pub(super) fn ready(&self) -> PluginSets {
        let points = [
            (ExtensionPoint::PreEnqueue, &self.pre_enqueue),
            (ExtensionPoint::QueueSort, &self.queue_sort),
            (ExtensionPoint::PreFilter, &self.pre_filter),
            (ExtensionPoint::Filter, &self.filter),
            (ExtensionPoint::PostFilter, &self.post_filter),
            (ExtensionPoint::PreScore, &self.pre_score),
            (ExtensionPoint::Score, &self.score),
            (ExtensionPoint::Reserve, &self.reserve),
            (ExtensionPoint::Permit, &self.permit),
            (ExtensionPoint::PreBind, &self.pre_bind),
            (ExtensionPoint::Bind, &self.bind),
            (ExtensionPoint::PostBind, &self.post_bind),
        ];
        PluginSets {
            multi_point: self.multi_point.ready(),
            points: points.into_iter().map(|(point, set)| (point, set.ready())).collect(),
        }
    }
}
