//! Who waits for which command of this member to be applied.

use std::collections::HashMap;

use etcd_lite_core::Response;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::member::ProposeError;

/// The answer of the state machine, or why there will be none.
pub type Answer = Result<Response, ProposeError>;

struct Waiter {
    sender: oneshot::Sender<Answer>,
    /// The term in which the command went into the log or to the leader; 0 before that.
    term: u64,
}

/// Waiting proposals by command id.
#[derive(Default)]
pub struct Waiters {
    waiting: Mutex<HashMap<u64, Waiter>>,
}

/// A place among the waiters, given up when dropped.
pub struct Place<'a> {
    waiters: &'a Waiters,
    id: u64,
    /// Gets the answer.
    pub answer: oneshot::Receiver<Answer>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiters.give_up(self.id);
    }
}

impl Waiters {
    /// Waits for a command.
    pub fn enter(&self, id: u64) -> Place<'_> {
        Place { waiters: self, id, answer: self.wait(id) }
    }

    /// Waits for a command until [`Waiters::give_up`].
    pub fn wait(&self, id: u64) -> oneshot::Receiver<Answer> {
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(id, Waiter { sender, term: 0 });
        answer
    }

    /// Nobody waits for this command any more.
    pub fn give_up(&self, id: u64) {
        self.waiting.lock().remove(&id);
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Gives the answers of applied commands to whoever waits here; most commands of other members have nobody.
    pub fn answer(&self, answers: Vec<(u64, Answer)>) {
        let mut waiting = self.waiting.lock();
        for (id, answer) in answers {
            if let Some(waiter) = waiting.remove(&id) {
                // The asker may have given up just now.
                let _ = waiter.sender.send(answer);
            }
        }
    }

    /// These commands went into the log, or to the leader.
    pub fn proposed(&self, ids: &[u64], term: u64) {
        let mut waiting = self.waiting.lock();
        for id in ids {
            if let Some(waiter) = waiting.get_mut(id) {
                waiter.term = term;
            }
        }
    }

    /// The first entry of the leader of `term` is applied. What was proposed in earlier terms and is not applied by now was lost on the way, or,
    /// rarely, still is on its way: waiting longer is of no use.
    pub fn leader_began(&self, term: u64) {
        let mut waiting = self.waiting.lock();
        for (_, waiter) in waiting.extract_if(|_, waiter| waiter.term != 0 && waiter.term < term) {
            let _ = waiter.sender.send(Err(ProposeError::LeaderChanged));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leaders_first_entry_ends_the_wait_for_what_the_old_one_lost() {
        let waiters = Waiters::default();
        let [mut old, mut new, mut held] = [1, 2, 3].map(|id| waiters.enter(id));
        waiters.proposed(&[1], 4);
        waiters.proposed(&[2], 5);
        waiters.leader_began(5);
        assert_eq!(old.answer.try_recv().expect("an answer"), Err(ProposeError::LeaderChanged));
        assert!(new.answer.try_recv().is_err() && held.answer.try_recv().is_err());
        waiters.answer(vec![(2, Ok(Response::Done)), (9, Ok(Response::Done))]);
        assert_eq!(new.answer.try_recv().expect("an answer"), Ok(Response::Done));
        assert_eq!(waiters.count(), 1);
    }
}
