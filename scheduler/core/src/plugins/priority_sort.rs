//! PrioritySort: pods of higher priority first, then those that have waited longer.

use std::cmp::Reverse;
use std::time::Duration;

use crate::pod_info::PodInfo;

/// The plugin's name.
pub const NAME: &str = "PrioritySort";

/// The place of a pod in the queue; the smallest comes first.
pub type Place = (Reverse<i32>, Duration);

/// The place of a pod that was added at `added`.
pub fn place(pod: &PodInfo, added: Duration) -> Place {
    (Reverse(pod.priority), added)
}
