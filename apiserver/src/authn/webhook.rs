//! Asks a server that `--authentication-token-webhook-config-file` names who a token belongs to.

use std::time::Duration;

use coracle_api::kinds::access::{boolean, items, text};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Verified;
use crate::extension::kubeconfig::Remote;
use crate::extension::review::Version;
use crate::recent::Recent;
use crate::server::request_info::UserInfo;

const PATIENCE: Duration = Duration::from_secs(30);
const REMEMBERED_MAX: usize = 4096;

type Question = ([u8; 32], Vec<String>);

/// The webhook.
pub struct TokenWebhook {
    remote: Remote,
    version: Version,
    remember: Duration,
    recent: Recent<Question, Result<Verified, String>>,
}

impl TokenWebhook {
    /// What it says is remembered for a time.
    pub fn new(remote: Remote, version: Version, remember: Duration) -> Self {
        Self { remote, version, remember, recent: Recent::new(REMEMBERED_MAX) }
    }

    /// Who the token belongs to, if it is meant for one of `audiences`; one of `implicit` is meant where the server says nothing of audiences.
    ///
    /// # Errors
    /// Why nobody.
    pub async fn user(
        &self,
        token: &str,
        audiences: &[String],
        implicit: &[String],
    ) -> Result<Verified, String> {
        let question = (Sha256::digest(token.as_bytes()).into(), audiences.to_vec());
        if let Some(known) = self.recent.get(&question) {
            return known;
        }
        let review = json!({
            "kind": "TokenReview", "apiVersion": self.version.api_version("authentication.k8s.io"), "metadata": {},
            "spec": {"token": token, "audiences": audiences}, "status": {"user": {}},
        });
        // A server that cannot be asked is asked again by the next request.
        let answer = self.remote.ask(&review, PATIENCE).await?;
        let verdict = verdict(&answer, audiences, implicit);
        self.recent.put(question, verdict.clone(), self.remember);
        verdict
    }
}

/// What an answer says. Pure.
fn verdict(answer: &Value, audiences: &[String], implicit: &[String]) -> Result<Verified, String> {
    let none = Value::Null;
    let status = answer.get("status").unwrap_or(&none);
    let texts = |value: &Value, field: &str| -> Vec<String> {
        items(value, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if !boolean(status, "authenticated") {
        return Err(match text(status, "error") {
            "" => "the token webhook does not know the token".to_owned(),
            error => error.to_owned(),
        });
    }
    let found = Some(texts(status, "audiences")).filter(|found| !found.is_empty());
    let found = found.unwrap_or_else(|| implicit.to_vec());
    let audiences: Vec<String> = audiences.iter().filter(|one| found.contains(one)).cloned().collect();
    if audiences.is_empty() {
        return Err("the token is meant for other audiences".to_owned());
    }
    let user = status.get("user").unwrap_or(&none);
    let extra = user.get("extra").and_then(Value::as_object);
    let extra =
        extra.map(|extra| extra.keys().map(|key| (key.clone(), texts(&user["extra"], key))).collect());
    let user = UserInfo {
        name: text(user, "username").to_owned(),
        uid: text(user, "uid").to_owned(),
        groups: texts(user, "groups"),
        extra: extra.unwrap_or_default(),
    };
    Ok(Verified { user, audiences })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_user_for_the_audiences_asked_for() {
        let ours = ["api".to_owned()];
        let mut answer = json!({"status": {"authenticated": true, "user": {"username": "u", "groups": ["g"], "extra": {"k": ["v"]}}}});
        let verified = verdict(&answer, &ours, &ours).expect("is known");
        assert_eq!((verified.user.name.as_str(), verified.audiences.as_slice()), ("u", &ours[..]));
        assert_eq!(verified.user.extra["k"], ["v"]);
        answer["status"]["audiences"] = json!(["other"]);
        assert!(verdict(&answer, &ours, &ours).is_err());
        let refused = json!({"status": {"error": "expired"}});
        assert_eq!(verdict(&refused, &ours, &ours), Err("expired".to_owned()));
    }
}
