"""Watches: events in order, resuming from a version, bookmarks, lists as streams."""

import threading

from kubernetes import client, watch

SECONDS = 60


def run(namespace: str) -> None:
    core = client.CoreV1Api()
    selector = {"label_selector": "watched"}

    def change(name: str, value: str) -> None:
        core.patch_namespaced_config_map(name, namespace, {"data": {"value": value}})

    def create(name: str) -> None:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": name, "labels": {"watched": "yes"}}, "data": {"value": "0"}})

    # What is there comes first as ADDED, then what happens, in order.
    create("a")
    seen = []
    watching = watch.Watch()
    writer = threading.Thread(target=lambda: (change("a", "1"), create("b"), core.delete_namespaced_config_map("b", namespace)))
    for event in watching.stream(core.list_namespaced_config_map, namespace, timeout_seconds=SECONDS, **selector):
        seen.append((event["type"], event["object"].metadata.name, event["object"].data["value"]))
        if len(seen) == 1:
            writer.start()
        if event["type"] == "DELETED":
            watching.stop()
    writer.join()
    assert seen == [("ADDED", "a", "0"), ("MODIFIED", "a", "1"), ("ADDED", "b", "0"), ("DELETED", "b", "0")], seen

    # The client takes up again where its watch ended: nothing is lost, nothing comes twice.
    resumed_from = watching.resource_version
    change("a", "2")
    change("a", "3")
    values = []
    for event in watching.stream(
        core.list_namespaced_config_map, namespace, resource_version=resumed_from, timeout_seconds=SECONDS, **selector
    ):
        values.append(event["object"].data["value"])
        if values[-1] == "3":
            watching.stop()
    assert values == ["2", "3"], values

    # An object that leaves the selection is DELETED for who watches it, and ADDED when it comes back.
    version = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"watched": None}}})
    core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"watched": "again"}}})
    turns = []
    for event in watching.stream(core.list_namespaced_config_map, namespace, resource_version=version, timeout_seconds=SECONDS, **selector):
        turns.append(event["type"])
        if len(turns) == 2:
            watching.stop()
    assert turns == ["DELETED", "ADDED"], turns

    # A watch ends by itself after `timeoutSeconds`; asked for, a bookmark says how far it was.
    kinds = []
    for event in watching.stream(
        core.list_namespaced_config_map, namespace, resource_version="0", timeout_seconds=3, allow_watch_bookmarks=True, **selector
    ):
        kinds.append((event["type"], event["raw_object"]["metadata"]["resourceVersion"]))
    assert kinds[0][0] == "ADDED", kinds
    assert kinds[-1][0] == "BOOKMARK" and int(kinds[-1][1]) >= int(kinds[0][1]), kinds

    # A list as a stream: the objects, then a bookmark that says that these are all.
    ends = None
    for event in watching.stream(
        core.list_namespaced_config_map,
        namespace,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        allow_watch_bookmarks=True,
        timeout_seconds=SECONDS,
        **selector,
    ):
        if event["type"] == "BOOKMARK":
            ends = event["raw_object"]["metadata"].get("annotations", {}).get("k8s.io/initial-events-end")
            watching.stop()
        else:
            assert event["type"] == "ADDED", event
    assert ends == "true", ends
