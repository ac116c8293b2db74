"""Manifests from files: `create_from_yaml` with several documents and Lists, a directory, and the same by apply."""

import pathlib
import tempfile

from kubernetes import client, utils

MANY = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {k: "=", v: "1"}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly}, spec: {schedule: "0 3 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "demo:v1"}]}}}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
"""


def run(namespace: str) -> None:
    api = client.ApiClient()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "many.yaml")
        path.write_text(MANY)
        made = utils.create_from_yaml(api, str(path), namespace=namespace)
        kinds = [each.kind for group in made for each in group]
        assert kinds == ["Service", "ConfigMap", "CronJob", "NetworkPolicy", "Role"], kinds
        try:
            utils.create_from_yaml(api, str(path), namespace=namespace)
            raise AssertionError("created twice")
        except utils.FailToCreateError as error:
            assert [each.status for each in error.api_exceptions] == [409] * 5, error
            assert 'configmaps \\"one\\" already exists' in str(error), error
        # Another manager may apply the same values; the same call then changes nothing.
        applied = utils.create_from_directory(api, folder, namespace=namespace, apply=True)
        again = utils.create_from_directory(api, folder, namespace=namespace, apply=True)
        assert versions_of(applied) == versions_of(again) != []
    service = client.CoreV1Api().read_namespaced_service("web", namespace)
    assert service.spec.cluster_ip and service.spec.ports[0].target_port == 8080, service


def versions_of(made: list) -> list[str]:
    """Of what files hold groups of objects."""
    return [each.metadata.resourceVersion for file in made for group in file for each in group]
