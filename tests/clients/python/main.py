"""Runs parts of the official Python client, side by side, against the cluster of the kubeconfig named on the command line: those named
after it, or the usual ones.

Each part is a module with a function `run(namespace)`, which has the namespace for itself. Prints one line a part; exits with an
error if one fails.
"""

import importlib
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed

from kubernetes import client, config

# Not `dynamic_client` and `files`: they search all groups, and one that goes meanwhile is an error to the client. They need a cluster whose
# definitions stay.
PARTS = ["custom_objects", "deletion", "deployment", "election", "errors", "lists", "patches", "watches"]


def run(part: str) -> float:
    started = time.monotonic()
    namespace = f"python-{part.replace('_', '-')}"
    client.CoreV1Api().create_namespace({"metadata": {"name": namespace}})
    importlib.import_module(part).run(namespace)
    client.CoreV1Api().delete_namespace(namespace)
    return time.monotonic() - started


def main() -> None:
    config.load_kube_config(config_file=sys.argv[1])
    parts = sys.argv[2:] or PARTS
    failed = False
    with ThreadPoolExecutor(len(parts)) as pool:
        running = {pool.submit(run, part): part for part in parts}
        for done in as_completed(running):
            if error := done.exception():
                failed = True
                traceback.print_exception(error)
            print(f"{running[done]}: {'failed' if error else f'ok in {done.result():.1f} s'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
