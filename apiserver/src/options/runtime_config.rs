//! `--runtime-config`: which built-in versions of the API are served. Pure.
//!
//! What is generally available can be left out; of the few alpha and beta versions that are built, none is served unless it is asked for.

use std::collections::BTreeMap;

use component_base::go_bool;
use coracle_api::resource;

/// Groups that upstream's server has.
const GROUPS: [&str; 25] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "imagepolicy.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Keys for many versions, the widest first: later ones count more.
const MANY: [&str; 4] = ["api/all", "api/ga", "api/beta", "api/alpha"];

/// What the flag says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Group and version of what is not served.
    pub hidden: Vec<(&'static str, &'static str)>,
    /// Alpha or beta versions were asked for all at once, of which most are not built.
    pub asked_in_vain: bool,
}

/// Which of the keys for many means a version beside `api/all`.
fn stage(version: &str) -> &'static str {
    match version {
        alpha if alpha.contains("alpha") => "api/alpha",
        beta if beta.contains("beta") => "api/beta",
        _ => "api/ga",
    }
}

impl RuntimeConfig {
    /// Reads `key=value` pairs.
    ///
    /// # Errors
    /// Upstream's words for what makes no sense; ours for a version, or a part of one, that cannot be switched.
    pub fn parse(pairs: &[String]) -> Result<Self, String> {
        let mut given: BTreeMap<&str, &str> = BTreeMap::new();
        for pair in pairs.iter().map(|pair| pair.trim()).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = match key.trim() {
                "api/legacy" => continue,
                "v1" | "api/v1" => "/v1",
                key => key,
            };
            given.insert(key, value.trim());
        }
        let mut switches: BTreeMap<&str, bool> = BTreeMap::new();
        for (key, value) in given {
            let on = match value {
                "" => Some(true),
                value => go_bool::parse(value),
            };
            let problem = || format!("invalid value of {key}: {value}, err: {}", go_bool::problem(value));
            switches.insert(key, on.ok_or_else(problem)?);
        }
        if switches.len() == 1 && switches.get("api/all") == Some(&false) {
            return Err("invalid key with only api/all=false".to_owned());
        }
        let mut served: Vec<((&'static str, &'static str), bool)> =
            resource::groups().into_iter().map(|version| (version, stage(version.1) == "api/ga")).collect();
        let mut asked_in_vain = false;
        for key in MANY {
            let Some(on) = switches.get(key) else { continue };
            for ((_, version), is_on) in &mut served {
                if key == "api/all" || key == stage(version) {
                    *is_on = *on;
                }
            }
            asked_in_vain |= *on && key != "api/ga";
        }
        let mut unknown = Vec::new();
        for (key, on) in switches.iter().filter(|(key, _)| !MANY.contains(key)) {
            let parts: Vec<&str> = key.split('/').collect();
            let (group, version, part) = match parts.as_slice() {
                [group, version] => (*group, *version, None),
                [group, version, part] => (*group, *version, Some(*part)),
                _ => return Err(format!("runtime-config invalid key {key}")),
            };
            if !GROUPS.contains(&group) {
                unknown.push(group);
                continue;
            }
            let found = served.iter_mut().find(|((of, name), _)| *of == group && *name == version);
            match (found, part, on) {
                (Some((_, is_on)), None, on) => *is_on = *on,
                (None, _, false) => {}
                (Some((_, is_on)), Some(_), true) if *is_on => {}
                _ => {
                    return Err(format!(
                        "--runtime-config: {key}={on} is not implemented by Coracle; remove it"
                    ));
                }
            }
        }
        if !unknown.is_empty() {
            unknown.dedup();
            return Err(format!("unknown api groups {}", unknown.join(",")));
        }
        let hidden = served.into_iter().filter(|(_, is_on)| !is_on).map(|(version, _)| version).collect();
        Ok(Self { hidden, asked_in_vain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: (&str, &str) = ("admissionregistration.k8s.io", "v1beta1");
    const WORKLOADS: (&str, &str) = ("scheduling.k8s.io", "v1alpha1");

    fn parse(text: &str) -> Result<RuntimeConfig, String> {
        RuntimeConfig::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn versions_are_left_out_by_name() {
        let usual = parse("").expect("sensible");
        assert_eq!(usual, RuntimeConfig { hidden: vec![POLICIES, WORKLOADS], asked_in_vain: false });
        let hidden = parse("batch/v1=false,apps/v1,autoscaling/v1=0").expect("sensible").hidden;
        assert_eq!(hidden, [POLICIES, ("autoscaling", "v1"), ("batch", "v1"), WORKLOADS]);
        assert_eq!(parse("storage.k8s.io/v1beta1=false,api/legacy=false"), Ok(usual));
    }

    #[test]
    fn what_is_not_generally_available_is_served_when_it_is_asked_for() {
        for (text, hidden) in [
            ("admissionregistration.k8s.io/v1beta1=true", vec![WORKLOADS]),
            ("api/beta=true", vec![WORKLOADS]),
            ("api/alpha=true", vec![POLICIES]),
            ("api/all=true", vec![]),
        ] {
            assert_eq!(parse(text).expect("sensible").hidden, hidden, "{text}");
        }
        let both = parse("api/beta=true,admissionregistration.k8s.io/v1beta1=false").expect("sensible");
        assert_eq!(both.hidden, [POLICIES, WORKLOADS]);
    }

    #[test]
    fn all_may_be_left_out_but_some() {
        let config = parse("api/all=false,v1=true,apps/v1=true").expect("sensible");
        assert_eq!(config.hidden.len(), resource::groups().len() - 2);
        assert!(!config.hidden.contains(&("", "v1")) && config.hidden.contains(&("batch", "v1")));
        // The narrower key counts.
        assert_eq!(parse("api/all=false,api/ga=true").expect("sensible").hidden, [POLICIES, WORKLOADS]);
    }

    #[test]
    fn what_is_not_there_cannot_be_had() {
        assert!(parse("api/all=true").expect("kind says so").asked_in_vain);
        assert!(!parse("api/beta=false,api/ga=true").expect("is so anyway").asked_in_vain);
        for (text, error) in [
            (
                "resource.k8s.io/v1beta1=true",
                "--runtime-config: resource.k8s.io/v1beta1=true is not implemented by Coracle; remove it",
            ),
            (
                "apps/v1/deployments=false",
                "--runtime-config: apps/v1/deployments=false is not implemented by Coracle; remove it",
            ),
            ("none.k8s.io/v1=true", "unknown api groups none.k8s.io"),
            ("apiall=false", "runtime-config invalid key apiall"),
            ("api/all=false", "invalid key with only api/all=false"),
            (
                "apps/v1=maybe",
                "invalid value of apps/v1: maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(parse(text).expect_err(text), error);
        }
    }
}
