//! Who changes an object once more: two rounds at most, and in the second only those who want it, if somebody changed the object after them. Pure.

use std::collections::HashSet;

use serde_json::Value;

/// What one plugin remembers of the rounds of one write: of its webhooks, or of its policies, by key.
#[derive(Default)]
pub struct Reinvocation {
    is_second: bool,
    /// Called and willing to be called again.
    called: HashSet<String>,
    /// To be called again.
    wanted: HashSet<String>,
    changed: bool,
    output: Option<Value>,
}

impl Reinvocation {
    /// Whether the object was changed, so that everything that changes objects has to see it again.
    pub fn is_needed(&self) -> bool {
        self.changed && !self.is_second
    }

    /// A round begins; in the second, what others did to the object since the first counts.
    pub fn begin(&mut self, is_second: bool, object: &Value) {
        self.is_second = is_second;
        if is_second && self.output.as_ref().is_some_and(|output| output != object) {
            self.wanted.extend(self.called.drain());
        }
    }

    /// Which round it is, from 0.
    pub fn round(&self) -> usize {
        usize::from(self.is_second)
    }

    /// Whether it is this one's turn.
    pub fn is_turn_of(&self, key: &str) -> bool {
        !self.is_second || self.wanted.contains(key)
    }

    /// Somebody changed the object: those before want to see it.
    pub fn object_changed(&mut self) {
        self.wanted.extend(self.called.drain());
        self.changed = true;
    }

    /// One that wants to be called again was called.
    pub fn was_called(&mut self, key: String) {
        self.called.insert(key);
    }

    /// The round ends, with this object.
    pub fn end(&mut self, object: &Value) {
        self.output = Some(object.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn those_are_called_again_after_whom_the_object_changed() {
        let mut rounds = Reinvocation::default();
        rounds.begin(false, &json!(0));
        assert!(rounds.is_turn_of("a"));
        rounds.was_called("a".to_owned());
        rounds.object_changed();
        rounds.was_called("b".to_owned());
        rounds.end(&json!(1));
        assert!(rounds.is_needed());
        rounds.begin(true, &json!(1));
        assert!(rounds.is_turn_of("a") && !rounds.is_turn_of("b") && !rounds.is_turn_of("never called"));
        assert!(!rounds.is_needed(), "there is no third round");
    }

    #[test]
    fn what_others_did_between_the_rounds_counts() {
        let mut rounds = Reinvocation::default();
        rounds.begin(false, &json!(0));
        rounds.was_called("a".to_owned());
        rounds.end(&json!(0));
        assert!(!rounds.is_needed());
        rounds.begin(true, &json!(1));
        assert!(rounds.is_turn_of("a"));
    }
}
