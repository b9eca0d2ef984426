"""The chart is one that Helm takes, that refuses what makes no sense, and that makes the same objects every time."""

import base64
import difflib
import functools
import gzip
import json
import os
import pathlib
import re

import helm_python
import kubernetes_validate
import pytest
import yaml

from house import ROOT
from rendering import CASES, CHART, NAMESPACE, chart, objects, of_kind, only, refused, render

OLDEST_MINOR = 33
GOLDEN = pathlib.Path(__file__).parent / "golden"
DIGEST = "sha256:" + "0" * 64
# The schemas of a version are five megabytes, and would be read anew for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
# Objects of operators, which Kubernetes itself has no schema of.
FOREIGN = ("monitoring.coreos.com/", "cert-manager.io/", "grafana.integreatly.org/")


def minors():
    """Every minor version of Kubernetes that the chart is for and that there is a schema of."""
    found = {int(version.split(".")[1]) for version in kubernetes_validate.utils.all_versions()}
    return [f"1.{minor}" for minor in sorted(found) if minor >= OLDEST_MINOR]


@pytest.mark.parametrize("case", CASES)
def test_lint_has_nothing_to_say(case):
    report = helm_python.lint(str(CHART), CASES[case], strict=True, namespace=NAMESPACE)
    worth_telling = [one for one in report["messages"] if one["error"] != "icon is recommended"]
    assert (report["errors"], worth_telling) == ([], [])


