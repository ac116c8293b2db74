//! Issues ServiceAccount tokens (`serviceaccounts/token`).

use coracle_api::field;
use coracle_api::meta::get;
use coracle_api::status::{ApiError, GroupKind, GroupResource};
use serde_json::{Value, json};

use super::core;
use crate::authn::service_account::{Audience, Binding, BoundObject, Claims};
use crate::registry::meta;
use crate::server::app::App;
use crate::server::request_info::RequestInfo;

const TOKEN_REQUEST: GroupKind<'_> = GroupKind { group: "authentication.k8s.io", kind: "TokenRequest" };
const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;
const EXPIRATION_SECONDS_MIN: i64 = 600;
const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;
/// What tokens that pods are given unasked are asked for, and nothing else.
const POD_TOKEN_SECONDS: i64 = 3607;
/// How long these last where clients may read them just once.
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Fills in the request's status with a token.
///
/// # Errors
/// 404 for the account or the object to bind to, 409 when that is not the one meant, 422, 501 without a signing key.
pub async fn issue(app: &App, info: &RequestInfo, mut request: Value) -> Result<Value, ApiError> {
    let account = app.registry.read(info.resource, info.namespace(), info.name()).await?;
    for (field, wanted) in [("name", info.name()), ("namespace", info.namespace())] {
        let found = meta::text(&request, field);
        if !found.is_empty() && found != wanted {
            return Err(ApiError::bad_request(format!(
                "the {field} of the provided object does not match the {field} sent on the request"
            )));
        }
    }
    app.registry.admit(info, &mut request).await?;
    let asked = expiration_seconds(&request)?;
    let most = i64::try_from(app.options.service_account_max_token_expiration.get().as_secs()).unwrap_or(0);
    let seconds = if most > 0 { asked.min(most) } else { asked };
    if seconds < asked {
        info.warnings.add(format!("requested expiration of {asked} seconds shortened to {seconds} seconds"));
    }
    let mut audiences: Vec<String> = get(&request, &["spec", "audiences"])
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    if audiences.is_empty() {
        audiences = app.options.audiences();
    }
    let reference = get(&request, &["spec", "boundObjectRef"]).filter(|reference| reference.is_object());
    let mut binding = match reference {
        Some(reference) => bind(app, info, reference).await?,
        None => Binding::default(),
    };
    binding.namespace = info.namespace().to_owned();
    binding.serviceaccount = bound_object(&account);
    let now = meta::now();
    let keys = &app.authenticator.token_keys;
    let mut expires = seconds;
    if app.options.service_account_extend_token_expiration
        && binding.pod.is_some()
        && seconds == POD_TOKEN_SECONDS
        && is_for_servers(&audiences, &app.options.audiences())
    {
        binding.warnafter = Some(now.as_second().saturating_add(seconds));
        expires = EXTENDED_SECONDS;
    }
    let claims = Claims {
        aud: Audience::Many(audiences.clone()),
        exp: now.as_second().saturating_add(expires),
        nbf: now.as_second(),
        iat: now.as_second(),
        iss: keys.issuer().to_owned(),
        sub: format!("system:serviceaccount:{}:{}", info.namespace(), info.name()),
        jti: uuid::Uuid::new_v4().to_string(),
        binding,
    };
    let token = if info.dry_run {
        String::new()
    } else {
        keys.sign(&claims)
            .map_err(|error| ApiError::internal(format!("failed to generate token: {error}")))?
    };
    for (field, value) in [
        ("name", info.name()),
        ("namespace", info.namespace()),
        ("creationTimestamp", &meta::time_after(now, 0)),
    ] {
        meta::set_text(&mut request, field, value);
    }
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": meta::time_after(now, seconds)});
    Ok(request)
}

/// Whether all audiences are API servers.
fn is_for_servers(audiences: &[String], servers: &[String]) -> bool {
    audiences.iter().all(|audience| servers.contains(audience))
}

fn expiration_seconds(request: &Value) -> Result<i64, ApiError> {
    let seconds = get(request, &["spec", "expirationSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(EXPIRATION_SECONDS_DEFAULT);
    let problem = if seconds < EXPIRATION_SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if seconds > EXPIRATION_SECONDS_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(seconds);
    };
    let error = field::invalid("spec.expirationSeconds", seconds, problem);
    Err(ApiError::invalid(TOKEN_REQUEST, "", vec![error]))
}

fn bound_object(object: &Value) -> BoundObject {
    BoundObject { name: meta::text(object, "name").to_owned(), uid: meta::text(object, "uid").to_owned() }
}

/// Checks that what the token is to be bound to exists and is the one meant.
async fn bind(app: &App, info: &RequestInfo, reference: &Value) -> Result<Binding, ApiError> {
    let part = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
    let plural = match (part("apiVersion"), part("kind")) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        ("v1", "Node") => "nodes",
        (version, kind) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let namespace = if plural == "nodes" { "" } else { info.namespace() };
    let object = app.registry.read(core(plural)?, namespace, part("name")).await?;
    let bound = bound_object(&object);
    if !part("uid").is_empty() && part("uid") != bound.uid {
        let text = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            part("uid")
        );
        return Err(ApiError::conflict(GroupResource { group: "", resource: plural }, &bound.name, text));
    }
    let mut binding = Binding::default();
    match plural {
        "pods" => {
            let spec = |key| get(&object, &["spec", key]).and_then(Value::as_str).unwrap_or_default();
            if spec("serviceAccountName") != info.name() {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    info.name()
                )));
            }
            binding.pod = Some(bound);
            let node = spec("nodeName");
            if !node.is_empty() {
                // The token also says where the pod runs; a node that is gone has no uid.
                let uid = app.registry.cached(core("nodes")?, "", node).and_then(|node| node.value().ok());
                let uid = uid.map(|node| meta::text(&node, "uid").to_owned()).unwrap_or_default();
                binding.node = Some(BoundObject { name: node.to_owned(), uid });
            }
        }
        "secrets" => binding.secret = Some(bound),
        _ => binding.node = Some(bound),
    }
    Ok(binding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_live_from_ten_minutes_up() {
        let asked = |seconds: i64| expiration_seconds(&json!({"spec": {"expirationSeconds": seconds}}));
        assert_eq!(asked(600), Ok(600));
        assert_eq!(expiration_seconds(&json!({})), Ok(3600));
        assert!(asked(599).is_err_and(|error| error.message().contains("less than 10 minutes")));
        assert!(asked((1 << 32) + 1).is_err());
    }
}
