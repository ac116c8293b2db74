//! Who waits for which command of this member to be applied.

use std::collections::HashMap;

use etcd_lite_core::{Response, StoreError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The answer of the state machine.
pub type Answer = Result<Response, StoreError>;

/// Waiting proposals by command id.
#[derive(Default)]
pub struct Waiters {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
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
        self.waiters.waiting.lock().remove(&self.id);
    }
}

impl Waiters {
    /// Waits for a command.
    pub fn enter(&self, id: u64) -> Place<'_> {
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        Place { waiters: self, id, answer }
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Gives the answers of applied commands to whoever waits here; most commands of other members have nobody.
    pub fn answer(&self, answers: Vec<(u64, Answer)>) {
        let mut waiting = self.waiting.lock();
        for (id, answer) in answers {
            if let Some(sender) = waiting.remove(&id) {
                // The asker may have given up just now.
                let _ = sender.send(answer);
            }
        }
    }
}