@pytest.mark.parametrize("minor", minors())
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_knows_every_field(case, minor):
    known = [one for one in objects(CASES[case]) if not one["apiVersion"].startswith(FOREIGN)]
    assert len(known) > 5
    for one in known:
        kubernetes_validate.validate(one, minor, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found():
    """The test above can fail."""
    deployment = only(objects(), "Deployment")
    deployment["spec"]["template"]["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(deployment, minors()[-1], strict=True)


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_gives_the_same_bytes(case):
    chart.cache_clear()
    first = render(CASES[case])
    chart.cache_clear()
    assert render(CASES[case]) == first


def test_templates_ask_nobody_and_throw_no_dice():
    """What Argo CD and `helm template` render must be what is installed."""
    telling = re.compile(r"\b(lookup|rand[A-Z]\w*|gen[A-Z]\w*|uuidv4|now|ago|htpasswd|derivePassword|getHostByName|Capabilities)\b")
    templates = [path for path in (CHART / "templates").rglob("*") if path.is_file()]
    assert len(templates) > 10
    found = {path.name: telling.findall(code) for path in templates for code in re.findall(r"{{.*?}}", path.read_text(), re.DOTALL)}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize("case", CASES)
def test_no_two_objects_have_one_name(case):
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects(CASES[case])]
    assert sorted(map(str, names)) == sorted(map(str, set(names)))


@pytest.mark.parametrize("case", CASES)
def test_every_object_says_where_it_is_and_whose(case):
    clusters = {"ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"}
    for one in objects(CASES[case]):
        metadata = one["metadata"]
        assert ("namespace" in metadata) == (one["kind"] not in clusters), one["kind"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "weir"
        assert CASES[case].get("commonLabels", {}).items() <= metadata["labels"].items()


@pytest.mark.parametrize("case", ["default", "all-on"])
def test_what_is_made_is_what_was_reviewed(case):
    """`UPDATE_EXPECT=1` writes the file anew; the difference is for a reviewer. Copies of other files are left out."""
    made = objects(CASES[case])
    for one in made:
        if one["kind"] == "PrometheusRule":
            one["spec"] = "(a file of rules/)"
        if "-dashboard-" in one["metadata"]["name"] and one["kind"] == "ConfigMap":
            one["data"] = dict.fromkeys(one["data"], "(a file of dashboards/)")
    file = GOLDEN / f"{case}.yaml"
    now = yaml.safe_dump_all(made, sort_keys=False, width=120)
    if os.environ.get("UPDATE_EXPECT"):
        file.write_text(now)
    then = file.read_text()
    assert now == then, "".join(difflib.unified_diff(then.splitlines(True), now.splitlines(True), str(file), "now"))


WRONG = {
    "an unknown name": ({"injector": {"replica": 3}}, ["/injector", "'replica'"]),
    "an unknown section": ({"injectors": {}}, ["'injectors'"]),
    "a misspelt section of monitoring": ({"monitoring": {"podmonitor": {}}}, ["/monitoring", "'podmonitor'"]),
    "a text for a number": ({"injector": {"replicas": "two"}}, ["/injector/replicas", "integer"]),
    "no injector at all": ({"injector": {"replicas": 0}}, ["/injector/replicas"]),
    "a privileged port": ({"injector": {"port": 443}}, ["/injector/port", "443"]),
    "a port that is none": ({"sidecar": {"port": 70000}}, ["/sidecar/port"]),
    "root": ({"sidecar": {"runAsUser": 0}}, ["/sidecar/runAsUser"]),
    "half a digest": ({"image": {"digest": "sha256:12"}}, ["/image/digest"]),
    "a digest as a tag": ({"image": {"tag": DIGEST}}, ["/image/tag"]),
    "an unknown way to certificates": ({"certificates": {"mode": "chart"}}, ["/certificates/mode", "selfManaged"]),
    "base64 of a CA": ({"certificates": {"provided": {"caBundle": "LS0tLS1CRUdJTg=="}}}, ["/certificates/provided/caBundle"]),
    "an unknown policy": ({"webhook": {"failurePolicy": "fail"}}, ["/webhook/failurePolicy", "Ignore"]),
    "too long a wait": ({"webhook": {"timeoutSeconds": 60}}, ["/webhook/timeoutSeconds", "30"]),
    "an unknown mode": ({"sidecar": {"mode": "init"}}, ["/sidecar/mode", "native"]),
    "an unknown provider": ({"sidecar": {"providers": ["open-ai"]}}, ["/sidecar/providers/0"]),
    "an unknown resource": ({"sidecar": {"resources": {"limits": {"disk": "1Gi"}}}}, ["/sidecar/resources/limits", "'disk'"]),
    "an amount that is none": ({"sidecar": {"resources": {"limits": {"memory": "128 MB"}}}}, ["/sidecar/resources/limits/memory"]),
    "a variable with a number": ({"sidecar": {"env": {"WEIR_LISTEN": 1}}}, ["/sidecar/env/WEIR_LISTEN", "string"]),
    "a variable that is none": ({"sidecar": {"env": {"WEIR-LOG": "info"}}}, ["WEIR-LOG"]),
    "a namespace without a name": ({"config": {"namespaces": [{"weir": {}}]}}, ["/config/namespaces/0", "'name'"]),
    "a namespace as text": ({"config": {"namespaces": ["team-a"]}}, ["/config/namespaces/0", "object"]),
    "a label that is no text": ({"commonLabels": {"a": 1}}, ["/commonLabels/a", "string"]),
    "an address without https": ({"monitoring": {"prometheusRule": {"grafanaUrl": "grafana"}}}, ["/monitoring/prometheusRule/grafanaUrl"]),
    # What no schema says, templates/validate.yaml does.
    "one port for two": ({"injector": {"port": 9348}}, ["injector.port and injector.adminPort are both 9348"]),
    "one port for two, in the sidecar": ({"sidecar": {"port": 9348}}, ["sidecar.port and sidecar.adminPort are both 9348"]),
    "a sleep till death": ({"injector": {"preStopSleepSeconds": 30}}, ["injector.preStopSleepSeconds"]),
    "the sidecar below the injector": ({"injector": {"config": {"inject": {}}}}, ["injector.config.inject", "`sidecar`"]),
    "a tag for no image": ({"sidecar": {"image": {"tag": "1"}}}, ["sidecar.image", "no repository"]),
    "a default that is a variable": ({"sidecar": {"env": {"WEIR_DEFAULTS": "{}"}}}, ["sidecar.env.WEIR_DEFAULTS", "sidecar.defaults"]),
    "provided, and not named": ({"certificates": {"mode": "provided"}}, ["certificates.provided.secretName is needed"]),
    "provided, and not signed": (
        {"certificates": {"mode": "provided", "provided": {"secretName": "mine"}}},
        ["certificates.provided.caBundle is needed"],
    ),
    "a namespace twice": (
        {"config": {"namespaces": [{"name": "team-a"}, {"name": "team-a"}]}},
        ["config.namespaces names team-a twice"],
    ),
    "a configuration without a name": (
        {"sidecar": {"configMap": ""}, "config": {"namespaces": [{"name": "team-a"}]}},
        ["config.namespaces", "sidecar.configMap is empty"],
    ),
    "the configuration as a file": ({"config": {"files": {"weir.yaml": ""}}}, ["config.files", "config.weir"]),
    "dashboards that point to nothing": (
        {"monitoring": {"dashboards": {"grafanaOperator": {"enabled": True}}}},
        ["monitoring.dashboards.enabled"],
    ),
    "nobody to tell": ({"monitoring": {"alertmanagerConfig": {"enabled": True}}}, ["monitoring.alertmanagerConfig has nobody to tell"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_is_refused_by_its_name(what):
    values, parts = WRONG[what]
    with refused(*parts):
        render(values)


def test_the_schema_describes_every_value_and_no_other():
    """Maps that operators fill (labels, resources, weir's own configuration) end the comparison."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def described(node):
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
        if "properties" not in node:
            return {()}
        assert node["additionalProperties"] is False
        return {(name, *rest) for name, inner in node["properties"].items() for rest in described(inner)}

    def written(value, known, path=()):
        if not isinstance(value, dict) or path in known:
            return {path}
        return {leaf for name, inner in value.items() for leaf in written(inner, known, (*path, name))}

    known = described(schema)
    # What operators fill, with names that the schema knows.
    filled = {("certificates", "certManager", "issuerRef"), ("sidecar", "resources"), ("injector", "resources")}

    def cut(paths):
        return {next((path[: len(head)] for head in filled if path[: len(head)] == head), path) for path in paths}

    assert cut(written(yaml.safe_load((CHART / "values.yaml").read_text()), cut(known))) == cut(known)


def test_an_operators_null_is_the_clusters_choice_of_a_user():
    made = objects(CASES["openshift"])
    [injector] = only(made, "Deployment")["spec"]["template"]["spec"]["containers"]
    pods = [only(made, "Deployment")["spec"]["template"]["spec"], only(made, "Pod")["spec"]]
    for place in [injector, *pods, *only(made, "Pod")["spec"]["containers"]]:
        assert "runAsUser" not in place["securityContext"]
        assert "runAsGroup" not in place["securityContext"]
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)


@pytest.mark.parametrize("case", CASES)
def test_pods_obey_the_restricted_standard(case):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    made = objects(CASES[case])
    for pod in (only(made, "Deployment")["spec"]["template"]["spec"], only(made, "Pod")["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all({"configMap", "secret"} & volume.keys() for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True


def test_a_release_fits_into_its_secret():
    """Helm keeps chart and objects, compressed and in base64, in one Secret of at most 1 MiB. Half of that is for values."""
    files = [path for path in CHART.rglob("*") if path.is_file() and "ci" not in path.parts]
    kept = {str(path): base64.b64encode(path.read_bytes()).decode() for path in files}
    kept["manifest"] = "".join(render(CASES["all-on"]).values())
    assert len(base64.b64encode(gzip.compress(json.dumps(kept).encode()))) < 512 * 1024


def test_the_chart_names_the_version_that_is_built():
    built = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == built
    assert f":{built}\n" in about["annotations"]["artifacthub.io/images"]
    for value in about["annotations"].values():
        yaml.safe_load(value)


@pytest.mark.parametrize("case", CASES)
def test_images_are_named_by_digest_where_there_is_one(case):
    made = objects(CASES[case])
    images = {only(made, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"], only(made, "Pod")["spec"]["containers"][0]["image"]}
    digest = CASES[case].get("image", {}).get("digest")
    assert images == {"ghcr.io/weir-dev/weir:0.1.0" + (f"@{digest}" if digest else "")}


def test_long_names_are_cut_and_stay_names():
    made = objects(name="a-release-whose-name-is-as-long-as-helm-lets-it-be-53", values=CASES["all-on"] | {"fullnameOverride": ""})
    for one in made:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", one["metadata"]["name"])
        assert all(len(value) <= 63 for value in one["metadata"]["labels"].values())
    assert all(len(one["metadata"]["name"]) <= 63 for one in of_kind(made, "Service"))
