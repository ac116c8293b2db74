"""A Deployment is created, watched until its pods run, listed, scaled and deleted."""

from kubernetes import client, watch
from kubernetes.client.rest import ApiException

NAME = "python"
DEADLINE_SECONDS = 90


def deployment() -> client.V1Deployment:
    labels = {"app": NAME}
    container = client.V1Container(name="web", image="demo:v1", ports=[client.V1ContainerPort(container_port=8080)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
    return client.V1Deployment(metadata=client.V1ObjectMeta(name=NAME, labels=labels), spec=spec)


def run(namespace: str) -> None:
    apps = client.AppsV1Api()

    created = apps.create_namespaced_deployment(namespace, deployment())
    assert created.metadata.uid and created.spec.strategy.rolling_update.max_surge == "25%", created
    try:
        apps.create_namespaced_deployment(namespace, deployment())
        raise SystemExit("a second Deployment of the same name was accepted")
    except ApiException as error:
        assert error.status == 409 and "AlreadyExists" in error.body, error

    version = created.metadata.resource_version
    available = False
    stream = watch.Watch().stream(
        apps.list_namespaced_deployment,
        namespace,
        field_selector=f"metadata.name={NAME}",
        resource_version=version,
        timeout_seconds=DEADLINE_SECONDS,
    )
    for event in stream:
        assert event["object"].metadata.name == NAME, event
        if event["object"].status.available_replicas == 2:
            available = True
            break
    assert available, "the watch ended before two replicas were available"

    listed = apps.list_namespaced_deployment(namespace, label_selector=f"app={NAME}").items
    assert [item.metadata.name for item in listed] == [NAME], listed
    pods = client.CoreV1Api().list_namespaced_pod(namespace, label_selector=f"app={NAME}").items
    assert len(pods) == 2 and all(pod.status.pod_ip for pod in pods), pods

    apps.delete_namespaced_deployment(NAME, namespace, propagation_policy="Foreground")
    for event in watch.Watch().stream(
        apps.list_namespaced_deployment,
        namespace,
        field_selector=f"metadata.name={NAME}",
        timeout_seconds=DEADLINE_SECONDS,
    ):
        if event["type"] == "DELETED":
            break
    else:
        raise SystemExit("the Deployment was not deleted in time")
    assert not client.CoreV1Api().list_namespaced_pod(namespace, label_selector=f"app={NAME}").items
