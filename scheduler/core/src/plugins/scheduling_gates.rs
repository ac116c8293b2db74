//! SchedulingGates: a pod with `spec.schedulingGates` does not enter the queue.

use crate::pod_info::PodToSchedule;

/// The plugin's name.
pub const NAME: &str = "SchedulingGates";

/// Why the pod has to stay out, if it has to.
pub fn blocked(pod: &PodToSchedule) -> Option<String> {
    let gates = pod.gates();
    (!gates.is_empty()).then(|| format!("waiting for scheduling gates: [{}]", gates.join(" ")))
}
