//! What `/debug/api_priority_and_fairness/…` shows: tables of text for people. Reads only.

use std::fmt::Write;

use super::FlowControl;

/// The table that a path asks for, if it is one of these.
pub fn dump(control: &FlowControl, path: &str) -> Option<String> {
    match path.strip_prefix("/debug/api_priority_and_fairness/")? {
        "dump_priority_levels" => Some(priority_levels(control)),
        "dump_queues" => Some(queues(control)),
        _ => None,
    }
}

fn priority_levels(control: &FlowControl) -> String {
    let mut out = String::from(
        "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests\n",
    );
    for (name, level) in &control.current().levels {
        // Writing to a String cannot fail.
        let _ = if level.spec.exempt {
            writeln!(out, "{name}, <none>, <none>, <none>, <none>, <none>, <none>, <none>, <none>, <none>")
        } else {
            let state = level.state.lock();
            let (running, _, waiting) = state.queues.load();
            let active =
                state.queues.views().iter().filter(|queue| queue.waiting + queue.running > 0).count();
            let tally = state.tally;
            writeln!(
                out,
                "{name}, {active}, {}, false, {waiting}, {running}, {}, {}, {}, {}",
                running + waiting == 0,
                tally.dispatched,
                tally.rejected,
                tally.timed_out,
                tally.cancelled
            )
        };
    }
    out
}

fn queues(control: &FlowControl) -> String {
    let mut out = String::from(
        "PriorityLevelName, Index, PendingRequests, ExecutingRequests, SeatsInUse, NextDispatchR, InitialSeatsSum, MaxSeatsSum, TotalWorkSum\n",
    );
    for (name, level) in control.current().levels.iter().filter(|(_, level)| !level.spec.exempt) {
        for (index, queue) in level.state.lock().queues.views().iter().enumerate() {
            let _ = writeln!(
                out,
                "{name}, {index}, {}, {}, {}, {:.8}ss, {seats}, {seats}, {:.8}ss",
                queue.waiting,
                queue.running,
                queue.running_seats,
                queue.next_start,
                queue.waiting_work,
                seats = queue.waiting_seats,
            );
        }
    }
    out
}
