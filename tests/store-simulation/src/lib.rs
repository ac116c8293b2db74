//! A cluster of etcd-lite in one thread under one seed: virtual time, a network that loses, delays, repeats, reorders and parts, disks that lose and
//! tear writes, members that crash at every step and that stand still, clients that read, write and watch. The members are the real code without its
//! threads: consensus, driver, applier, store, lease timers, watch machinery, the log's bytes. What clients saw is judged by `store-checker`.
//!
//! See docs/simulation.md. Never here: real time, real files, real connections.

pub mod disk;
pub mod member;
pub mod plan;
pub mod shrink;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use store_checker::{Rule, Violation};

use plan::Plan;
use world::{Finished, Stats};

/// Runs a plan; a panic of the store counts as a failure.
pub fn run(plan: &Plan, is_verbose: bool) -> Finished {
    let own = plan.clone();
    catch_unwind(AssertUnwindSafe(|| world::run(own, is_verbose))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        Finished { stats: Stats::default(), trace: 0, violation: Some(Violation::new(Rule::NoPanic, text)) }
    })
}
