//! A bounded memory of answers, each good for a time: what others were asked is not asked again at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Answers by question.
pub struct Recent<K, V> {
    most: usize,
    known: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Remembers at most this many answers.
    pub fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// The answer, while it is good.
    pub fn get(&self, question: &K) -> Option<V> {
        let known = self.known.lock();
        let (until, answer) = known.get(question)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    /// Remembers an answer for a time. When there are too many, those that are no longer good go, and if there are none of them, all.
    pub fn put(&self, question: K, answer: V, time: Duration) {
        let now = Instant::now();
        let Some(until) = now.checked_add(time).filter(|until| *until > now) else { return };
        let mut known = self.known.lock();
        if known.len() >= self.most {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() >= self.most {
            known.clear();
        }
        known.insert(question, (until, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_good_for_their_time_and_never_too_many() {
        let recent = Recent::new(2);
        recent.put("a", 1, Duration::ZERO);
        assert_eq!(recent.get(&"a"), None);
        for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
            recent.put(key, value, Duration::from_secs(60));
            assert_eq!(recent.get(&key), Some(value));
        }
        assert!(recent.known.lock().len() <= 2);
    }
}
