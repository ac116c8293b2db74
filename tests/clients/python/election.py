"""The client's leader election: one leads; when it can no longer renew, the other takes over."""

import threading

from kubernetes import client
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

DEADLINE_SECONDS = 60


class Candidate(ConfigMapLock):
    """A lock whose holder can be cut off from the server."""

    def __init__(self, namespace: str, identity: str):
        super().__init__("leader", namespace, identity)
        self.cut_off = False
        self.started, self.stopped = threading.Event(), threading.Event()
        config = electionconfig.Config(
            self,
            lease_duration=3,
            renew_deadline=2,
            retry_period=1,
            onstarted_leading=self.started.set,
            onstopped_leading=self.stopped.set,
        )
        self.thread = threading.Thread(target=leaderelection.LeaderElection(config).run, daemon=True)
        self.thread.start()

    def update(self, name, namespace, updated_record):
        return not self.cut_off and super().update(name, namespace, updated_record)


def run(namespace: str) -> None:
    one = Candidate(namespace, "one")
    assert one.started.wait(DEADLINE_SECONDS), "nobody leads"
    two = Candidate(namespace, "two")
    one.cut_off = True
    assert one.stopped.wait(DEADLINE_SECONDS), "one goes on leading"
    assert two.started.wait(DEADLINE_SECONDS), "nobody took over"
    lock = client.CoreV1Api().read_namespaced_config_map("leader", namespace)
    assert '"holderIdentity": "two"' in lock.metadata.annotations["control-plane.alpha.kubernetes.io/leader"], lock
    two.cut_off = True
    assert two.stopped.wait(DEADLINE_SECONDS), "two goes on leading"
