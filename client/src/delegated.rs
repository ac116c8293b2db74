//! Asking the API server about those who ask somebody else: whose a token is, and what a user may do. For servers beside it, which take its word for a
//! while. Owns the calls and the memory of their answers; never who is asked about what.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::config::within;

const DEADLINE: Duration = Duration::from_secs(10);
const REMEMBERED_MAX: usize = 1024;

/// Whose a token is; `None` if it is nobody's.
///
/// # Errors
/// The API server's, or that it does not answer within ten seconds.
pub async fn owner_of_token(client: &Client, token: &str) -> Result<Option<UserInfo>, kube::Error> {
    let api: Api<TokenReview> = Api::all(client.clone());
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let answer = within(DEADLINE, api.create(&PostParams::default(), &review)).await?;
    let status = answer.status.unwrap_or_default();
    Ok(status.user.filter(|_| status.authenticated == Some(true)))
}

/// Whether the user may do what is asked.
///
/// # Errors
/// As for [`owner_of_token`].
pub async fn is_allowed(client: &Client, asked: SubjectAccessReviewSpec) -> Result<bool, kube::Error> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = SubjectAccessReview { spec: asked, ..SubjectAccessReview::default() };
    let answer = within(DEADLINE, api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Answers that still hold; at most 1,024.
#[derive(Debug)]
pub struct Recent<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// The answer, if it holds.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let answers = self.0.lock();
        answers.get(key).filter(|(_, end)| Instant::now() < *end).map(|(value, _)| value.clone())
    }

    /// Takes an answer that holds for so long. Where there is no room left, those that hold no more make some, or else all do: the next ones are asked
    /// for again.
    pub fn insert(&self, key: K, value: V, holds: Duration) {
        let mut answers = self.0.lock();
        let now = Instant::now();
        if answers.len() >= REMEMBERED_MAX {
            answers.retain(|_, (_, end)| now < *end);
            if answers.len() >= REMEMBERED_MAX {
                answers.clear();
            }
        }
        answers.insert(key, (value, now + holds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn answers_hold_as_long_as_was_said() {
        let recent = Recent::default();
        recent.insert("long".to_owned(), 1, LONG);
        recent.insert("never".to_owned(), 2, Duration::ZERO);
        assert_eq!((recent.get("long"), recent.get("never"), recent.get("other")), (Some(1), None, None));
    }

    #[test]
    fn a_full_memory_makes_room() {
        let recent = Recent::default();
        for number in 0..REMEMBERED_MAX {
            recent.insert(number, (), if number == 0 { LONG } else { Duration::ZERO });
        }
        recent.insert(REMEMBERED_MAX, (), LONG);
        assert!(recent.get(&0).is_some(), "what holds stays");
        assert_eq!(recent.0.lock().len(), 2);
        for number in 2..=REMEMBERED_MAX {
            recent.insert(number * 2, (), LONG);
        }
        assert!(recent.0.lock().len() <= REMEMBERED_MAX);
    }
}
