//! `Maintenance.Downgrade`: which version a cluster could go back to, as etcd 3.5 answers it. There is no earlier etcd-lite to go back to, and
//! etcd 3.4 cannot read this one's files, so a downgrade that could begin is refused. Never here: state.

use coracle_proto::etcdserverpb::downgrade_request::DowngradeAction;
use tonic::Status;

/// Answers a request to a cluster of this version (`None`: not decided yet) with that version.
///
/// # Errors
/// In etcd's words; `UNIMPLEMENTED` where etcd would begin.
pub(super) fn answer(action: i32, target: &str, cluster: Option<&str>) -> Result<String, Status> {
    match DowngradeAction::try_from(action) {
        Ok(DowngradeAction::Validate) => validate(target, cluster),
        Ok(DowngradeAction::Enable) => {
            validate(target, cluster)?;
            Err(Status::unimplemented(
                "etcdserver: the cluster cannot be downgraded: etcd 3.4 does not read this store's files; restore a snapshot there",
            ))
        }
        Ok(DowngradeAction::Cancel) => {
            Err(Status::failed_precondition("etcdserver: no inflight downgrade job"))
        }
        Err(_) => Err(Status::unknown("etcdserver: unknown method")),
    }
}

/// A cluster goes back by one minor version, whatever its patch.
fn validate(target: &str, cluster: Option<&str>) -> Result<String, Status> {
    let wrong_format = || Status::invalid_argument("etcdserver: wrong downgrade target version format");
    let target = minor(target).ok_or_else(wrong_format)?;
    let cluster = cluster
        .ok_or_else(|| Status::unavailable("etcdserver: cluster version not found during downgrade"))?;
    let is_next =
        minor(cluster).is_some_and(|(major, minor)| Some(target) == minor.checked_sub(1).map(|n| (major, n)));
    if is_next {
        Ok(cluster.to_owned())
    } else {
        Err(Status::invalid_argument("etcdserver: invalid downgrade target version"))
    }
}

/// Major and minor of `3.4` or `3.4.0` with whatever may follow.
fn minor(text: &str) -> Option<(u64, u64)> {
    let text = text.split(['-', '+']).next()?;
    let numbers: Vec<u64> = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    match numbers[..] {
        [major, minor] | [major, minor, _] => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_judged_as_etcd_judges_them() {
        let validate = |target| validate(target, Some("3.5.0")).map_err(|status| status.message().to_owned());
        for target in ["3.4", "3.4.0", "3.4.7", "03.4.0", "3.4.0-rc.1"] {
            assert_eq!(validate(target), Ok("3.5.0".to_owned()), "{target}");
        }
        for target in ["3.3.0", "3.5.0", "4.4"] {
            assert_eq!(
                validate(target),
                Err("etcdserver: invalid downgrade target version".to_owned()),
                "{target}"
            );
        }
        for target in ["", "x", "3", "v3.4.0", "3.x.0", "3.4.0.0"] {
            let refusal = "etcdserver: wrong downgrade target version format";
            assert_eq!(validate(target), Err(refusal.to_owned()), "{target}");
        }
    }
}
