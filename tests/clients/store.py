"""Uses a store with the packages etcd3 (gRPC) and etcd3gw (the JSON gateway), and prints what it sees without ids and times."""

import os
import sys

import etcd3
import etcd3gw

HOST, PORT = sys.argv[1].split(":")


def with_grpc() -> None:
    client = etcd3.client(host=HOST, port=int(PORT), timeout=10)
    print(client.put("a/1", "x") is not None, client.get("a/1")[0], client.get("absent"))
    client.put("a/2", "y")
    print([(value, meta.key, meta.version) for value, meta in client.get_prefix("a/")])
    print([meta.key for _, meta in client.get_prefix("a/", sort_order="descend", sort_target="key")])
    print(client.replace("a/1", "x", "z"), client.replace("a/1", "x", "z"))
    print(client.put_if_not_exists("a/1", "w"), client.put_if_not_exists("a/3", "w"))
    succeeded, responses = client.transaction(
        compare=[client.transactions.value("a/1") == "z", client.transactions.version("a/1") > 0],
        success=[client.transactions.put("a/4", "v"), client.transactions.get("a/1")],
        failure=[client.transactions.delete("a/1")],
    )
    print(succeeded, len(responses))
    events, cancel = client.watch_prefix("a/", start_revision=2)
    seen = []
    for event in events:
        seen.append((type(event).__name__, event.key, event.value))
        if len(seen) == 5:
            cancel()
    print(seen)
    lease = client.lease(60)
    client.put("leased", "1", lease=lease)
    print(lease.granted_ttl, lease.keys, len(lease.refresh()))
    lease.revoke()
    print(client.get("leased"))
    with client.lock("mutex", ttl=20) as lock:
        print(lock.is_acquired())
    print(lock.is_acquired())
    print(client.delete("a/1"), client.delete("a/1"), client.delete_prefix("a/").deleted)
    print(len(list(client.members)), client.status().version.startswith("3.5."))
    client.compact(5)
    with open("/dev/null", "wb") as nowhere:
        client.snapshot(nowhere)
    print(client.hash() is not None)


def with_gateway() -> None:
    client = etcd3gw.client(host=HOST, port=int(PORT), api_path="/v3/")
    print(client.put("g/1", "x"), client.get("g/1"), client.get("absent"))
    client.put("g/2", "y")
    print([(value, meta["key"], meta["version"]) for value, meta in client.get_prefix("g/")])
    print(client.create("g/1", "w"), client.create("g/3", "w"))
    print(client.replace("g/1", "x", "z"), client.replace("g/1", "x", "z"))
    lease = client.lease(ttl=60)
    client.put("g/leased", "1", lease=lease)
    print(lease.ttl() in (59, 60), [key for key in lease.keys()], lease.refresh() in (59, 60))
    lease.revoke()
    print(client.get("g/leased"))
    events, cancel = client.watch("g/new")
    client.put("g/new", "1")
    for event in events:
        print(event["kv"]["key"], event["kv"]["value"])
        cancel()
        break
    print(client.delete("g/1"), client.delete("g/1"), client.delete_prefix("g/"))
    print(client.status()["version"].startswith("3.5."), len(client.members()))


{"grpc": with_grpc, "gateway": with_gateway}[sys.argv[2]]()
print("done", flush=True)
# etcd3 starts its watch thread again when its channel is closed.
os._exit(0)
