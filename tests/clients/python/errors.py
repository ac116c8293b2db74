"""Errors as `ApiException` shows them: status code, reason phrase and the Status in the body, with details and causes."""

from kubernetes import client
from kubernetes.client.rest import ApiException

from refusals import refusal


def run(namespace: str) -> None:
    core, apps = client.CoreV1Api(), client.AppsV1Api()

    status = refusal(core.read_namespaced_config_map, "none", namespace)
    assert status["reason"] == "NotFound" and status["message"] == 'configmaps "none" not found', status
    assert status["details"] == {"name": "none", "kind": "configmaps"}, status
    try:
        core.read_namespaced_config_map("none", namespace)
    except ApiException as error:
        assert (error.status, error.reason) == (404, "Not Found"), error

    core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}})
    status = refusal(core.create_namespaced_config_map, namespace, {"metadata": {"name": "a"}})
    assert status["reason"] == "AlreadyExists" and status["message"] == 'configmaps "a" already exists', status

    first = core.read_namespaced_config_map("a", namespace)
    core.replace_namespaced_config_map("a", namespace, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    status = refusal(core.replace_namespaced_config_map, "a", namespace, first)
    assert status["code"] == 409 and status["reason"] == "Conflict", status
    assert status["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    ), status

    invalid = {
        "metadata": {"name": "Web"},
        "spec": {
            "replicas": -1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [{"name": "c", "image": "demo:v1"}]}},
        },
    }
    status = refusal(apps.create_namespaced_deployment, namespace, invalid)
    assert status["code"] == 422 and status["reason"] == "Invalid", status
    assert status["message"].startswith('Deployment.apps "Web" is invalid: ['), status
    assert status["details"]["group"] == "apps" and status["details"]["kind"] == "Deployment", status
    causes = {cause["field"]: cause["reason"] for cause in status["details"]["causes"]}
    assert causes == {
        "metadata.name": "FieldValueInvalid",
        "spec.replicas": "FieldValueInvalid",
        "spec.template.metadata.labels": "FieldValueInvalid",
    }, causes

    status = refusal(core.create_namespaced_config_map, namespace, {"metadata": {"name": "b"}, "data": {"k": 1}})
    assert status["code"] == 400 and status["reason"] == "BadRequest", status
    assert "cannot unmarshal number into Go struct field ConfigMap.data of type string" in status["message"], status

    strict = {"metadata": {"name": "b"}, "dota": {}, "data": {"k": "v"}}
    status = refusal(core.create_namespaced_config_map, namespace, strict, field_validation="Strict")
    assert status["code"] == 400 and 'strict decoding error: unknown field "dota"' in status["message"], status
    _, _, headers = core.create_namespaced_config_map_with_http_info(namespace, strict, dry_run="All", field_validation="Warn")
    assert headers["Warning"] == '299 - "unknown field \\"dota\\""', headers

    status = refusal(core.list_namespaced_pod, namespace, label_selector="a in b")
    assert status["code"] == 400 and "unable to parse requirement" in status["message"], status
    status = refusal(core.list_namespaced_pod, namespace, field_selector="spec.image=x")
    assert status["code"] == 400 and "field label not supported: spec.image" in status["message"], status

    stranger = client.Configuration.get_default_copy()
    stranger.cert_file, stranger.key_file, stranger.api_key = None, None, {"authorization": "Bearer nonsense"}
    status = refusal(client.CoreV1Api(client.ApiClient(stranger)).list_namespaced_pod, namespace)
    assert (status["code"], status["reason"], status["message"]) == (401, "Unauthorized", "Unauthorized"), status

    token = core.create_namespaced_service_account_token("default", namespace, {"spec": {"expirationSeconds": 600}}).status.token
    stranger.api_key = {"authorization": f"Bearer {token}"}
    account = client.ApiClient(stranger)
    status = refusal(client.CoreV1Api(account).list_namespaced_pod, namespace)
    assert status["code"] == 403 and status["reason"] == "Forbidden", status
    assert status["message"] == (
        f'pods is forbidden: User "system:serviceaccount:{namespace}:default" cannot list resource "pods" '
        f'in API group "" in the namespace "{namespace}"'
    ), status
    who = client.AuthenticationV1Api(account).create_self_subject_review({}).status.user_info
    assert who.username == f"system:serviceaccount:{namespace}:default", who
    may = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": namespace}}}
    assert client.AuthorizationV1Api().create_self_subject_access_review(may).status.allowed
    assert not client.AuthorizationV1Api(account).create_self_subject_access_review(may).status.allowed
