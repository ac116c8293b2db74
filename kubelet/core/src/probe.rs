//! Probe results from single outcomes: thresholds, and what counts before the first outcome.
//!
//! Never here: running probes or timers.

use k8s_openapi::api::core::v1::{Container, Probe};

/// Which question a probe answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Has it started? Until then the others wait.
    Startup,
    /// Does it live? If not, it is restarted.
    Liveness,
    /// May it get traffic?
    Readiness,
}

impl ProbeKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The word in events: `Readiness probe failed`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// A probe's numbers, defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Seconds from the container's start to the first probe.
    pub initial_delay_seconds: u64,
    /// Seconds between probes.
    pub period_seconds: u64,
    /// Seconds that one probe may take.
    pub timeout_seconds: u64,
    /// Successes in a row that turn failure into success.
    pub success_threshold: u32,
    /// Failures in a row that turn success into failure.
    pub failure_threshold: u32,
}

impl Timing {
    /// The numbers of a probe.
    pub fn of(probe: &Probe) -> Self {
        let at_least = |value: Option<i32>, default: u32, least: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value >= least)
                .unwrap_or(default)
        };
        Self {
            initial_delay_seconds: u64::from(at_least(probe.initial_delay_seconds, 0, 0)),
            period_seconds: u64::from(at_least(probe.period_seconds, 10, 1)),
            timeout_seconds: u64::from(at_least(probe.timeout_seconds, 1, 1)),
            success_threshold: at_least(probe.success_threshold, 1, 1),
            failure_threshold: at_least(probe.failure_threshold, 3, 1),
        }
    }
}

/// What is known from the outcomes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    result: Option<bool>,
    last: Option<bool>,
    run: u32,
}

impl ProbeState {
    /// The settled result; `None` before the first one.
    pub fn result(&self) -> Option<bool> {
        self.result
    }

    /// Takes one outcome; returns the settled result if it changed.
    pub fn observe(&mut self, success: bool, timing: &Timing) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { timing.success_threshold } else { timing.failure_threshold };
        if self.run < threshold || self.result == Some(success) {
            return None;
        }
        self.result = Some(success);
        Some(success)
    }
}

/// The settled results for one running container; `None` where there is none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// Startup.
    pub startup: Option<bool>,
    /// Liveness.
    pub liveness: Option<bool>,
    /// Readiness.
    pub readiness: Option<bool>,
}

impl ProbeResults {
    /// Sets one.
    pub fn set(&mut self, kind: ProbeKind, result: bool) {
        match kind {
            ProbeKind::Startup => self.startup = Some(result),
            ProbeKind::Liveness => self.liveness = Some(result),
            ProbeKind::Readiness => self.readiness = Some(result),
        }
    }

    /// Whether a running container counts as started.
    pub fn started(&self, container: &Container) -> bool {
        container.startup_probe.is_none() || self.startup == Some(true)
    }

    /// Whether a running container counts as ready.
    pub fn ready(&self, container: &Container) -> bool {
        self.started(container) && (container.readiness_probe.is_none() || self.readiness == Some(true))
    }

    /// The probe that says the container must be killed.
    pub fn fatal(&self) -> Option<ProbeKind> {
        if self.startup == Some(false) {
            Some(ProbeKind::Startup)
        } else if self.liveness == Some(false) {
            Some(ProbeKind::Liveness)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_outcomes_in_a_row() {
        let timing = Timing { success_threshold: 2, ..Timing::of(&Probe::default()) };
        assert_eq!(timing.failure_threshold, 3);
        let mut state = ProbeState::default();
        let outcomes = [true, true, false, false, true, false, false, false, false, true, true];
        let changes: Vec<_> = outcomes.iter().map(|outcome| state.observe(*outcome, &timing)).collect();
        let mut expected = vec![None; outcomes.len()];
        expected[1] = Some(true);
        expected[7] = Some(false);
        expected[10] = Some(true);
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_startup_probe_gates_readiness() {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "startupProbe": {}})).unwrap();
        let mut results = ProbeResults::default();
        assert!(!results.ready(&container));
        results.set(ProbeKind::Startup, true);
        assert!(results.ready(&container));
        results.set(ProbeKind::Startup, false);
        assert_eq!(results.fatal(), Some(ProbeKind::Startup));
    }
}
