//! Defaults and validation of the kinds, as tables.

use serde_json::{Value, json};

use super::{config_map, deployment, endpoint_slice, namespace, node, pod, priority_class, secret, service};
use crate::field::FieldError;

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn a_pod() -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "containers": [{
                "name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}]
            }],
            "volumes": [{"name": "v", "configMap": {"name": "x"}}, {"name": "e"}]
        }
    });
    pod::default(&mut object);
    object
}

#[test]
fn a_pod_gets_the_defaults_that_clients_know() {
    let pod = a_pod();
    let spec = &pod["spec"];
    assert_eq!(
        json!({
            "restartPolicy": spec["restartPolicy"], "dnsPolicy": spec["dnsPolicy"], "grace": spec["terminationGracePeriodSeconds"],
            "scheduler": spec["schedulerName"], "links": spec["enableServiceLinks"], "context": spec["securityContext"],
        }),
        json!({
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "grace": 30, "scheduler": "default-scheduler", "links": true,
            "context": {},
        })
    );
    assert_eq!(
        spec["containers"][0],
        json!({
            "name": "c", "image": "nginx", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3},
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    );
    assert_eq!(
        spec["volumes"],
        json!([{"name": "v", "configMap": {"name": "x", "defaultMode": 420}}, {"name": "e", "emptyDir": {}}])
    );
    assert_eq!(texts(&pod::validate(&pod)), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_pod_is_named_with_its_path() {
    let cases: &[(&str, Value, &str)] = &[
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        (
            "/spec/containers/0/name",
            json!("A_b"),
            "spec.containers[0].name: Invalid value: \"A_b\": a lowercase RFC 1123 label must",
        ),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("Sometimes"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            "/spec/containers/0/volumeMounts/0/name",
            json!("w"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
        ),
        (
            "/spec/containers/0/ports/0/containerPort",
            json!(70000),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/resources/requests",
            json!({"cpu": "2"}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"periodSeconds": 1, "successThreshold": 1}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/restartPolicy",
            json!("Maybe"),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        ("/spec/volumes/1/name", json!("v"), "spec.volumes[1].name: Duplicate value: \"v\""),
    ];
    for (pointer, value, expected) in cases {
        let mut pod = a_pod();
        *pod.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value.clone();
        let found = texts(&pod::validate(&pod));
        assert!(found.iter().any(|text| text.starts_with(expected)), "{pointer}: {found:?}");
    }
}

#[test]
fn a_pod_changes_only_where_it_may() {
    let old = a_pod();
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("nginx:2");
    new["spec"]["activeDeadlineSeconds"] = json!(10);
    new["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    assert_eq!(texts(&pod::validate_update(&new, &old)), Vec::<String>::new());
    new["spec"]["restartPolicy"] = json!("Never");
    let found = texts(&pod::validate_update(&new, &old));
    assert!(
        found[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        ),
        "{found:?}"
    );
    let mut more = old.clone();
    more["spec"]["containers"] = json!([old["spec"]["containers"][0], old["spec"]["containers"][0]]);
    assert_eq!(
        texts(&pod::validate_update(&more, &old)),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

fn a_deployment() -> Value {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}
    });
    deployment::default(&mut object);
    object
}

#[test]
fn a_deployment_gets_its_strategy_and_keeps_its_selector() {
    let old = a_deployment();
    assert_eq!(
        old["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(
        (
            &old["spec"]["revisionHistoryLimit"],
            &old["spec"]["progressDeadlineSeconds"],
            &old["spec"]["replicas"]
        ),
        (&json!(10), &json!(600), &json!(1))
    );
    let template = &old["spec"]["template"]["spec"];
    assert!(
        template.get("enableServiceLinks").is_none() && template["containers"][0]["resources"] == json!({})
    );
    assert_eq!(texts(&deployment::validate(&old)), Vec::<String>::new());

    let mut new = old.clone();
    new["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    let found = texts(&deployment::validate_update(&new, &old));
    assert!(found.iter().any(|text| text
        == "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"), "{found:?}");
    assert!(
        found.iter().any(|text| text.starts_with("spec.selector: Invalid value: ")
            && text.ends_with(": field is immutable"))
    );

    let mut stuck = old.clone();
    stuck["spec"]["strategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": "0%"});
    assert_eq!(
        texts(&deployment::validate(&stuck)),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]
    );
    let mut recreate =
        json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"strategy": {"type": "Recreate"}}});
    deployment::default(&mut recreate);
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn a_service_gets_ports_and_policies_and_keeps_its_address() {
    let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.7"}});
    service::default(&mut object);
    service::normalize(&mut object["spec"], None);
    assert_eq!(
        object["spec"],
        json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    assert_eq!(texts(&service::validate(&object)), Vec::<String>::new());
    let mut moved = object.clone();
    moved["spec"]["clusterIP"] = json!("10.96.0.8");
    service::normalize(&mut moved["spec"], Some(&object["spec"]));
    assert_eq!(
        texts(&service::validate_update(&moved, &object)),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]
    );
    let mut silent = object.clone();
    for name in ["clusterIP", "clusterIPs"] {
        super::access::remove(&mut silent["spec"], name);
    }
    service::normalize(&mut silent["spec"], Some(&object["spec"]));
    assert_eq!(silent, object);
    let mut two = object.clone();
    two["spec"]["ports"] = json!([{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30000}, {"port": 81, "protocol": "TCP", "targetPort": "x_y"}]);
    let found = texts(&service::validate(&two));
    for expected in [
        "spec.ports[0].name: Required value",
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        "spec.ports[1].targetPort: Invalid value: \"x_y\": must contain only alpha-numeric",
    ] {
        assert!(found.iter().any(|text| text.starts_with(expected)), "{expected} in {found:?}");
    }
}

#[test]
fn node_ports_stay_with_their_ports() {
    let old = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]});
    let mut new = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]});
    service::normalize(&mut new, Some(&old));
    assert_eq!(new["ports"][0]["nodePort"], 30001);
    assert!(new["ports"][1].get("nodePort").is_none());
    let mut inside =
        json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]});
    service::normalize(&mut inside, Some(&old));
    assert!(inside["ports"][0].get("nodePort").is_none());
}

