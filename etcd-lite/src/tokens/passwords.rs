//! Passwords under bcrypt, which is slow on purpose: it runs on the blocking threads, and never more of it at once than there are processors.

use std::sync::Arc;

use bcrypt::{BcryptError, Version};
use tokio::sync::Semaphore;

/// Hashes and compares passwords.
pub(super) struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new(cost: u32) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cost, turns: Arc::new(Semaphore::new(processors)) }
    }

    pub(super) async fn hash(&self, password: String) -> Result<String, String> {
        let cost = self.cost;
        // The letter that Go's library writes, so that a snapshot for etcd looks like its own.
        let hash = move || {
            bcrypt::non_truncating_hash_with_result(password, cost)
                .map(|parts| parts.format_for_version(Version::TwoA))
        };
        match self.run(hash).await {
            Some(Ok(hash)) => Ok(hash),
            Some(Err(BcryptError::Truncation(_))) => Err("bcrypt: password length exceeds 72 bytes".into()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("etcdserver: server stopped".into()),
        }
    }

    pub(super) async fn verify(&self, password: String, hash: Vec<u8>) -> bool {
        let verify = move || {
            // A hash that is none comes from a record written by hand; nobody gets in by it.
            std::str::from_utf8(&hash).is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
        };
        self.run(verify).await.unwrap_or(false)
    }

    /// `None` when the process is ending.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        done.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_hashed_is_recognised_and_nothing_else() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("geheim".into()).await.expect("hash");
        assert!(hash.starts_with("$2a$04$"), "{hash}");
        assert!(passwords.verify("geheim".into(), hash.clone().into()).await);
        assert!(!passwords.verify("Geheim".into(), hash.into()).await);
        assert!(!passwords.verify(String::new(), Vec::new()).await);
        assert_eq!(
            passwords.hash("x".repeat(73)).await.expect_err("too long"),
            "bcrypt: password length exceeds 72 bytes"
        );
    }

    #[tokio::test]
    async fn hashes_written_elsewhere_are_read() {
        // A test vector of OpenBSD's bcrypt: the empty password.
        let hash = b"$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.".to_vec();
        let passwords = Passwords::new(4);
        assert!(passwords.verify(String::new(), hash.clone()).await);
        assert!(!passwords.verify("x".into(), hash).await);
    }
}
