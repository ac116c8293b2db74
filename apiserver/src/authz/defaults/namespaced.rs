//! Roles in the system's namespaces.

use super::{
    Binding, COORDINATION, CORE, READ, Role, SYSTEM_NAMESPACE, Subject, binding, events, named, on, role,
};

const AUTHENTICATION_READER: &str = "extension-apiserver-authentication-reader";
const SIGNER: &str = "system:controller:bootstrap-signer";

/// Namespace, roles, bindings.
pub(super) fn all() -> Vec<(&'static str, Vec<Role>, Vec<Binding>)> {
    vec![
        (SYSTEM_NAMESPACE, system_roles(), system_bindings()),
        (
            "kube-public",
            vec![role(
                SIGNER,
                vec![
                    on(READ, CORE, "configmaps"),
                    named("update", CORE, "configmaps", "cluster-info"),
                    events(),
                ],
            )],
            vec![binding(SIGNER, &[Subject::ServiceAccount("bootstrap-signer")])],
        ),
    ]
}

fn leader_locking(component: &str) -> Role {
    const LOCKS: &str = "get watch list create update";
    role(
        &format!("system::leader-locking-{component}"),
        vec![
            on("watch", CORE, "configmaps"),
            named("get update", CORE, "configmaps", component),
            on(LOCKS, COORDINATION, "leases"),
            on(LOCKS, COORDINATION, "leasecandidates"),
        ],
    )
}

fn system_roles() -> Vec<Role> {
    vec![
        role(
            AUTHENTICATION_READER,
            vec![named(READ, CORE, "configmaps", "extension-apiserver-authentication")],
        ),
        role(SIGNER, vec![on(READ, CORE, "secrets")]),
        role("system:controller:cloud-provider", vec![on("create get list watch", CORE, "configmaps")]),
        role("system:controller:token-cleaner", vec![on("get list watch delete", CORE, "secrets"), events()]),
        leader_locking("kube-controller-manager"),
        leader_locking("kube-scheduler"),
    ]
}

fn system_bindings() -> Vec<Binding> {
    let (manager, scheduler) =
        (Subject::User("system:kube-controller-manager"), Subject::User("system:kube-scheduler"));
    vec![
        Binding {
            role: AUTHENTICATION_READER.to_owned(),
            ..binding("system::extension-apiserver-authentication-reader", &[manager, scheduler])
        },
        binding(
            "system::leader-locking-kube-controller-manager",
            &[manager, Subject::ServiceAccount("kube-controller-manager")],
        ),
        binding(
            "system::leader-locking-kube-scheduler",
            &[scheduler, Subject::ServiceAccount("kube-scheduler")],
        ),
        binding(SIGNER, &[Subject::ServiceAccount("bootstrap-signer")]),
        binding("system:controller:cloud-provider", &[Subject::ServiceAccount("cloud-provider")]),
        binding("system:controller:token-cleaner", &[Subject::ServiceAccount("token-cleaner")]),
    ]
}
