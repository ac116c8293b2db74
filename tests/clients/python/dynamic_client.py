"""The dynamic client: discovery, and every verb by kind alone; server-side apply with conflicts."""

from kubernetes import client
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError, UnprocessibleEntityError


def run(namespace: str) -> None:
    dynamic = DynamicClient(client.ApiClient())
    assert dynamic.version["kubernetes"]["gitVersion"].startswith("v1.35."), dynamic.version
    deployments = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
    assert (deployments.name, deployments.namespaced, "deploy" in deployments.short_names) == ("deployments", True, True)
    assert "scale" in deployments.subresources and "patch" in deployments.verbs, deployments.subresources
    assert dynamic.resources.get(kind="HorizontalPodAutoscaler", preferred=True).group_version == "autoscaling/v2"
    assert dynamic.resources.get(api_version="v1", short_names=["cm"]).kind == "ConfigMap"
    try:
        dynamic.resources.get(api_version="v1", kind="Nonsense")
        raise AssertionError("found nonsense")
    except ResourceNotFoundError:
        pass

    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    made = maps.create(body={"metadata": {"name": "a"}, "data": {"k": "1"}}, namespace=namespace)
    assert made.metadata.uid and made.data.k == "1", made
    replaced = maps.replace(body={"metadata": {"name": "a", "resourceVersion": made.metadata.resourceVersion}, "data": {"k": "2"}}, namespace=namespace)
    try:
        maps.replace(body={"metadata": {"name": "a", "resourceVersion": made.metadata.resourceVersion}}, namespace=namespace)
        raise AssertionError("an old version was accepted")
    except ConflictError as error:
        assert error.status == 409 and "the object has been modified" in error.summary(), error
    try:
        maps.get(name="b", namespace=namespace)
        raise AssertionError("found nothing")
    except NotFoundError as error:
        assert 'configmaps "b" not found' in error.summary(), error
    try:
        maps.create(body={"metadata": {"name": "Not A Name"}}, namespace=namespace)
        raise AssertionError("accepted a bad name")
    except UnprocessibleEntityError as error:
        assert "a lowercase RFC 1123 subdomain must consist of" in error.summary(), error

    # The watch goes on from the version it is given.
    maps.patch(body={"metadata": {"name": "a"}, "data": {"k": "3"}}, namespace=namespace, content_type="application/merge-patch+json")
    events = maps.watch(namespace=namespace, name="a", resource_version=replaced.metadata.resourceVersion, timeout=60)
    event = next(events)
    assert (event["type"], event["object"].data.k) == ("MODIFIED", "3"), event

    # Apply: two managers share an object, and each owns its own fields.
    def apply(manager: str, data: dict, **kwargs):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data}
        return maps.server_side_apply(body=body, namespace=namespace, field_manager=manager, **kwargs)

    apply("one", {"color": "red", "size": "small"})
    try:
        apply("two", {"color": "blue"})
        raise AssertionError("another's field was taken without force")
    except ConflictError as error:
        assert 'Apply failed with 1 conflict: conflict with "one": .data.color' in error.summary(), error
    shared = apply("two", {"color": "blue"}, force_conflicts=True)
    assert shared.data.to_dict() == {"color": "blue", "size": "small"}, shared
    shared = apply("one", {"weight": "1"})
    assert shared.data.to_dict() == {"color": "blue", "weight": "1"}, shared
    managers = {entry.manager: entry.fieldsV1.to_dict() for entry in shared.metadata.managedFields}
    assert managers == {"one": {"f:data": {"f:weight": {}}}, "two": {"f:data": {"f:color": {}}}}, managers

    # A subresource by the parent's kind; a list of all kinds of items.
    deployment = {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "demo:v1"}]}},
        },
    }
    deployments.create(body=deployment, namespace=namespace)
    scale = deployments.scale.patch(
        name="web", namespace=namespace, body={"spec": {"replicas": 1}}, content_type="application/merge-patch+json"
    )
    assert scale.kind == "Scale" and scale.spec.replicas == 1, scale
    listed = deployments.get(namespace=namespace)
    assert listed.kind == "DeploymentList" and [item.metadata.name for item in listed.items] == ["web"], listed
    deployments.delete(name="web", namespace=namespace, body={"propagationPolicy": "Background"})
    maps.delete(namespace=namespace, field_selector="metadata.name=a")
    assert "a" not in [item.metadata.name for item in maps.get(namespace=namespace).items]
