//! Keeps users from giving away more than they have: who writes a role must hold all that it allows, who writes a binding must hold all that its role
//! allows, unless the verbs `escalate` and `bind` say otherwise. Stands behind the mutating plugins, where an object has its final form.

use std::sync::Arc;

use coracle_api::kinds::access;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::rule::{self, PolicyRule, quoted_list};
use super::{ADMINISTRATORS, Attributes, Authorizer, ResourceAttributes};
use crate::registry::{Admission, meta};
use crate::server::request_info::{RequestInfo, UserInfo};

const GROUP: &str = "rbac.authorization.k8s.io";

/// An admission chain with the check behind it.
pub struct Guarded {
    inner: Arc<dyn Admission>,
    authorizer: Arc<Authorizer>,
}

impl Guarded {
    /// Puts the check behind the mutating part of a chain.
    pub fn new(inner: Arc<dyn Admission>, authorizer: Arc<Authorizer>) -> Arc<Self> {
        Arc::new(Self { inner, authorizer })
    }
}

impl Admission for Guarded {
    fn mutate<'a>(
        &'a self,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            self.inner.mutate(request, object, old).await?;
            check(&self.authorizer, request, object, old).await
        })
    }

    fn validate<'a>(
        &'a self,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        self.inner.validate(request, object, old)
    }
}

async fn check(
    authorizer: &Authorizer,
    request: &RequestInfo,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if request.resource.group != GROUP
        || request.user.in_group(ADMINISTRATORS)
        || old.is_some_and(|old| only_collector_fields_differ(object, old))
    {
        return Ok(());
    }
    let is_role = matches!(request.resource.plural, "roles" | "clusterroles");
    let result = if is_role {
        check_role(authorizer, request, object, old).await
    } else {
        check_binding(authorizer, request, object).await?
    };
    result.map_err(|message| {
        ApiError::forbidden(request.resource.group_resource(), meta::text(object, "name"), message)
    })
}

async fn check_role(
    authorizer: &Authorizer,
    request: &RequestInfo,
    role: &Value,
    old: Option<&Value>,
) -> Result<(), String> {
    let escalate = ResourceAttributes {
        verb: "escalate",
        group: GROUP,
        resource: request.resource.plural,
        namespace: request.namespace(),
        name: request.name(),
        ..ResourceAttributes::default()
    };
    if authorizer.allows(&request.user, &Attributes::Resource(escalate)).await {
        return Ok(());
    }
    // Rules that make no sense are for validation to refuse; they grant nothing.
    let rules: Vec<PolicyRule> =
        role.get("rules").and_then(|rules| serde_json::from_value(rules.clone()).ok()).unwrap_or_default();
    check_held(authorizer, request, &rules)?;
    let aggregates = |role: &Value| {
        let selectors = &role["aggregationRule"]["clusterRoleSelectors"];
        selectors.as_array().is_some_and(|selectors| !selectors.is_empty())
    };
    // Whoever selects roles can gather anything.
    if (aggregates(role) || old.is_some_and(aggregates))
        && check_held(authorizer, request, &everything()).is_err()
    {
        return Err("must have cluster-admin privileges to use the aggregationRule".into());
    }
    Ok(())
}

/// The outer error is for a role that is not there.
async fn check_binding(
    authorizer: &Authorizer,
    request: &RequestInfo,
    binding: &Value,
) -> Result<Result<(), String>, ApiError> {
    let role = |field: &str| binding["roleRef"][field].as_str().unwrap_or_default();
    let resource = match role("kind") {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        // For validation to refuse.
        _ => return Ok(Ok(())),
    };
    let bind = ResourceAttributes {
        verb: "bind",
        group: role("apiGroup"),
        resource,
        namespace: request.namespace(),
        name: role("name"),
        ..ResourceAttributes::default()
    };
    if authorizer.allows(&request.user, &Attributes::Resource(bind)).await {
        return Ok(Ok(()));
    }
    let rules = authorizer.rbac.rules_of_binding(request.namespace(), binding)?;
    Ok(check_held(authorizer, request, &rules))
}

fn check_held(authorizer: &Authorizer, request: &RequestInfo, wanted: &[PolicyRule]) -> Result<(), String> {
    let UserInfo { name, groups, .. } = &request.user;
    let held = authorizer.rbac.rules(&request.user, request.namespace());
    let missing = rule::uncovered(&held.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut message = format!(
        "user {name:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quoted_list(groups),
        rule::describe_all(&missing).join("\n"),
    );
    if !held.errors.is_empty() {
        let errors = held.errors.join(", ");
        let errors = if held.errors.len() > 1 { format!("[{errors}]") } else { errors };
        message.push_str(&format!("; resolution errors: [{errors}]"));
    }
    Err(message)
}

/// What `cluster-admin` allows.
fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

/// Whether nothing changes but what the garbage collector must be able to change to let an object go.
fn only_collector_fields_differ(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "selfLink"] {
            meta::remove(&mut object, field);
        }
        object
    };
    access::same(Some(&rest(new)), Some(&rest(old)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_garbage_collectors_changes_are_told_from_others() {
        let old =
            json!({"metadata": {"name": "a", "finalizers": ["x/y"], "resourceVersion": "1"}, "rules": []});
        let freed = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
        assert!(only_collector_fields_differ(&freed, &old));
        let labelled = json!({"metadata": {"name": "a", "labels": {"x": "y"}}});
        assert!(!only_collector_fields_differ(&labelled, &old));
    }
}
