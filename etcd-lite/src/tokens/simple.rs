//! Simple tokens: 16 random letters, a dot, and the log index of the command that gave the token. Every member learns of every token from the
//! log and keeps it in memory for some time after its last use; none survives a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PREFIX_LETTERS: usize = 16;

/// How often tokens that ran out are looked for.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

/// Random letters for a new token.
///
/// # Errors
/// The system gives no random numbers.
pub(super) fn new_prefix() -> Result<String, getrandom::Error> {
    /// The multiple of 52 up to which a byte is used, so that every letter is as likely as any other.
    const FAIR: u8 = 208;
    let mut prefix = String::with_capacity(PREFIX_LETTERS);
    while prefix.len() < PREFIX_LETTERS {
        let mut bytes = [0; 2 * PREFIX_LETTERS];
        getrandom::fill(&mut bytes)?;
        let letters = bytes.iter().filter(|byte| **byte < FAIR);
        let missing = PREFIX_LETTERS - prefix.len();
        prefix.extend(letters.map(|byte| char::from(LETTERS[usize::from(byte % 52)])).take(missing));
    }
    Ok(prefix)
}

struct Kept {
    user: Arc<str>,
    expires: Instant,
}

struct State {
    by_token: HashMap<String, Kept>,
    purge_at: Option<Instant>,
}

/// The tokens one member knows.
pub(super) struct SimpleTokens {
    ttl: Duration,
    state: Mutex<State>,
    /// Index of the last command that gave a token, or of the state taken over.
    known_to: watch::Sender<u64>,
}

impl SimpleTokens {
    pub(super) fn new(ttl: Duration) -> Self {
        let state = Mutex::new(State { by_token: HashMap::new(), purge_at: None });
        Self { ttl, state, known_to: watch::channel(0).0 }
    }

    pub(super) fn assign(&self, index: u64, token: &str, user: &str, now: Instant) {
        {
            let mut state = self.state.lock();
            if state.purge_at.is_none_or(|at| at <= now) {
                state.by_token.retain(|_, kept| kept.expires > now);
                state.purge_at = Some(now + PURGE_INTERVAL);
            }
            state.by_token.insert(token.to_owned(), Kept { user: user.into(), expires: now + self.ttl });
        }
        self.known_to.send_replace(index);
    }

    pub(super) fn revoke(&self, user: &str) {
        self.state.lock().by_token.retain(|_, kept| &*kept.user != user);
    }

    pub(super) fn clear(&self, index: u64) {
        self.state.lock().by_token.clear();
        self.known_to.send_replace(index);
    }

    /// A token's user. The use prolongs the token.
    fn look_up(&self, token: &str, now: Instant) -> Option<String> {
        let mut state = self.state.lock();
        let kept = state.by_token.get_mut(token).filter(|kept| kept.expires > now)?;
        kept.expires = now + self.ttl;
        Some(kept.user.as_ref().to_owned())
    }

    /// A token's user; waits for a token from the future of this member's log.
    pub(super) async fn user(
        &self,
        token: &str,
        applied_index: impl Fn() -> u64,
        wait_max: Duration,
    ) -> Option<String> {
        let mut known_to = self.known_to.subscribe();
        if let Some(user) = self.look_up(token, Instant::now()) {
            return Some(user);
        }
        let (_, index) = token.split_once('.')?;
        let index: u64 = index.parse().ok()?;
        if applied_index() < index {
            // Past the deadline the look-up says what there is to say.
            let _ = tokio::time::timeout(wait_max, known_to.wait_for(|known| *known >= index)).await;
        }
        self.look_up(token, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const WAIT: Duration = Duration::from_secs(5);

    #[test]
    fn prefixes_are_sixteen_letters_and_differ() {
        let (first, second) = (new_prefix().expect("random"), new_prefix().expect("random"));
        assert!(first.len() == 16 && first.bytes().all(|b| b.is_ascii_alphabetic()), "{first}");
        assert_ne!(first, second);
    }

    #[test]
    fn use_prolongs_a_token_and_idleness_ends_it() {
        let tokens = SimpleTokens::new(TTL);
        let start = Instant::now();
        tokens.assign(7, "a.7", "alice", start);
        let used = start + TTL - Duration::from_secs(1);
        assert_eq!(tokens.look_up("a.7", used).as_deref(), Some("alice"));
        let used_again = used + TTL - Duration::from_secs(1);
        assert_eq!(tokens.look_up("a.7", used_again).as_deref(), Some("alice"));
        assert_eq!(tokens.look_up("a.7", used_again + TTL), None);
        tokens.assign(8, "a.8", "alice", used_again + TTL);
        assert_eq!(tokens.state.lock().by_token.len(), 1, "the old one is forgotten");
    }

    #[test]
    fn revoking_ends_the_tokens_of_one_user_and_clearing_all() {
        let tokens = SimpleTokens::new(TTL);
        let now = Instant::now();
        for (index, token, user) in [(1, "a.1", "alice"), (2, "b.2", "bob"), (3, "c.3", "alice")] {
            tokens.assign(index, token, user, now);
        }
        tokens.revoke("alice");
        assert_eq!(["a.1", "b.2", "c.3"].map(|t| tokens.look_up(t, now).is_some()), [false, true, false]);
        tokens.clear(4);
        assert_eq!(tokens.look_up("b.2", now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_given_through_another_member_is_waited_for() {
        let tokens = Arc::new(SimpleTokens::new(TTL));
        let waiting = tokio::spawn({
            let tokens = Arc::clone(&tokens);
            async move { tokens.user("a.9", || 8, WAIT).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        tokens.assign(9, "a.9", "alice", Instant::now());
        assert_eq!(waiting.await.expect("ends").as_deref(), Some("alice"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_token_is_refused() {
        let tokens = SimpleTokens::new(TTL);
        tokens.assign(5, "a.5", "alice", Instant::now());
        for token in ["", "a", "b.5", "a.b", "a.5.6", "a.-1", "a.999"] {
            assert_eq!(tokens.user(token, || 5, WAIT).await, None, "{token}");
        }
    }
}
