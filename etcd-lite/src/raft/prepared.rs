//! State that consensus asked for on behalf of members that lag, until the message that announces it is sent.

use std::collections::HashMap;

use parking_lot::Mutex;
use raft::eraftpb::Message;

/// What goes with the snapshot messages under way, at most one for each receiver.
///
/// Consensus may announce a snapshot to a member again before the first announcement has left. Only the state that was asked for last is kept, and
/// it goes with its own announcement: a member must never file it under the index of another.
#[derive(Debug)]
pub struct Prepared<T> {
    by_receiver: Mutex<HashMap<u64, (u64, T)>>,
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Self { by_receiver: Mutex::default() }
    }
}

impl<T> Prepared<T> {
    /// Keeps the state at `index` for a member, in place of an earlier one.
    pub fn keep(&self, to: u64, index: u64, state: T) {
        self.by_receiver.lock().insert(to, (index, state));
    }

    /// The state that a snapshot message announces. `None` if another message has taken it or if a later one will take its place; then this one
    /// need not be sent.
    pub fn take(&self, message: &Message) -> Option<T> {
        let index = message.get_snapshot().get_metadata().index;
        let mut all = self.by_receiver.lock();
        let (kept, state) = all.remove(&message.to)?;
        if kept == index {
            return Some(state);
        }
        all.insert(message.to, (kept, state));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(to: u64, index: u64) -> Message {
        let mut message = Message { to, ..Message::default() };
        message.mut_snapshot().mut_metadata().index = index;
        message
    }

    #[test]
    fn a_state_goes_with_its_own_announcement_once() {
        let prepared = Prepared::default();
        prepared.keep(2, 7, "at 7");
        prepared.keep(3, 7, "for another");
        prepared.keep(2, 9, "at 9");
        assert_eq!(prepared.take(&announcement(2, 7)), None, "a later one is under way");
        assert_eq!(prepared.take(&announcement(2, 9)), Some("at 9"));
        assert_eq!(prepared.take(&announcement(2, 9)), None, "announced twice");
        assert_eq!(prepared.take(&announcement(3, 7)), Some("for another"));
    }
}
