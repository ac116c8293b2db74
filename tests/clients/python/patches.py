"""The patch types through the typed client: JSON, merge, strategic merge and apply, on a Deployment and its subresources."""

from kubernetes import client

from refusals import refusal

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
# More writes than its controller makes in a row.
TRIES = 20


def run(namespace: str) -> None:
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    apps.create_namespaced_deployment(namespace, deployment())

    def patch(content_type: str, body, **kwargs):
        return sending(client.AppsV1Api, content_type).patch_namespaced_deployment("web", namespace, body, **kwargs)

    # A list of operations.
    operations = [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "add", "path": "/spec/paused", "value": True},
        {"op": "add", "path": "/metadata/annotations", "value": {"one/two": "x"}},
        {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "side", "image": "demo:v1"}},
    ]
    patched = patch(JSON_PATCH, operations)
    assert patched.spec.paused and [c.name for c in patched.spec.template.spec.containers] == ["web", "side"], patched
    patched = patch(JSON_PATCH, [{"op": "replace", "path": "/metadata/annotations/one~1two", "value": "y"}])
    assert patched.metadata.annotations["one/two"] == "y", patched
    status = refusal(patch, JSON_PATCH, [{"op": "test", "path": "/spec/replicas", "value": 7}])
    assert status["code"] == 422 and status["reason"] == "Invalid", status
    status = refusal(patch, JSON_PATCH, [{"op": "remove", "path": "/spec/nothing"}])
    assert status["code"] == 422, status

    # Left to itself the client sends a list as a JSON patch and a dictionary as a strategic merge patch.
    patched = apps.patch_namespaced_deployment("web", namespace, [{"op": "add", "path": "/metadata/labels/list", "value": "y"}])
    assert patched.metadata.labels["list"] == "y", patched
    patched = apps.patch_namespaced_deployment("web", namespace, {"metadata": {"labels": {"by": "default"}}})
    assert patched.metadata.labels["by"] == "default", patched

    # Containers are merged by name; `$patch` deletes one, `$setElementOrder` orders them.
    patched = patch(
        STRATEGIC,
        {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "1"}]}]}}}},
    )
    web, side = patched.spec.template.spec.containers
    assert web.image == "demo:v1" and web.env[0].value == "1" and side.name == "side", patched
    order = {"$setElementOrder/containers": [{"name": "side"}, {"name": "web"}]}
    patched = patch(STRATEGIC, {"spec": {"template": {"spec": order}}})
    assert [c.name for c in patched.spec.template.spec.containers] == ["side", "web"], patched
    removal = {"containers": [{"name": "side", "$patch": "delete"}]}
    patched = patch(STRATEGIC, {"spec": {"template": {"spec": removal}, "strategy": {"$retainKeys": ["type"], "type": "Recreate"}}})
    assert [c.name for c in patched.spec.template.spec.containers] == ["web"], patched
    assert patched.spec.strategy.type == "Recreate" and patched.spec.strategy.rolling_update is None, patched

    # A merge patch takes the list as a whole, and null as removal.
    containers = [{"name": "only", "image": "demo:v1"}]
    body = {"metadata": {"annotations": {"one/two": None}}, "spec": {"paused": None, "template": {"spec": {"containers": containers}}}}
    patched = patch(MERGE, body)
    assert [c.name for c in patched.spec.template.spec.containers] == ["only"], patched
    assert not patched.spec.paused and "one/two" not in (patched.metadata.annotations or {}), patched
    stale = {"metadata": {"resourceVersion": "1"}}
    status = refusal(patch, MERGE, stale)
    assert status["reason"] == "Conflict", status
    rehearsed = patch(MERGE, {"spec": {"paused": True}}, dry_run="All")
    assert rehearsed.spec.paused and not apps.read_namespaced_deployment("web", namespace).spec.paused

    # Apply owns what it sets; who sets another's field is told whose it is, unless it forces.
    wanted = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1}}
    status = refusal(patch, APPLY, wanted, field_manager="applier")
    assert status["code"] == 409, status
    assert status["message"] == 'Apply failed with 1 conflict: conflict with "OpenAPI-Generator" using apps/v1: .spec.replicas', status
    assert status["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "OpenAPI-Generator" using apps/v1', "field": ".spec.replicas"}
    ], status
    applied = patch(APPLY, wanted, field_manager="applier", force=True)
    owner = [entry for entry in applied.metadata.managed_fields if entry.manager == "applier"]
    assert [(entry.operation, entry.fields_v1) for entry in owner] == [("Apply", {"f:spec": {"f:replicas": {}}})], owner
    # A field that its only owner no longer applies goes, here back to its default.
    del wanted["spec"]["replicas"]
    applied = patch(APPLY, wanted, field_manager="applier")
    assert applied.spec.replicas == 1, applied
    status = refusal(patch, APPLY, wanted)
    assert status["code"] == 422 and "fieldManager" in status["message"], status

    # Subresources: scale and status.
    scaled = sending(client.AppsV1Api, MERGE).patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 0}})
    assert scaled.spec.replicas == 0 and scaled.status.selector == "app=web", scaled
    assert replace_scale(apps, namespace, 2).spec.replicas == 2
    assert apps.read_namespaced_deployment("web", namespace).spec.replicas == 2
    pod = {"metadata": {"name": "p"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "demo:v1"}]}}
    core.create_namespaced_pod(namespace, pod)
    condition = {"type": "example.com/Ready", "status": "True"}
    patched = core.patch_namespaced_pod_status("p", namespace, {"status": {"conditions": [condition]}, "spec": {"nodeName": "x"}})
    assert patched.spec.node_name is None, patched
    assert "example.com/Ready" in [each.type for each in patched.status.conditions], patched


def replace_scale(apps: client.AppsV1Api, namespace: str, replicas: int):
    """Replaces what it has read, as often as the Deployment's controller writes in between."""
    for attempt in range(TRIES):
        scale = apps.read_namespaced_deployment_scale("web", namespace)
        scale.spec.replicas = replicas
        try:
            return apps.replace_namespaced_deployment_scale("web", namespace, scale)
        except client.ApiException as error:
            if error.status != 409 or attempt + 1 == TRIES:
                raise


def sending(api, content_type: str):
    """An API whose requests have this content type."""
    return api(client.ApiClient(header_name="Content-Type", header_value=content_type))


def deployment() -> dict:
    labels = {"app": "web"}
    return {
        "metadata": {"name": "web", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "demo:v1"}]}},
        },
    }
