//! A DaemonSet's rolling update: which old pods go, and on which nodes a new one may run beside the old one.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::RollingUpdateDaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Look, Plan};
use crate::deployment::numbers::scaled;
use crate::pod_state::{is_available, is_terminating};

/// How far an update may go at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub surge: usize,
    pub unavailable: usize,
}

/// Both round up. Never both 0, for then nothing could move.
pub(super) fn limits(rolling: Option<&RollingUpdateDaemonSet>, desired: usize) -> Limits {
    let total = i32::try_from(desired).unwrap_or(i32::MAX);
    let number = |value: Option<&IntOrString>, default: i32| {
        let number = value.map_or(default, |value| scaled(Some(value), total, true));
        usize::try_from(number).unwrap_or(0)
    };
    let surge = number(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
    let unavailable = number(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), 1);
    if surge == 0 && unavailable == 0 && desired > 0 {
        return Limits { surge, unavailable: 1 };
    }
    Limits { surge, unavailable }
}

/// A node's new pod and its old one.
type Pair<'p> = (Option<&'p Arc<Pod>>, Option<&'p Arc<Pod>>);

/// The new and the old pod of a node; `None` if there are several of one kind, which is put right first.
fn pair<'p>(look: &Look<'_>, pods: &'p [Arc<Pod>]) -> Option<Pair<'p>> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
        let place = if look.is_updated(pod) { &mut new } else { &mut old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

impl Look<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.min_ready_seconds(), self.now)
    }

    pub(super) fn roll(&self, plan: &mut Plan) {
        let limits = self.limits();
        if limits.surge == 0 {
            self.replace(limits.unavailable, plan);
        } else {
            self.surge(limits.surge, plan);
        }
    }

    /// Old pods go first, as many as may be unavailable. One that is unavailable anyway does not count.
    fn replace(&self, unavailable_max: usize, plan: &mut Plan) {
        let (mut unavailable, mut broken, mut candidates) = (0, Vec::new(), Vec::new());
        for pods in self.by_node.values() {
            match pair(self, pods) {
                None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
                Some((Some(new), None)) => unavailable += usize::from(!self.is_available(new)),
                Some((None, Some(old))) if !self.is_available(old) => {
                    broken.push(Arc::clone(old));
                    unavailable += 1;
                }
                Some((None, Some(old))) => candidates.push(Arc::clone(old)),
            }
        }
        let room = unavailable_max.saturating_sub(unavailable);
        plan.delete = broken;
        plan.delete.extend(candidates.into_iter().take(room));
    }

    /// New pods come beside old ones, as many as may be too many; an old one goes when its new one is available.
    fn surge(&self, surge_max: usize, plan: &mut Plan) {
        let (mut surging, mut available) = (0, 0);
        let (mut allowed, mut candidates, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
        for (node, pods) in &self.by_node {
            let Some((new, old)) = pair(self, pods) else {
                surging += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            match (new, old) {
                (_, None) => {}
                (None, Some(old)) => {
                    let belongs = self.belongs(node).is_some_and(|belongs| belongs.should_run);
                    match (belongs, self.is_available(old)) {
                        (false, false) => plan.delete.push(Arc::clone(old)),
                        (false, true) => misplaced.push(Arc::clone(old)),
                        (true, false) => allowed.push(node.clone()),
                        (true, true) => candidates.push(node.clone()),
                    }
                }
                (Some(new), Some(_)) if !self.is_available(new) => surging += 1,
                (Some(_), Some(old)) => plan.delete.push(Arc::clone(old)),
            }
        }
        // Pods on nodes where they do not belong any more go only as others become available.
        let spare = available.saturating_sub(self.desired);
        plan.delete.extend(misplaced.into_iter().take(spare));
        plan.create = allowed;
        plan.create.extend(candidates.into_iter().take(surge_max.saturating_sub(surging)));
    }
}
