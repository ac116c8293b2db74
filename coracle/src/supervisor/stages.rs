//! Starts come in stages: stores and runtimes, then API servers, then everything that talks to them. Each stage opens as
//! soon as the one before serves, so that nobody starts into a wall of refused connections.

use std::time::Duration;

use super::Shared;
use crate::probe;
use crate::topology::{Component, Process};

/// A stage that does not come up is no reason to hold back the next one for ever: it may need the later parts.
const STAGE_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Opens the stages one after another.
pub async fn advance(shared: Shared) {
    for (component, needed) in [(Component::EtcdLite, 2), (Component::ApiServer, 1)] {
        let members: Vec<&Process> =
            shared.topology.processes.iter().filter(|p| p.component == component).collect();
        let deadline = tokio::time::Instant::now() + STAGE_DEADLINE;
        loop {
            let mut serving = 0;
            for member in &members {
                if probe::is_serving(member, &shared.layout).await {
                    serving += 1;
                }
            }
            if serving >= needed.min(members.len()) {
                break;
            }
            if tokio::time::Instant::now() >= deadline {
                tracing::warn!(
                    component = component.binary(),
                    serving,
                    needed,
                    "does not serve yet; starting the rest anyway"
                );
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        shared.stage.send_modify(|stage| *stage += 1);
    }
}
