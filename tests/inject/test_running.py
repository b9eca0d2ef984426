"""What stands in an injected pod runs: weir, started as the kubelet would start it."""

import contextlib
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import yaml

from test_schemas import WEIR, inject

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: app
  annotations: {annotations}
spec:
  containers:
  - name: app
    image: app
"""
# What the downward API says of the pod.
FIELDS = {
    "metadata.name": "app-1",
    "metadata.namespace": "shop",
    "metadata.uid": "0b9c3a2e-0000-4000-8000-000000000001",
    "spec.nodeName": "node-1",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def sidecar(directory, annotations, options=()):
    """The process of a pod's sidecar, and the variables that the app's container has."""
    ports = {"weir.dev/port": str(free_port()), "weir.dev/admin-port": str(free_port())}
    manifest = POD.format(annotations=json.dumps({**annotations, **ports}))
    pod = yaml.safe_load(inject(manifest, *options)[0])
    container = pod["spec"]["initContainers"][0]
    assert container["args"] == ["run"]
    environment = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        value = FIELDS[source["fieldRef"]["fieldPath"]] if "fieldRef" in source else variable.get("value", "a-key")
        # Where the volumes are mounted is this machine's here, and the pod's address is its loopback.
        value = value.replace("/etc/weir", str(directory)).replace("/var/lib/weir", str(directory / "state"))
        environment[variable["name"]] = value.replace("0.0.0.0:", "127.0.0.1:")
    process = subprocess.Popen([WEIR, *container["args"]], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        ready = f"http://127.0.0.1:{ports['weir.dev/admin-port']}{container['startupProbe']['httpGet']['path']}"
        wait_for(ready, process)
        yield process, {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}, ports
    finally:
        process.kill()
        process.wait()


def wait_for(url, process):
    for _ in range(300):
        assert process.poll() is None, process.stderr.read()
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


@pytest.mark.parametrize(
    ("annotations", "options"),
    [
        ({}, []),
        ({"weir.dev/cache": "off", "weir.dev/log-level": "debug", "weir.dev/service": "checkout"}, []),
        ({"weir.dev/state": "disk:1Gi", "weir.dev/secret": "keys"}, []),
        ({}, ["--set", 'inject.env={WEIR_DEFAULTS: "{cache: {ttl: 5m}, of_tomorrow: 1}"}']),
    ],
    ids=["as it comes", "annotated", "with a disk and keys", "with defaults of the cluster"],
)
def test_the_sidecar_runs_and_the_app_is_led_to_it(tmp_path, annotations, options):
    with sidecar(tmp_path, annotations, options) as (process, variables, ports):
        assert variables["OPENAI_BASE_URL"] == f"http://127.0.0.1:{ports['weir.dev/port']}/openai/v1"
        # weir answers there: nobody has asked for such a thing before, and no provider is needed to say so.
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{ports['weir.dev/port']}/nobody/v1/models", timeout=5)
        assert refused.value.code == 404
        # A ConfigMap that comes later is taken, with a name of a newer weir in it.
        (tmp_path / "weir.yaml").write_text("providers: { mine: { api: openai, base_url: 'http://127.0.0.1:9' } }\nnewer: 1\n")
        process.send_signal(signal.SIGHUP)
        for _ in range(100):
            request = urllib.request.Request(
                f"http://127.0.0.1:{ports['weir.dev/port']}/mine/v1/models", headers={"authorization": "Bearer x"}
            )
            with pytest.raises(urllib.error.HTTPError) as answered:
                urllib.request.urlopen(request, timeout=5)
            if answered.value.code == 502:
                break
            time.sleep(0.1)
        assert answered.value.code == 502, "the new provider is known, and not there"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