#[test]
fn secrets_take_plain_text_and_immutable_data_stays() {
    let mut object = json!({"metadata": {"name": "s", "namespace": "d"}, "stringData": {"a": "b"}, "data": {"a": "eA==", "c": "eA=="}});
    secret::default(&mut object);
    assert_eq!(object["data"], json!({"a": "Yg==", "c": "eA=="}));
    assert_eq!(object["type"], "Opaque");
    assert!(object.get("stringData").is_none());
    let mut old = object.clone();
    old["immutable"] = json!(true);
    let mut new = old.clone();
    new["data"]["a"] = json!("eA==");
    assert_eq!(
        texts(&secret::validate_update(&new, &old)),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let map = json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a/b": "x"}});
    assert!(
        texts(&config_map::validate(&map))[0]
            .starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key")
    );
    let tls = json!({"metadata": {"name": "c", "namespace": "d"}, "type": "kubernetes.io/tls"});
    assert_eq!(
        texts(&secret::validate(&tls)),
        ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
    );
}

#[test]
fn namespaces_carry_their_name_and_wait_for_their_content() {
    let mut object = json!({"metadata": {"name": "team"}});
    namespace::default(&mut object);
    namespace::prepare_for_create(&mut object);
    assert_eq!(object["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "team"}));
    assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(object["status"], json!({"phase": "Active"}));
    assert!(namespace::validate(&object).is_empty());
    assert!(!namespace::validate(&json!({"metadata": {"name": "a.b"}})).is_empty());
}

#[test]
fn nodes_classes_and_slices() {
    let mut object = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "2"}}});
    node::default(&mut object);
    assert_eq!(object["status"]["allocatable"], json!({"cpu": "2"}));
    let found = texts(&node::validate(&object));
    assert!(found[0].starts_with("spec.taints[1]: Duplicate value: "), "{found:?}");
    let class = json!({"metadata": {"name": "system-mine"}, "value": 5});
    assert_eq!(
        texts(&priority_class::validate(&class)),
        [
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only"
        ]
    );
    let slice = json!({"metadata": {"name": "s", "namespace": "d"}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}, {"addresses": []}]});
    assert_eq!(
        texts(&endpoint_slice::validate(&slice)),
        [
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "endpoints[1].addresses: Required value: must contain at least 1 address",
        ]
    );
}
