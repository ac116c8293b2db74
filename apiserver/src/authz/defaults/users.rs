//! Roles for people and programs: what everybody may, and the ones to be bound to (`admin`, `edit`, `view`).

use super::{
    APPS, AUTHENTICATION, AUTHORIZATION, AUTOSCALING, BATCH, Binding, CERTIFICATES, COORDINATION, CORE,
    Content, DISCOVERY, EVERY, EXTENSIONS, NETWORKING, POLICY, PolicyRule, RBAC, READ, READ_WRITE, RESOURCE,
    Role, Subject, WRITE, binding, events, named, on, role, urls,
};

pub(super) fn roles() -> Vec<Role> {
    let everywhere = PolicyRule { verbs: vec!["*".into()], ..urls("*") };
    let into = |role: Role, target| Role { aggregate_to: Some(target), ..role };
    let aggregated = |name| Role { content: Content::Aggregated, ..role(name, Vec::new()) };
    let mut roles = vec![
        role("cluster-admin", vec![on("*", EVERY, "*"), everywhere]),
        role(
            "system:monitoring",
            vec![urls("/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*")],
        ),
        role(
            "system:discovery",
            vec![urls(
                "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*",
            )],
        ),
        role("system:public-info-viewer", vec![urls("/livez /readyz /healthz /version /version/")]),
        role(
            "system:basic-user",
            vec![
                on("create", AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
                on("create", AUTHENTICATION, "selfsubjectreviews"),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![urls(
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
            )],
        ),
        aggregated("admin"),
        into(aggregated("edit"), "admin"),
        into(aggregated("view"), "edit"),
        into(role("system:aggregate-to-admin", admin()), "admin"),
        into(role("system:aggregate-to-edit", edit()), "edit"),
        into(role("system:aggregate-to-view", view()), "view"),
    ];
    roles.extend(approvers());
    roles
}

fn admin() -> Vec<PolicyRule> {
    vec![on("create", AUTHORIZATION, "localsubjectaccessreviews"), on(READ_WRITE, RBAC, "roles rolebindings")]
}

fn edit() -> Vec<PolicyRule> {
    vec![
        on(READ, CORE, "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
        on("impersonate", CORE, "serviceaccounts"),
        on(WRITE, CORE, "pods pods/attach pods/proxy pods/exec pods/portforward"),
        on("create", CORE, "pods/eviction"),
        on(
            WRITE,
            CORE,
            "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy
             persistentvolumeclaims configmaps secrets events",
        ),
        on("create", CORE, "serviceaccounts/token"),
        on(
            WRITE,
            APPS,
            "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback
             replicasets replicasets/scale",
        ),
        on(WRITE, AUTOSCALING, "horizontalpodautoscalers"),
        on(WRITE, BATCH, "jobs cronjobs"),
        on(
            WRITE,
            EXTENSIONS,
            "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale
             replicationcontrollers/scale networkpolicies",
        ),
        on(WRITE, POLICY, "poddisruptionbudgets"),
        on(WRITE, NETWORKING, "networkpolicies ingresses"),
        on(READ_WRITE, COORDINATION, "leases"),
        on(WRITE, RESOURCE, "resourceclaims resourceclaimtemplates"),
    ]
}

fn view() -> Vec<PolicyRule> {
    vec![
        on(
            READ,
            CORE,
            "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status
             endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps",
        ),
        on(
            READ,
            CORE,
            "limitranges resourcequotas bindings events pods/status resourcequotas/status namespaces/status
             replicationcontrollers/status pods/log",
        ),
        on(READ, CORE, "namespaces"),
        on(READ, DISCOVERY, "endpointslices"),
        on(
            READ,
            APPS,
            "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status
             deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale",
        ),
        on(READ, AUTOSCALING, "horizontalpodautoscalers horizontalpodautoscalers/status"),
        on(READ, BATCH, "jobs cronjobs cronjobs/status jobs/status"),
        on(
            READ,
            EXTENSIONS,
            "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status
             replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies",
        ),
        on(READ, POLICY, "poddisruptionbudgets poddisruptionbudgets/status"),
        on(READ, NETWORKING, "networkpolicies ingresses ingresses/status"),
        on(READ, RESOURCE, "resourceclaims resourceclaims/status resourceclaimtemplates"),
    ]
}

/// Who may ask for which certificates, and approve whose.
fn approvers() -> Vec<Role> {
    let request = |part: &str| {
        role(
            &format!("system:certificates.k8s.io:certificatesigningrequests:{part}"),
            vec![on("create", CERTIFICATES, &format!("certificatesigningrequests/{part}"))],
        )
    };
    let approver = |signer: &str| {
        role(
            &format!("system:certificates.k8s.io:{signer}-approver"),
            vec![named("approve", CERTIFICATES, "signers", &format!("kubernetes.io/{signer}"))],
        )
    };
    let mut roles = vec![request("nodeclient"), request("selfnodeclient")];
    roles.extend(
        ["legacy-unknown", "kubelet-serving", "kube-apiserver-client", "kube-apiserver-client-kubelet"]
            .map(approver),
    );
    roles.push(role(
        "system:auth-delegator",
        vec![
            on("create", AUTHENTICATION, "tokenreviews"),
            on("create", AUTHORIZATION, "subjectaccessreviews"),
        ],
    ));
    roles.push(role(
        "system:node-problem-detector",
        vec![on("get", CORE, "nodes"), on("patch", CORE, "nodes/status"), events()],
    ));
    roles
}

pub(super) fn bindings() -> Vec<Binding> {
    let everybody = [Subject::Group("system:authenticated")];
    vec![
        binding("cluster-admin", &[Subject::Group("system:masters")]),
        binding("system:monitoring", &[Subject::Group("system:monitoring")]),
        binding("system:discovery", &everybody),
        binding("system:basic-user", &everybody),
        binding(
            "system:public-info-viewer",
            &[Subject::Group("system:authenticated"), Subject::Group("system:unauthenticated")],
        ),
        binding("system:service-account-issuer-discovery", &[Subject::Group("system:serviceaccounts")]),
    ]
}
