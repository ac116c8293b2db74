"""A CustomResourceDefinition and its objects: established, validated, defaulted, patched, scaled, listed, watched, removed."""

from kubernetes import client, watch

from refusals import refusal
from waiting import until

GROUP, VERSION, PLURAL = "python.example.com", "v1", "sails"
KIND = "Sail"
RULE = {"rule": "self.replicas <= self.limit", "message": "more replicas than the limit"}
FIXED = {"rule": "self == oldSelf", "message": "cloth cannot be changed"}
SPEC = {
    "type": "object",
    "required": ["cloth"],
    "properties": {
        "cloth": {"type": "string", "enum": ["canvas", "dacron"], "x-kubernetes-validations": [FIXED]},
        "replicas": {"type": "integer", "default": 1},
        "limit": {"type": "integer", "default": 5},
    },
    "x-kubernetes-validations": [RULE],
}
STATUS = {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}


def definition() -> client.V1CustomResourceDefinition:
    schema = client.V1JSONSchemaProps(type="object", properties={"spec": SPEC, "status": STATUS})
    version = client.V1CustomResourceDefinitionVersion(
        name=VERSION,
        served=True,
        storage=True,
        schema=client.V1CustomResourceValidation(open_apiv3_schema=schema),
        selectable_fields=[client.V1SelectableField(json_path=".spec.cloth")],
        subresources=client.V1CustomResourceSubresources(
            status={},
            scale=client.V1CustomResourceSubresourceScale(
                spec_replicas_path=".spec.replicas", status_replicas_path=".status.replicas", label_selector_path=".status.selector"
            ),
        ),
    )
    names = client.V1CustomResourceDefinitionNames(plural=PLURAL, singular="sail", kind=KIND, categories=["rigging"])
    spec = client.V1CustomResourceDefinitionSpec(group=GROUP, scope="Namespaced", names=names, versions=[version])
    return client.V1CustomResourceDefinition(metadata=client.V1ObjectMeta(name=f"{PLURAL}.{GROUP}"), spec=spec)


def sail(name: str, **spec) -> dict:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "spec": spec}


def run(namespace: str) -> None:
    extensions, custom = client.ApiextensionsV1Api(), client.CustomObjectsApi()
    made = extensions.create_custom_resource_definition(definition())
    for event in watch.Watch().stream(
        extensions.list_custom_resource_definition, field_selector=f"metadata.name={made.metadata.name}", timeout_seconds=60
    ):
        conditions = event["object"].status.conditions or []
        if any(each.type == "Established" and each.status == "True" for each in conditions):
            break
    else:
        raise AssertionError("the definition was not established")
    here = (GROUP, VERSION, namespace, PLURAL)

    # Served from the moment it is established.
    main = custom.create_namespaced_custom_object(*here, sail("main", cloth="canvas"))
    assert main["spec"] == {"cloth": "canvas", "replicas": 1, "limit": 5} and main["metadata"]["generation"] == 1, main
    status = refusal(custom.create_namespaced_custom_object, *here, sail("bad", cloth="paper"))
    assert status["code"] == 422 and 'spec.cloth: Unsupported value: "paper": supported values: "canvas", "dacron"' in status["message"], status
    status = refusal(custom.create_namespaced_custom_object, *here, sail("bad", cloth="canvas", replicas=9))
    assert status["message"] == f'{KIND}.{GROUP} "bad" is invalid: spec: Invalid value: more replicas than the limit', status
    status = refusal(custom.create_namespaced_custom_object, *here, sail("bad", cloth="canvas", colour="red"), field_validation="Strict")
    assert 'strict decoding error: unknown field "spec.colour"' in status["message"], status

    # Left to itself the client sends a merge patch, whatever it is given.
    merged = custom.patch_namespaced_custom_object(*here, "main", {"spec": {"replicas": 2}})
    assert merged["spec"]["replicas"] == 2 and merged["metadata"]["generation"] == 2, merged
    operations = client.CustomObjectsApi(client.ApiClient(header_name="Content-Type", header_value="application/json-patch+json"))
    merged = operations.patch_namespaced_custom_object(*here, "main", [{"op": "replace", "path": "/spec/replicas", "value": 3}])
    assert merged["spec"]["replicas"] == 3, merged
    status = refusal(custom.patch_namespaced_custom_object, *here, "main", {"spec": {"cloth": "dacron"}})
    assert 'spec.cloth: Invalid value: "dacron": cloth cannot be changed' in status["message"], status

    # Status and scale.
    custom.patch_namespaced_custom_object_status(*here, "main", {"status": {"replicas": 3, "selector": "sail=main"}, "spec": {"replicas": 1}})
    main = custom.get_namespaced_custom_object(*here, "main")
    assert main["status"] == {"replicas": 3, "selector": "sail=main"} and main["spec"]["replicas"] == 3, main
    assert main["metadata"]["generation"] == 3, main
    scale = custom.get_namespaced_custom_object_scale(*here, "main")
    assert scale["spec"] == {"replicas": 3} and scale["status"] == {"replicas": 3, "selector": "sail=main"}, scale
    scale = custom.patch_namespaced_custom_object_scale(*here, "main", {"spec": {"replicas": 4}})
    assert scale["kind"] == "Scale" and scale["apiVersion"] == "autoscaling/v1", scale
    assert custom.get_namespaced_custom_object(*here, "main")["spec"]["replicas"] == 4

    # Lists with selectors, pages and watches.
    for name in ["jib", "spinnaker"]:
        custom.create_namespaced_custom_object(*here, sail(name, cloth="dacron"))
    listed = custom.list_namespaced_custom_object(*here, field_selector="spec.cloth=dacron")
    assert listed["kind"] == "SailList" and [item["metadata"]["name"] for item in listed["items"]] == ["jib", "spinnaker"], listed
    page = custom.list_namespaced_custom_object(*here, limit=2)
    rest = custom.list_namespaced_custom_object(*here, limit=2, _continue=page["metadata"]["continue"])
    assert [item["metadata"]["name"] for item in page["items"] + rest["items"]] == ["jib", "main", "spinnaker"]
    assert [item["metadata"]["name"] for item in custom.list_cluster_custom_object(GROUP, VERSION, PLURAL)["items"]] == ["jib", "main", "spinnaker"]
    custom.delete_namespaced_custom_object(*here, "jib")
    for event in watch.Watch().stream(
        custom.list_namespaced_custom_object, *here, resource_version=listed["metadata"]["resourceVersion"], timeout_seconds=60
    ):
        assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", "jib"), event
        break
    else:
        raise AssertionError("no event")

    # With the definition go its objects.
    extensions.delete_custom_resource_definition(made.metadata.name)
    until("the definition is gone", lambda: not extensions.list_custom_resource_definition(field_selector=f"metadata.name={made.metadata.name}").items)

    def unserved() -> bool:
        try:
            custom.list_namespaced_custom_object(*here)
            return False
        except client.ApiException as error:
            return error.status == 404

    until("the kind is no longer served", unserved)
