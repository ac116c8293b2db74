//! The admission plugins of kube-apiserver v1.35 by name, and which of them the flags ask for. Pure.
//!
//! Never here: what plugins do; `crate::admission` has one file for each.

use super::Options;

/// What there is of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    /// It works.
    Yes,
    /// It does nothing, here as upstream, as long as its feature gate is off, which it is by default.
    Gated,
    /// It is not built.
    No,
}

const PLUGINS: &[(&str, Here)] = &[
    ("AlwaysAdmit", Here::Yes),
    ("AlwaysDeny", Here::Yes),
    ("AlwaysPullImages", Here::Yes),
    ("CertificateApproval", Here::Yes),
    ("CertificateSigning", Here::Yes),
    ("CertificateSubjectRestriction", Here::Yes),
    ("ClusterTrustBundleAttest", Here::Gated),
    ("DefaultIngressClass", Here::Yes),
    ("DefaultStorageClass", Here::Yes),
    ("DefaultTolerationSeconds", Here::Yes),
    ("DenyServiceExternalIPs", Here::Yes),
    ("EventRateLimit", Here::No),
    ("ExtendedResourceToleration", Here::Yes),
    ("ImagePolicyWebhook", Here::No),
    ("LimitPodHardAntiAffinityTopology", Here::Yes),
    ("LimitRanger", Here::Yes),
    ("MutatingAdmissionPolicy", Here::Yes),
    ("MutatingAdmissionWebhook", Here::Yes),
    ("NamespaceAutoProvision", Here::Yes),
    ("NamespaceExists", Here::Yes),
    ("NamespaceLifecycle", Here::Yes),
    ("NodeDeclaredFeatureValidator", Here::Gated),
    ("NodeRestriction", Here::Yes),
    ("OwnerReferencesPermissionEnforcement", Here::Yes),
    ("PersistentVolumeClaimResize", Here::Yes),
    ("PodNodeSelector", Here::Yes),
    ("PodSecurity", Here::Yes),
    ("PodTolerationRestriction", Here::Yes),
    ("PodTopologyLabels", Here::Yes),
    ("Priority", Here::Yes),
    ("ResourceQuota", Here::Yes),
    ("RuntimeClass", Here::Yes),
    ("ServiceAccount", Here::Yes),
    ("StorageObjectInUseProtection", Here::Yes),
    ("TaintNodesByCondition", Here::Yes),
    ("ValidatingAdmissionPolicy", Here::Yes),
    ("ValidatingAdmissionWebhook", Here::Yes),
];

fn find(name: &str) -> Option<Here> {
    PLUGINS.iter().find(|(known, _)| *known == name).map(|(_, here)| *here)
}

impl Options {
    /// Whether a plugin is to run.
    pub fn runs_plugin(&self, name: &str, by_default: bool) -> bool {
        let named = |list: &[String]| list.iter().any(|one| one == name);
        if self.admission_control.iter().any(|name| !name.is_empty()) {
            return named(&self.admission_control);
        }
        (by_default || named(&self.enable_admission_plugins)) && !named(&self.disable_admission_plugins)
    }
}

/// One line a problem: upstream's words for names that are none or stand on both sides, ours for what is not built.
pub(super) fn problems(options: &Options) -> Vec<String> {
    let given = |list: &'static str| {
        let names = match list {
            "enable-admission-plugins" => &options.enable_admission_plugins,
            "disable-admission-plugins" => &options.disable_admission_plugins,
            _ => &options.admission_control,
        };
        names.iter().map(String::as_str).filter(|name| !name.is_empty())
    };
    let lists = ["admission-control", "enable-admission-plugins", "disable-admission-plugins"];
    let mut errors = Vec::new();
    for list in lists {
        for name in given(list) {
            match find(name) {
                None => errors.push(format!("{list} plugin {name:?} is unknown")),
                // What is not built is as good as disabled.
                Some(Here::No) if list != "disable-admission-plugins" => {
                    errors.push(format!("--{list}: {name} is not implemented by Coracle yet; remove it"));
                }
                Some(_) => {}
            }
        }
    }
    let [all, on, off] = lists;
    if given(all).next().is_some() && given(on).chain(given(off)).next().is_some() {
        errors.push(
            "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive"
                .to_owned(),
        );
    }
    let mut both: Vec<&str> = given(on).filter(|name| given(off).any(|other| other == *name)).collect();
    both.sort_unstable();
    both.dedup();
    if !both.is_empty() {
        errors.push(format!(
            "[{}] in enable-admission-plugins and disable-admission-plugins overlapped",
            both.join(" ")
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::NOT_IMPLEMENTED;

    fn options(args: &[&str]) -> Options {
        let args = ["kube-apiserver", "--etcd-servers=http://127.0.0.1:2379"].iter().chain(args);
        component_base::flags::try_parse_from(args.map(Into::into), NOT_IMPLEMENTED).expect("parses")
    }

    fn said(args: &[&str]) -> Vec<String> {
        problems(&options(args))
    }

    #[test]
    fn names_are_those_of_upstream() {
        assert!(PLUGINS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(
            said(&["--enable-admission-plugins=NoSuch,NodeRestriction,", "--disable-admission-plugins=Nor"]),
            [
                "enable-admission-plugins plugin \"NoSuch\" is unknown",
                "disable-admission-plugins plugin \"Nor\" is unknown"
            ]
        );
        assert_eq!(
            said(&[
                "--enable-admission-plugins=Priority,LimitRanger",
                "--disable-admission-plugins=LimitRanger,Priority"
            ]),
            ["[LimitRanger Priority] in enable-admission-plugins and disable-admission-plugins overlapped"]
        );
        assert_eq!(
            said(&["--admission-control=Priority", "--enable-admission-plugins=Priority"]),
            [
                "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive"
            ]
        );
    }

    #[test]
    fn what_is_not_built_may_only_be_disabled() {
        assert_eq!(
            said(&["--enable-admission-plugins=EventRateLimit"]),
            ["--enable-admission-plugins: EventRateLimit is not implemented by Coracle yet; remove it"]
        );
        assert!(said(&["--disable-admission-plugins=EventRateLimit"]).is_empty());
        assert!(said(&["--enable-admission-plugins=MutatingAdmissionPolicy"]).is_empty());
    }

    #[test]
    fn the_old_flag_names_all_that_run() {
        let some = options(&["--admission-control=NodeRestriction"]);
        assert!(some.runs_plugin("NodeRestriction", false) && !some.runs_plugin("LimitRanger", true));
        let usual = options(&[
            "--enable-admission-plugins=NodeRestriction",
            "--disable-admission-plugins=LimitRanger",
        ]);
        assert!(usual.runs_plugin("NodeRestriction", false) && !usual.runs_plugin("LimitRanger", true));
        assert!(usual.runs_plugin("Priority", true) && !usual.runs_plugin("AlwaysDeny", false));
    }
}
