"""Deleting: propagation, preconditions, finalizers, collections, dry run."""

from kubernetes import client, watch

from refusals import refusal
from waiting import until


def replica_set(name: str) -> dict:
    labels = {"set": name}
    # No scheduler takes the pods: they end at once when deleted.
    pod = {"schedulerName": "nobody", "containers": [{"name": "c", "image": "demo:v1"}]}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def run(namespace: str) -> None:
    apps, core = client.AppsV1Api(), client.CoreV1Api()

    def pods(name: str) -> list:
        return core.list_namespaced_pod(namespace, label_selector=f"set={name}").items

    def gone(name: str) -> bool:
        return not apps.list_namespaced_replica_set(namespace, field_selector=f"metadata.name={name}").items

    for name in ["background", "foreground", "orphan"]:
        apps.create_namespaced_replica_set(namespace, replica_set(name))
    for name in ["background", "foreground", "orphan"]:
        until(f"the pods of {name}", lambda: len(pods(name)) == 2)

    status = apps.delete_namespaced_replica_set("background", namespace, propagation_policy="Background")
    assert status.status == "Success" and status.details.name == "background" and status.details.kind == "replicasets", status
    assert gone("background")
    until("the pods are collected", lambda: not pods("background"))

    version = apps.list_namespaced_replica_set(namespace).metadata.resource_version
    apps.delete_namespaced_replica_set("foreground", namespace, body=client.V1DeleteOptions(propagation_policy="Foreground"))
    finalizers = None
    for event in watch.Watch().stream(
        apps.list_namespaced_replica_set,
        namespace,
        field_selector="metadata.name=foreground",
        resource_version=version,
        timeout_seconds=60,
    ):
        meta = event["object"].metadata
        if meta.deletion_timestamp and finalizers is None:
            finalizers = meta.finalizers
        if event["type"] == "DELETED":
            break
    else:
        raise AssertionError("the ReplicaSet was not deleted")
    assert finalizers == ["foregroundDeletion"], finalizers
    assert not pods("foreground"), "the pods go first"

    apps.delete_namespaced_replica_set("orphan", namespace, body={"propagationPolicy": "Orphan"})
    until("the orphan's owner is gone", lambda: gone("orphan"))
    left = pods("orphan")
    assert len(left) == 2 and all(not pod.metadata.owner_references for pod in left), left
    status = refusal(apps.delete_namespaced_replica_set, "x", namespace, propagation_policy="Sideways")
    assert status["code"] == 422 and "propagationPolicy" in status["message"], status

    # Preconditions name the one that is meant.
    made = core.create_namespaced_config_map(namespace, {"metadata": {"name": "a", "finalizers": ["example.com/wait"]}})
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="00000000-0000-0000-0000-000000000000"))
    status = refusal(core.delete_namespaced_config_map, "a", namespace, body=wrong)
    assert status["code"] == 409, status
    assert (
        "the UID in the precondition (00000000-0000-0000-0000-000000000000) does not match "
        f"the UID in record ({made.metadata.uid}). The object might have been deleted and then recreated"
    ) in status["message"], status
    core.delete_namespaced_config_map("a", namespace, dry_run="All")
    assert core.read_namespaced_config_map("a", namespace).metadata.deletion_timestamp is None

    # A finalizer keeps the object until its owner takes it away.
    right = client.V1DeleteOptions(preconditions={"uid": made.metadata.uid, "resourceVersion": made.metadata.resource_version})
    core.delete_namespaced_config_map("a", namespace, body=right)
    assert core.read_namespaced_config_map("a", namespace).metadata.deletion_timestamp
    status = refusal(core.patch_namespaced_config_map, "a", namespace, {"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}})
    assert status["code"] == 422 and "no new finalizers can be added if the object is being deleted" in status["message"], status
    core.patch_namespaced_config_map("a", namespace, [{"op": "remove", "path": "/metadata/finalizers"}])
    assert refusal(core.read_namespaced_config_map, "a", namespace)["code"] == 404

    # Many at once.
    for name in ["x", "y", "z"]:
        core.create_namespaced_secret(namespace, {"metadata": {"name": name, "labels": {"keep": str(name == "z")}}, "stringData": {"k": "v"}})
    core.delete_collection_namespaced_secret(namespace, label_selector="keep=False")
    assert [item.metadata.name for item in core.list_namespaced_secret(namespace, label_selector="keep").items] == ["z"]
