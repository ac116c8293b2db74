//! Which node should run a pod: the deciding half of the scheduler. Owns the queue's rules ([`queue`]), the picture of the
//! cluster ([`snapshot`]) and the choice itself ([`schedule`]), made by plugins ([`framework`], [`plugins`]) under the names, weights
//! and texts of kube-scheduler's. It never does IO, has no clock and no randomness of its own: `now` and seeds are arguments.
//!
//! ```text
//! queue.pop(now) -> PodToSchedule --schedule(profile, pod, snapshot, seed)--> Decision
//!      ^                                                                        | Assigned: snapshot.place(pod, node), bind
//!      +------ queue.unschedulable(uid, plugins, now) <------ Unschedulable ----+
//! cluster changes: snapshot.set_node / place / remove_pod, then queue.notify(event, now)
//! ```

pub mod disruption_budgets;
pub mod domain_counts;
pub mod extender;
pub mod filtering;
pub mod fit_error;
pub mod framework;
pub mod gangs;
pub mod label_selector;
pub mod mutants;
pub mod node_info;
pub mod node_selector;
pub mod nominations;
pub mod plugins;
pub mod pod_affinity;
pub mod pod_index;
pub mod pod_info;
pub mod preemption;
pub mod profile;
pub mod queue;
pub mod queue_events;
pub mod resources;
pub mod schedule;
pub mod snapshot;
pub mod spread_defaults;
pub mod term_index;
#[cfg(test)]
mod testing;
pub mod topology;
pub mod volumes;
pub mod why;
