//! When to stand for election without waiting for the whole election timeout: at start, and when the leader's process is known to be gone.
//!
//! Members take turns by rank, so that two rarely stand at once. It costs nothing in safety: pre-vote lets nobody disturb a leader that
//! others still hear. After an election timeout without success the library's own timeouts are left to decide. Never here: the library.

/// Ticks between the first tries of members next in rank.
const TICKS_BETWEEN_RANKS: u32 = 2;

/// Impatience for a leader.
#[derive(Clone, Copy, Debug)]
pub struct Eagerness {
    rank: u32,
    members: u32,
    ticks: u32,
    ticks_max: u32,
}

impl Eagerness {
    /// Of member `own` among `voters`, without the one that is gone, for an election timeout.
    pub fn new(own: u64, voters: &[u64], gone: Option<u64>, election_ticks: usize) -> Self {
        let others = || voters.iter().filter(|id| Some(**id) != gone);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            rank: number(others().filter(|id| **id < own).count()),
            members: number(others().count()).max(1),
            ticks: 0,
            ticks_max: number(election_ticks),
        }
    }

    /// Whether this member goes first.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// A tick has passed without a leader: whether to stand for election now. `None` when patience is called for from now on.
    pub fn tick(&mut self) -> Option<bool> {
        self.ticks += 1;
        if self.ticks > self.ticks_max {
            return None;
        }
        let turn = 1 + self.rank * TICKS_BETWEEN_RANKS;
        let round = self.members * TICKS_BETWEEN_RANKS;
        Some(self.ticks >= turn && (self.ticks - turn).is_multiple_of(round))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns_until_patience_is_called_for() {
        let turns = |own| {
            let mut eagerness = Eagerness::new(own, &[30, 10, 20], Some(20), 10);
            let stood: Vec<u32> = (1..=10).filter(|_| eagerness.tick() == Some(true)).collect();
            assert_eq!(eagerness.tick(), None);
            stood
        };
        assert_eq!(turns(10), [1, 5, 9]);
        assert_eq!(turns(30), [3, 7]);
    }
}
