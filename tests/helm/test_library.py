"""A chart that includes the sidecar itself gets the one that the injector makes."""

import json
import re
import shutil
import subprocess

import helm_python
import kubernetes_validate
import pytest
import yaml

from house import ROOT, WEIR
from rendering import CHART, only, objects, refused

LIBRARY = ROOT / "helm/weir-lib"
APP = ROOT / "tests/helm/app"
IMAGE = "ghcr.io/weir-dev/weir:0.1.0"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The example with the library in `charts/`, where `helm dependency update` puts it."""
    folder = tmp_path_factory.mktemp("app") / "app"
    shutil.copytree(APP, folder)
    shutil.copytree(LIBRARY, folder / "charts/weir-lib")
    return folder


def deployment(app, values=None):
    return only(objects(values, name="app", namespace="team-a", folder=app), "Deployment")


def pod(app, values=None):
    return deployment(app, {"weir-lib": values or {}})["spec"]["template"]["spec"]


def sidecar(app, values=None):
    [container] = pod(app, values)["initContainers"]
    return container


def values_of_env(container):
    return {one["name"]: one.get("value") for one in container["env"]}


def test_lint_has_nothing_to_say(app):
    for folder in (LIBRARY, app):
        report = helm_python.lint(str(folder), {}, strict=True, namespace="team-a")
        worth_telling = [one for one in report["messages"] if one["error"] != "icon is recommended"]
        assert (report["errors"], worth_telling) == ([], [])


@pytest.mark.parametrize("values", [{}, {"runAsUser": None, "configMap": "", "await": False, "providers": [], "resources": {}}])
def test_kubernetes_knows_every_field(app, values):
    for minor in ("1.33", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(deployment(app, {"weir-lib": values}), minor, strict=True)


def injected(app, tmp_path, settings=None):
    """What `weir inject` makes of the same Deployment without the library."""
    if "--manifest" not in subprocess.run([WEIR, "inject", "--help"], text=True, capture_output=True, check=False).stdout:
        pytest.skip("this weir has no `inject --manifest`")
    file = tmp_path / "app.yaml"
    file.write_text(yaml.safe_dump(deployment(app, {"withWeir": False})))
    config = tmp_path / "weir.yaml"
    config.write_text(yaml.safe_dump({"inject": {"image": IMAGE} | (settings or {})}))
    command = [WEIR, "inject", "--config", str(config), "--manifest", str(file)]
    said = subprocess.run(command, text=True, capture_output=True, check=False, env={})
    assert said.returncode == 0, said.stderr
    return yaml.safe_load(said.stdout)["spec"]["template"]


def test_the_container_is_the_injectors(app, tmp_path):
    theirs, ours = injected(app, tmp_path)["spec"], pod(app)
    assert ours["initContainers"] == theirs["initContainers"]
    assert ours["volumes"] == theirs["volumes"]
    assert ours["containers"] == theirs["containers"]


ALL = ["openai", "anthropic", "gemini", "vertex", "groq", "cohere", "azure"]
# Values of the library, and the injector's settings that mean the same.
OTHERWISE = {
    "ports": ({"port": 4000, "adminPort": 4001}, {"port": 4000, "admin_port": 4001}),
    "no ConfigMap": ({"configMap": ""}, {"config_map": ""}),
    "another ConfigMap": ({"configMap": "llm"}, {"config_map": "llm"}),
    "the cluster's user": ({"runAsUser": None}, {"run_as_user": None}),
    "no waiting": ({"await": False}, {"await": False}),
    "all providers": ({"providers": ALL}, {"providers": ALL}),
    "another order of providers": ({"providers": ["gemini", "openai"]}, {"providers": ["gemini", "openai"]}),
    "a limit of CPU": ({"resources": {"limits": {"cpu": "1"}}}, {"resources": {"cpu_limit": "1"}}),
    "local storage": (
        {"resources": {"requests": {"ephemeral-storage": "16Mi"}}},
        {"resources": {"ephemeral_storage_request": "16Mi"}},
    ),
    "defaults and variables": (
        {"defaults": {"cache": {"mode": "off"}}, "env": {"WEIR_LOG": "info", "A": "b"}},
        {"env": {"WEIR_LOG": "info", "A": "b", "WEIR_DEFAULTS": '{"cache":{"mode":"off"}}'}},
    ),
    "always pulled": ({"imagePullPolicy": "Always"}, {"image_pull_policy": "Always"}),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_settings_mean_the_same_in_both(app, tmp_path, what):
    values, settings = OTHERWISE[what]
    theirs, ours = injected(app, tmp_path, settings)["spec"], pod(app, values)
    assert ours["initContainers"] == theirs["initContainers"]
    assert ours.get("volumes") or None == theirs.get("volumes")
    assert ours["containers"] == theirs["containers"]


def test_labels_are_those_of_an_injected_pod_that_is_left_alone(app, tmp_path):
    labels = deployment(app)["spec"]["template"]["metadata"]["labels"]
    assert labels["weir.dev/inject"] == "false", "the webhook is not asked"
    theirs = injected(app, tmp_path)["metadata"]["labels"]
    assert labels == theirs | {"weir.dev/inject": "false"}


def test_the_app_is_led_to_weir(app):
    [container] = pod(app)["containers"]
    assert values_of_env(container) == {
        "OPENAI_BASE_URL": "http://127.0.0.1:9347/openai/v1",
        "OPENAI_API_BASE": "http://127.0.0.1:9347/openai/v1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9347/anthropic",
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9347/gemini",
    }


def test_variables_of_the_sidecar_are_yours(app):
    values = {"env": {"WEIR_LOG": "debug"}, "defaults": {"cache": {"mode": "off"}}, "service": "checkout"}
    env = values_of_env(sidecar(app, values | {"workload": {"kind": "CronJob", "name": "nightly"}}))
    assert env["OTEL_RESOURCE_ATTRIBUTES"].endswith(",k8s.cronjob.name=nightly")
    assert (env["WEIR_LOG"], env["OTEL_SERVICE_NAME"]) == ("debug", "checkout")
    assert json.loads(env["WEIR_DEFAULTS"]) == {"cache": {"mode": "off"}}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"weir-lib": {"prot": 1}}, ["weir-lib", "'prot'"]),
        ({"weir-lib": {"port": 80}}, ["weir-lib", "/port"]),
        ({"weir-lib": {"providers": ["gpt"]}}, ["/providers/0"]),
        ({"weir-lib": {"workload": {"kind": "Pod"}}}, ["/workload/kind", "Deployment"]),
        ({"weir-lib": {"env": {"WEIR_LISTEN": "0.0.0.0:80"}}}, ["weir-lib.env.WEIR_LISTEN", "other values"]),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(app, values, parts):
    with refused(*parts):
        deployment(app, values)


def test_without_the_dependency_it_says_so(tmp_path):
    """An alias would hide the values."""
    folder = tmp_path / "app"
    shutil.copytree(APP, folder)
    shutil.copytree(LIBRARY, folder / "charts/weir-lib")
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    about["dependencies"][0]["alias"] = "weir"
    (folder / "Chart.yaml").write_text(yaml.safe_dump(about))
    with refused("no `weir-lib` in the values", "without an alias"):
        deployment(folder)


def test_both_charts_have_the_same_defaults():
    library, injector = (yaml.safe_load((folder / "values.yaml").read_text()) for folder in (LIBRARY, CHART))
    shared = library.keys() & injector["sidecar"].keys() - {"image"}
    assert len(shared) > 8
    assert {name: library[name] for name in shared} == {name: injector["sidecar"][name] for name in shared}
    assert library["image"] == {name: injector["image"][name] for name in library["image"]}


def test_both_charts_are_of_one_version():
    library, injector = (yaml.safe_load((folder / "Chart.yaml").read_text()) for folder in (LIBRARY, CHART))
    assert library["type"] == "library"
    assert [library[name] for name in ("version", "appVersion", "kubeVersion")] == [injector[name] for name in ("version", "appVersion", "kubeVersion")]
    said = re.search(r'define "weir.lib.version" -}}\n(\S+)\n', (LIBRARY / "templates/_sidecar.tpl").read_text())
    assert said[1] == library["appVersion"]
