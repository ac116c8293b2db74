//! The table of RoleBindings and ClusterRoleBindings. Roles have no layout of their own.

use serde_json::Value;

use super::Context;
use super::cells::{age, list, name, text};
use super::columns::{AGE, Column, NAME, text as column};

pub(super) const BINDING: &[Column] = &[
    NAME,
    column("Role", "The role that the subjects get"),
    AGE,
    column("Users", "Users in the binding").wide(),
    column("Groups", "Groups in the binding").wide(),
    column("ServiceAccounts", "ServiceAccounts in the binding").wide(),
];

pub(super) fn binding(object: &Value, context: &Context) -> Vec<Value> {
    let subjects = |kind: &str| -> Value {
        let shown: Vec<String> = list(object, &["subjects"])
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(subject, &["namespace"]), text(subject, &["name"])),
                _ => text(subject, &["name"]).to_owned(),
            })
            .collect();
        shown.join(", ").into()
    };
    let role = |field| text(object, &["roleRef", field]);
    vec![
        name(object),
        format!("{}/{}", role("kind"), role("name")).into(),
        age(object, context),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn subjects_are_listed_by_kind() {
        let object = json!({"metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [
            {"kind": "User", "name": "bob"}, {"kind": "User", "name": "eve"}, {"kind": "Group", "name": "dev"},
            {"kind": "ServiceAccount", "namespace": "x", "name": "robot"},
        ]});
        let cells = binding(&object, &Context { now: Timestamp::UNIX_EPOCH });
        assert_eq!(cells[1], "ClusterRole/view");
        assert_eq!(cells[3..], ["bob, eve", "dev", "x/robot"]);
    }
}
