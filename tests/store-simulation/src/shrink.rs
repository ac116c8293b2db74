//! Finds a short run that fails in the same way: fewer faults, fewer clients, fewer operations.

use store_checker::Violation;

use crate::plan::Plan;

/// What is left out of a seed's run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Less {
    /// Faults by their place in the plan.
    pub faults: Vec<usize>,
    /// Clients left, if fewer.
    pub clients: Option<u64>,
    /// Watchers left, if fewer.
    pub watchers: Option<u64>,
    /// Operations of each client, if fewer.
    pub operations: Option<u64>,
    /// Whether no message is lost, repeated or late.
    pub good_network: bool,
}

impl Less {
    /// The seed's plan without that.
    pub fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::new(seed);
        let mut number = 0;
        plan.faults.retain(|_| {
            number += 1;
            !self.faults.contains(&(number - 1))
        });
        plan.clients = self.clients.unwrap_or(plan.clients);
        plan.watchers = self.watchers.unwrap_or(plan.watchers);
        plan.operations = self.operations.unwrap_or(plan.operations);
        if self.good_network {
            (plan.lost, plan.repeated, plan.late) = (0, 0, 0);
        }
        plan
    }

    /// The arguments that say it.
    pub fn arguments(&self) -> String {
        let mut text = String::new();
        if !self.faults.is_empty() {
            let faults: Vec<String> = self.faults.iter().map(usize::to_string).collect();
            text.push_str(&format!(" --without-faults {}", faults.join(",")));
        }
        for (name, value) in
            [("clients", self.clients), ("watchers", self.watchers), ("operations", self.operations)]
        {
            if let Some(value) = value {
                text.push_str(&format!(" --{name} {value}"));
            }
        }
        if self.good_network {
            text.push_str(" --good-network");
        }
        text
    }
}

/// The shortest run found that breaks the same rule, within so many tries.
pub fn shrink(seed: u64, found: &Violation, tries_max: usize) -> (Less, Violation) {
    let (mut best, mut violation) = (Less::default(), found.clone());
    let mut tries = 0;
    let mut attempt = |less: Less, best: &mut Less, violation: &mut Violation| {
        tries += 1;
        if tries > tries_max {
            return false;
        }
        match crate::run(&less.plan(seed), false).violation {
            Some(again) if again.rule == found.rule => {
                (*best, *violation) = (less, again);
                true
            }
            _ => false,
        }
    };
    let whole = Plan::new(seed);
    attempt(Less { good_network: true, ..best.clone() }, &mut best, &mut violation);
    attempt(Less { watchers: Some(0), ..best.clone() }, &mut best, &mut violation);
    for number in (0..whole.faults.len()).rev() {
        let mut less = best.clone();
        less.faults.push(number);
        attempt(less, &mut best, &mut violation);
    }
    for clients in 1..whole.clients {
        if attempt(Less { clients: Some(clients), ..best.clone() }, &mut best, &mut violation) {
            break;
        }
    }
    let (mut low, mut high) = (0, whole.operations);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if attempt(Less { operations: Some(middle), ..best.clone() }, &mut best, &mut violation) {
            high = middle;
        } else {
            low = middle;
        }
    }
    best.faults.sort_unstable();
    (best, violation)
}
