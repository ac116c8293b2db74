//! Who controls an object is, or was, there; what adopts is there at that moment; there is one controller.

use std::time::Duration;

use super::{Invariant, Step};
use crate::object::{controller, list, text, uid};

/// Remembers nothing but its allowance.
pub struct Owners {
    /// Between asking whether the adopter is still there and the write that adopts.
    pub adoption_max: Duration,
}

const KINDS: [&str; 7] =
    ["ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController"];

impl Invariant for Owners {
    fn name(&self) -> &'static str {
        "OwnersExist"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        let Some(new) = step.new else { return Vec::new() };
        let Some((kind, owner)) = controller(new).filter(|(kind, _)| KINDS.contains(kind)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let owners = list(new, &["metadata", "ownerReferences"]);
        let controllers: Vec<_> = owners
            .iter()
            .filter(|owner| owner["controller"] == true)
            .map(|owner| text(owner, &["uid"]))
            .collect();
        if controllers.len() > 1 {
            found.push(format!("it has several controllers: {}", controllers.join(", ")));
        }
        if step.old.and_then(controller).is_some_and(|(_, before)| before == owner) {
            return found;
        }
        let Some(life) = step.state.life(owner) else {
            found
                .push(format!("it is controlled by the {kind} with uid {owner}, which has never been there"));
            return found;
        };
        let adopted = step.old.is_some_and(|old| uid(old) == uid(new));
        if let Some(gone) = life.gone.filter(|_| adopted) {
            let since = step.change.at.saturating_sub(gone);
            if since > self.adoption_max {
                found.push(format!(
                    "it was adopted by the {kind} with uid {owner}, which has been gone for {since:?}"
                ));
            }
        }
        found
    }
}
