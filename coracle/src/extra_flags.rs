//! Flags that `up --component-flag` gives to components beside those that follow from the cluster's shape. Pure.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// Whom flags can be given to.
const COMPONENTS: &[&str] =
    &["etcd-lite", "apiserver", "controller-manager", "scheduler", "kubelet", "kube-proxy", "metrics-server"];

/// Flags that a cluster has and that nothing else depends on.
const REPLACEABLE: &[&str] = &[
    "--allow-privileged",
    "--authorization-mode",
    "--enable-admission-plugins",
    "--enable-bootstrap-token-auth",
    "--metric-resolution",
    "--snapshot-count",
    "--use-service-account-credentials",
];

/// A flag for every process of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFlag {
    /// The component's program.
    component: String,
    /// `--name` or `--name=value`.
    flag: String,
}

fn name(flag: &str) -> &str {
    flag.split_once('=').map_or(flag, |(name, _)| name)
}

impl fmt::Display for ExtraFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.component, self.flag)
    }
}

impl FromStr for ExtraFlag {
    type Err = String;

    /// Reads `COMPONENT:--name=value`.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((component, flag)) = text.split_once(':') else {
            return Err("expected COMPONENT:--FLAG=VALUE, as scheduler:--v=4".to_owned());
        };
        if !COMPONENTS.contains(&component) {
            return Err(format!("{component:?} is none of {}", COMPONENTS.join(", ")));
        }
        if flag.strip_prefix("--").is_none_or(|rest| name(rest).is_empty()) {
            return Err(format!("{flag:?} is no flag; expected --NAME=VALUE"));
        }
        Ok(Self { component: component.to_owned(), flag: flag.to_owned() })
    }
}

/// Adds a component's extra flags to those that it has.
///
/// # Errors
/// A flag that the cluster's shape decides.
pub fn add(extra: &[ExtraFlag], component: &str, flags: &mut Vec<String>) -> anyhow::Result<()> {
    for extra in extra.iter().filter(|extra| extra.component == component) {
        let flag = &extra.flag;
        if flags.iter().any(|own| name(own) == name(flag)) {
            if !REPLACEABLE.contains(&name(flag)) {
                bail!("--component-flag {extra}: the cluster's own {} cannot be replaced", name(flag));
            }
            flags.retain(|own| name(own) != name(flag));
        }
        flags.push(flag.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_and_replaced_where_nothing_depends_on_them() {
        let extra: Vec<ExtraFlag> =
            ["scheduler:--v=4", "apiserver:--enable-admission-plugins=NodeRestriction,AlwaysPullImages"]
                .iter()
                .map(|text| text.parse().expect(text))
                .collect();
        let mut flags =
            vec!["--secure-port=6443".to_owned(), "--enable-admission-plugins=NodeRestriction".to_owned()];
        add(&extra, "apiserver", &mut flags).expect("added");
        assert_eq!(
            flags,
            ["--secure-port=6443", "--enable-admission-plugins=NodeRestriction,AlwaysPullImages"]
        );
        let port = ["apiserver:--secure-port=1".parse().expect("read")];
        let error = add(&port, "apiserver", &mut flags).expect_err("refused").to_string();
        assert!(error.contains("--secure-port cannot be replaced"), "{error}");
    }

    #[test]
    fn what_is_no_flag_of_a_component_is_refused() {
        for (text, named) in [
            ("--v=4", "COMPONENT:--FLAG"),
            ("containerd:--v=4", "containerd"),
            ("kubelet:v=4", "\"v=4\""),
            ("kubelet:--=4", "\"--=4\""),
        ] {
            let error = text.parse::<ExtraFlag>().expect_err(text);
            assert!(error.contains(named), "{error}");
        }
    }
}
