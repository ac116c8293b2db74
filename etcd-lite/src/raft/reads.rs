//! Linearizable reads that wait for the leader's word: whoever asks in one round is put together into one question.
//!
//! Questions get lost (a lost message, a leader that changes or is too new to know what is committed), so the latest is put again after a
//! while; an answer covers everyone who asked before its question was put. Pure.

use std::collections::VecDeque;

use etcd_lite_core::mutant;

/// Ticks without an answer after which the question is put again.
const RETRY_TICKS: u32 = 2;
/// Questions under way; who asks meanwhile goes into the next.
const QUESTIONS_MAX: usize = 4;

/// Reads that wait, each with an `A` to be answered.
#[derive(Debug)]
pub struct Reads<A> {
    fresh: Vec<A>,
    /// Number of the first question put for them, and who waits.
    asked: VecDeque<(u64, Vec<A>)>,
    last_number: u64,
    ticks_silent: u32,
}

impl<A> Default for Reads<A> {
    fn default() -> Self {
        Self { fresh: Vec::new(), asked: VecDeque::new(), last_number: 0, ticks_silent: 0 }
    }
}

impl<A> Reads<A> {
    /// Somebody wants to read.
    pub fn add(&mut self, reader: A) {
        self.fresh.push(reader);
    }

    /// Time passes. Readers who gave up are forgotten.
    pub fn tick(&mut self, gave_up: impl Fn(&A) -> bool) {
        self.ticks_silent += 1;
        self.fresh.retain(|reader| !gave_up(reader));
        self.asked.iter_mut().for_each(|(_, readers)| readers.retain(|reader| !gave_up(reader)));
        self.asked.retain(|(_, readers)| !readers.is_empty());
    }

    /// Whoever was asked may not answer any more: put the question again now.
    pub fn leader_changed(&mut self) {
        self.ticks_silent = RETRY_TICKS;
    }

    /// The number of the question to be put now, if there is one.
    pub fn next_question(&mut self) -> Option<u64> {
        let is_new = !self.fresh.is_empty() && self.asked.len() < QUESTIONS_MAX;
        let is_repeated = !self.asked.is_empty() && self.ticks_silent >= RETRY_TICKS;
        if !is_new && !is_repeated {
            return None;
        }
        self.last_number += 1;
        if is_new {
            self.asked.push_back((self.last_number, std::mem::take(&mut self.fresh)));
        }
        if is_repeated || self.asked.len() == 1 {
            self.ticks_silent = 0;
        }
        Some(self.last_number)
    }

    /// The answer to a question: who may go on.
    pub fn answered(&mut self, number: u64) -> Vec<A> {
        self.ticks_silent = 0;
        let mut readers = Vec::new();
        while self.asked.front().is_some_and(|(first, _)| *first <= number || mutant!(AnswersLaterReads)) {
            readers.extend(self.asked.pop_front().into_iter().flat_map(|(_, some)| some));
        }
        readers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(reads: &mut Reads<u32>, reader: u32) -> Option<u64> {
        reads.add(reader);
        reads.next_question()
    }

    #[test]
    fn an_answer_is_for_those_who_asked_before_its_question() {
        let mut reads = Reads::default();
        assert_eq!(reads.next_question(), None);
        assert_eq!(
            (ask(&mut reads, 10), ask(&mut reads, 11), ask(&mut reads, 12)),
            (Some(1), Some(2), Some(3))
        );
        assert_eq!(reads.answered(2), [10, 11]);
        assert_eq!(reads.answered(1), [] as [u32; 0]);
        assert_eq!(reads.answered(3), [12]);
    }

    #[test]
    fn who_comes_while_many_questions_are_under_way_goes_into_the_next() {
        let mut reads = Reads::default();
        for reader in 1..=4 {
            assert!(ask(&mut reads, reader).is_some());
        }
        assert_eq!((ask(&mut reads, 5), ask(&mut reads, 6)), (None, None));
        assert_eq!(reads.answered(1), [1]);
        assert_eq!(reads.next_question(), Some(5));
        assert_eq!(reads.answered(5), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_lost_question_is_put_again_and_either_answer_counts() {
        let mut reads = Reads::default();
        assert_eq!(ask(&mut reads, 1), Some(1));
        reads.tick(|_| false);
        assert_eq!(reads.next_question(), None);
        reads.tick(|_| false);
        assert_eq!(reads.next_question(), Some(2));
        reads.leader_changed();
        assert_eq!(reads.next_question(), Some(3));
        assert_eq!(reads.next_question(), None);
        assert_eq!(reads.answered(1), [1]);
        assert_eq!(ask(&mut reads, 2), Some(4));
        reads.tick(|_| true);
        reads.leader_changed();
        assert_eq!(reads.next_question(), None, "nobody waits any more");
    }
}
