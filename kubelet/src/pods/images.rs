//! Getting a container's image onto the node: pull policies, pull secrets, backoff.

use std::collections::BTreeMap;

use base64::Engine as _;
use component_base::duration::GoDuration;
use coracle_client::event_recorder::EventKind;
use jiff::Timestamp;
use k8s_cri::v1::{Image, PodSandboxConfig};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kubelet_core::backoff::Backoff;
use kubelet_core::image::{self, PullPolicy};
use kubelet_core::pod_status::Waiting;
use kubelet_core::pod_view;

use crate::context::Context;
use crate::runtime::RegistryAuth;

/// Why there is no image: what the status shows, and when to try again.
pub struct ImageProblem {
    /// Reason and message.
    pub waiting: Waiting,
    /// When the next try is due, if it is known.
    pub retry_at: Option<Timestamp>,
}

fn problem(reason: &str, message: impl Into<String>) -> ImageProblem {
    ImageProblem { waiting: Waiting { reason: reason.to_owned(), message: message.into() }, retry_at: None }
}

/// Why the last pulls failed, by key of the backoff.
pub type PullFailures = BTreeMap<String, String>;

/// Makes sure that the image is on the node.
///
/// # Errors
/// As the container's status shows it; the event that says why is recorded.
pub async fn ensure(
    context: &Context,
    pod: &Pod,
    container: &Container,
    sandbox: &PodSandboxConfig,
    backoff: &mut Backoff,
    failures: &mut PullFailures,
) -> Result<Image, ImageProblem> {
    let name = container.image.clone().unwrap_or_default();
    let event = |kind: EventKind, reason: &str, message: String| {
        context.container_event(pod, &container.name, kind, reason, message);
    };
    if let Err(message) = image::validate(&name) {
        event(EventKind::Warning, "InspectFailed", message.clone());
        return Err(problem("InvalidImageName", message));
    }
    let full = image::with_tag(&name);
    let present = context.runtime.image(&full).await.map_err(|error| {
        let message = format!("Failed to inspect image \"{name}\": {error}");
        event(EventKind::Warning, "InspectFailed", message.clone());
        problem("ImageInspectError", message)
    })?;
    let policy = PullPolicy::of(container.image_pull_policy.as_deref(), &name);
    match (policy, present) {
        (PullPolicy::IfNotPresent | PullPolicy::Never, Some(found)) => {
            event(
                EventKind::Normal,
                "Pulled",
                format!(
                    "Container image \"{name}\" already present on machine and can be accessed by the pod"
                ),
            );
            return Ok(found);
        }
        (PullPolicy::Never, None) => {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            event(EventKind::Warning, "ErrImageNeverPull", message.clone());
            return Err(problem("ErrImageNeverPull", message));
        }
        _ => {}
    }
    let key = format!("{}_{name}", pod_view::uid(pod));
    let now = Timestamp::now();
    if let Some((_, until)) = backoff.waiting(&key, last_failure(backoff, &key, now), now) {
        let text = format!("Back-off pulling image \"{name}\"");
        event(EventKind::Normal, "BackOff", text.clone());
        // The status goes on to say why.
        let mut waiting = problem(
            "ImagePullBackOff",
            match failures.get(&key) {
                Some(why) => format!("{text}: ErrImagePull: {why}"),
                None => text,
            },
        );
        waiting.retry_at = Some(until);
        return Err(waiting);
    }
    event(EventKind::Normal, "Pulling", format!("Pulling image \"{name}\""));
    let started = std::time::Instant::now();
    let permit = context.pulls.acquire().await.ok();
    let begun = std::time::Instant::now();
    let result = pull(context, pod, &full, sandbox).await;
    let pulling = begun.elapsed();
    drop(permit);
    match result {
        Ok(pulled) => {
            backoff.reset(&key);
            failures.remove(&key);
            let [took, waited] =
                [pulling, started.elapsed()].map(|time| GoDuration::from(time).whole_milliseconds());
            let bytes = pulled.size;
            event(
                EventKind::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image \"{name}\" in {took} ({waited} including waiting). Image size: {bytes} bytes."
                ),
            );
            Ok(pulled)
        }
        Err(cause) => {
            backoff.advance(&key, now, Timestamp::now());
            event(EventKind::Warning, "Failed", format!("Failed to pull image \"{name}\": {cause}"));
            failures.insert(key, cause.clone());
            Err(problem("ErrImagePull", cause))
        }
    }
}

/// For pulls the failure is the last try itself, which the backoff has recorded.
fn last_failure(backoff: &Backoff, key: &str, now: Timestamp) -> Timestamp {
    backoff.last_update(key).unwrap_or(now)
}

async fn pull(
    context: &Context,
    pod: &Pod,
    image: &str,
    sandbox: &PodSandboxConfig,
) -> Result<Image, String> {
    let secrets = context.volumes.pull_secrets(pod).await?;
    let mut attempts: Vec<Option<RegistryAuth>> =
        secrets.iter().filter_map(|secret| credentials(secret, image)).map(Some).collect();
    if attempts.is_empty() {
        attempts.push(None);
    }
    let mut last = String::new();
    for auth in attempts {
        match context.runtime.pull_image(image, auth, sandbox.clone()).await {
            Ok(_) => {
                let found = context.runtime.image(image).await.map_err(|error| error.to_string())?;
                return found.ok_or_else(|| format!("the runtime pulled {image} but does not have it"));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// The credentials for the image's registry in a pull secret.
fn credentials(secret: &Secret, image_name: &str) -> Option<RegistryAuth> {
    let data = secret.data.as_ref()?;
    let json: serde_json::Value = if let Some(config) = data.get(".dockerconfigjson") {
        serde_json::from_slice::<serde_json::Value>(&config.0).ok()?.get("auths")?.clone()
    } else {
        serde_json::from_slice(&data.get(".dockercfg")?.0).ok()?
    };
    let full = image::full_name(image_name);
    let host = full.split('/').next()?;
    let (_, entry) = json.as_object()?.iter().find(|(registry, _)| {
        let registry = registry.trim_start_matches("https://").trim_start_matches("http://");
        let registry_host = registry.split('/').next().unwrap_or(registry);
        registry_host == host || (host == "docker.io" && registry_host == "index.docker.io")
    })?;
    let text = |name: &str| entry.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let mut auth =
        RegistryAuth { username: text("username"), password: text("password"), auth: text("auth") };
    if auth.username.is_empty()
        && let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(&auth.auth)
        && let Some((user, password)) = String::from_utf8_lossy(&decoded).split_once(':')
    {
        auth.username = user.to_owned();
        auth.password = password.to_owned();
    }
    Some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_secrets_are_matched_by_registry() {
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "dTpw"},
            "reg.example:5000": {"username": "a", "password": "b"}}});
        let encoded = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret: Secret =
            serde_json::from_value(serde_json::json!({"data": {".dockerconfigjson": encoded}})).unwrap();
        assert_eq!(credentials(&secret, "demo:v1").unwrap().username, "u");
        assert_eq!(credentials(&secret, "reg.example:5000/x").unwrap().password, "b");
        assert!(credentials(&secret, "other.example/x").is_none());
    }
}
