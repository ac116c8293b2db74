//! Says why removing pods of lower priority would not help, in the words of upstream's DefaultPreemption. Nothing is preempted
//! yet; where preemption might help, it says nothing rather than something untrue.

use std::borrow::Cow;

use crate::fit_error::{FitError, histogram};
use crate::framework::Cycle;

/// The explanation for a pod that found no node.
pub fn explain(cycle: Cycle<'_>, error: &FitError) -> Option<String> {
    let pod = cycle.pod;
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Some("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let mut without_victims = 0;
    for (name, rejection) in &error.rejected {
        if !rejection.resolvable {
            continue;
        }
        let node = cycle.snapshot.node(name)?;
        if node.pods.iter().any(|there| there.priority < pod.info.priority) {
            return None;
        }
        without_victims += 1;
    }
    let reasons = [
        (Cow::Borrowed("No preemption victims found for incoming pod"), without_victims),
        (Cow::Borrowed("Preemption is not helpful for scheduling"), error.node_count - without_victims),
    ];
    let text = histogram(error.node_count, reasons.into_iter().filter(|(_, count)| *count > 0));
    Some(format!("preemption: {text}"))
}
