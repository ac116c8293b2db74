"""Lists page by page, pinned to the version of the first page; selectors, and the rules of `resourceVersionMatch`."""

from kubernetes import client

from refusals import refusal

COUNT = 25
PAGE = 10


def run(namespace: str) -> None:
    core = client.CoreV1Api()
    for number in range(COUNT):
        labels = {"half": "low" if number < COUNT // 2 else "high"}
        core.create_namespaced_config_map(namespace, {"metadata": {"name": f"m-{number:02}", "labels": labels}})
    ours = {"label_selector": "half"}

    first = core.list_namespaced_config_map(namespace, limit=PAGE, **ours)
    # What comes and goes after the first page is not in the others.
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "m-99", "labels": {"half": "late"}}})
    core.delete_namespaced_config_map("m-24", namespace)
    pages = [first]
    while pages[-1].metadata._continue:
        pages.append(core.list_namespaced_config_map(namespace, limit=PAGE, _continue=pages[-1].metadata._continue, **ours))
    assert [len(page.items) for page in pages] == [10, 10, 5], pages
    names = [item.metadata.name for page in pages for item in page.items]
    assert names == [f"m-{number:02}" for number in range(COUNT)], names
    assert len({page.metadata.resource_version for page in pages}) == 1
    now = [item.metadata.name for item in core.list_namespaced_config_map(namespace, **ours).items]
    assert "m-99" in now and "m-24" not in now, now

    # Without a label selector the server says how many are left.
    counted = core.list_namespaced_config_map(namespace, limit=PAGE)
    total = len(core.list_namespaced_config_map(namespace).items)
    assert counted.metadata.remaining_item_count == total - PAGE, counted.metadata

    status = refusal(core.list_namespaced_config_map, namespace, limit=PAGE, _continue="nonsense")
    assert status["code"] == 400 and "continue key is not valid" in status["message"], status
    token = first.metadata._continue
    status = refusal(core.list_namespaced_config_map, namespace, limit=PAGE, _continue=token, resource_version="1")
    assert status["code"] == 400, status

    # Label and field selectors.
    def names_of(**selectors) -> list[str]:
        return [item.metadata.name for item in core.list_namespaced_config_map(namespace, **selectors).items]

    low = [f"m-{number:02}" for number in range(COUNT // 2)]
    assert names_of(label_selector="half=low") == low
    assert names_of(label_selector="half notin (high, late),half") == low
    assert names_of(field_selector="metadata.name=m-03") == ["m-03"]
    assert names_of(label_selector="half=low", field_selector="metadata.name!=m-00") == low[1:]
    everywhere = core.list_config_map_for_all_namespaces(field_selector=f"metadata.namespace={namespace}", label_selector="half=low")
    assert [item.metadata.name for item in everywhere.items] == low

    # How new an answer has to be.
    version = core.read_namespaced_config_map("m-00", namespace).metadata.resource_version
    newest = core.list_namespaced_config_map(namespace).metadata.resource_version
    exact = core.list_namespaced_config_map(namespace, resource_version=version, resource_version_match="Exact", **ours)
    assert [item.metadata.name for item in exact.items] == ["m-00"] and exact.metadata.resource_version == version, exact
    later = core.list_namespaced_config_map(namespace, resource_version=newest, resource_version_match="NotOlderThan")
    assert int(later.metadata.resource_version) >= int(newest), later.metadata
    assert core.list_namespaced_config_map(namespace, resource_version="0").items
    status = refusal(core.list_namespaced_config_map, namespace, resource_version_match="Exact")
    assert status["code"] == 422 or status["code"] == 400, status
    assert "resourceVersionMatch is forbidden unless resourceVersion is provided" in status["message"], status
