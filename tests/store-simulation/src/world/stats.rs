//! What runs go through, counted.

/// What a run went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub operations: usize,
    pub answered: usize,
    pub unknown: usize,
    pub revisions: usize,
    pub expirations: usize,
    pub watched: usize,
    pub crashes: usize,
    pub snapshots_installed: usize,
    pub terms: usize,
    pub faults: usize,
    pub refused_starts: usize,
    pub happenings: usize,
}

impl seed_runner::seeds::Stats for Stats {
    fn add(&mut self, more: &Self) {
        self.operations += more.operations;
        self.answered += more.answered;
        self.unknown += more.unknown;
        self.revisions += more.revisions;
        self.expirations += more.expirations;
        self.watched += more.watched;
        self.crashes += more.crashes;
        self.snapshots_installed += more.snapshots_installed;
        self.terms += more.terms;
        self.faults += more.faults;
        self.refused_starts += more.refused_starts;
        self.happenings += more.happenings;
    }
}
