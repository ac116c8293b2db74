//! Small objects for the tests of this crate.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodIP, PodSpec, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};

fn labels(app: &str) -> std::collections::BTreeMap<String, String> {
    [("app".to_owned(), app.to_owned())].into()
}

fn meta(name: &str, app: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        uid: Some(format!("uid-{name}")),
        labels: Some(labels(app)),
        generation: Some(1),
        resource_version: Some("1".into()),
        ..Default::default()
    }
}

/// A pod of app `web`; a ready one is so since second 1,000.
pub fn pod(name: &str, phase: &str, ready: bool, node: &str) -> Pod {
    Pod {
        metadata: meta(name, "web"),
        spec: Some(PodSpec {
            node_name: (!node.is_empty()).then(|| node.to_owned()),
            containers: vec![Container { name: "c".into(), ..Default::default() }],
            ..Default::default()
        }),
        status: Some(PodStatus {
            phase: Some(phase.into()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: if ready { "True" } else { "False" }.into(),
                last_transition_time: jiff::Timestamp::from_second(1_000).ok().map(Time),
                ..Default::default()
            }]),
            pod_ip: Some("10.244.0.9".into()),
            pod_ips: Some(vec![PodIP { ip: "10.244.0.9".into() }]),
            ..Default::default()
        }),
    }
}

/// A template of app `app` whose one container runs `image`.
pub fn template(app: &str, image: &str) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels(app)), ..Default::default() }),
        spec: Some(PodSpec {
            containers: vec![Container { name: "c".into(), image: Some(image.into()), ..Default::default() }],
            ..Default::default()
        }),
    }
}

/// A ReplicaSet of app `app`.
pub fn replica_set(name: &str, app: &str, replicas: i32) -> ReplicaSet {
    ReplicaSet {
        metadata: meta(name, app),
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            selector: LabelSelector { match_labels: Some(labels(app)), ..Default::default() },
            template: Some(template(app, "demo:v1")),
            ..Default::default()
        }),
        status: None,
    }
}

/// A Deployment of app `web` with upstream's defaults.
pub fn deployment(name: &str, replicas: i32, image: &str) -> Deployment {
    Deployment {
        metadata: meta(name, "web"),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: LabelSelector { match_labels: Some(labels("web")), ..Default::default() },
            template: template("web", image),
            revision_history_limit: Some(10),
            progress_deadline_seconds: Some(600),
            ..Default::default()
        }),
        status: None,
    }
}
