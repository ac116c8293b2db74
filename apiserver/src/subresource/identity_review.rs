//! TokenReview and SelfSubjectReview: who somebody is, by the server's own authenticators.

use coracle_api::meta::get;
use coracle_api::status::ApiError;
use serde_json::{Map, Value, json};

use crate::authn::Verified;
use crate::registry::meta;
use crate::server::app::App;
use crate::server::request_info::UserInfo;

fn user_value(user: &UserInfo) -> Value {
    let mut value = Map::new();
    value.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        value.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        value.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        value.insert("extra".into(), json!(user.extra));
    }
    Value::Object(value)
}

/// Says who a token belongs to.
///
/// # Errors
/// 400 without a token.
pub async fn token_review(app: &App, mut review: Value) -> Result<Value, ApiError> {
    let token = get(&review, &["spec", "token"]).and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let mut wanted: Vec<String> = get(&review, &["spec", "audiences"])
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    if wanted.is_empty() {
        wanted = app.options.audiences();
    }
    let status = match app.authenticator.token_user(token, &wanted).await {
        Ok(Verified { user, audiences }) => {
            json!({"authenticated": true, "user": user_value(&user), "audiences": audiences})
        }
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    };
    review["status"] = status;
    Ok(review)
}

/// Says who asks.
pub fn self_review(user: &UserInfo, mut review: Value) -> Value {
    meta::set_text(&mut review, "creationTimestamp", &meta::time_after(meta::now(), 0));
    review["status"] = json!({"userInfo": user_value(user)});
    review
}
