"""Objects name each other: whoever is named is there, and answers to what it is asked."""

import base64
import json
import pathlib
import subprocess

import pytest
import yaml

from house import WEIR
from rendering import CASES, CHART, NAMESPACE, objects, of_kind, only, render

INJECTION, INJECT = "weir.dev/injection", "weir.dev/inject"


@pytest.fixture(params=CASES)
def made(request):
    return objects(CASES[request.param])


def pod_of(made):
    return only(made, "Deployment")["spec"]["template"]


def injector_of(made):
    [container] = pod_of(made)["spec"]["containers"]
    return container


def config_of(made):
    """What the injector reads."""
    name = only(made, "Deployment")["metadata"]["name"]
    [text] = [one["data"]["weir.yaml"] for one in of_kind(made, "ConfigMap") if one["metadata"]["name"] == name]
    return yaml.safe_load(text)


def test_the_webhook_leads_to_the_injector(made):
    service, hook = only(made, "Service"), only(made, "MutatingWebhookConfiguration")
    ports = {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}
    listening = {port["name"]: port["containerPort"] for port in injector_of(made)["ports"]}
    config = config_of(made)
    for one in hook["webhooks"]:
        asked = one["clientConfig"]["service"]
        assert (asked["name"], asked["namespace"]) == (service["metadata"]["name"], service["metadata"]["namespace"])
        assert listening[ports[asked["port"]]] == int(config["inject"]["listen"].rsplit(":", 1)[1])
        assert asked["path"] == "/mutate/" + one["name"].split(".")[0]
    assert listening["admin"] == int(config["admin"]["listen"].rsplit(":", 1)[1])


def test_selectors_find_the_injectors_pods(made):
    labels = pod_of(made)["metadata"]["labels"]
    for kind, select in [
        ("Deployment", lambda one: one["spec"]["selector"]["matchLabels"]),
        ("Service", lambda one: one["spec"]["selector"]),
        ("PodDisruptionBudget", lambda one: one["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", lambda one: one["spec"]["podSelector"]["matchLabels"]),
    ]:
        assert select(only(made, kind)).items() <= labels.items(), kind
    [opened] = only(made, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in opened["ports"]} == {port["name"] for port in injector_of(made)["ports"]}
    probes = [injector_of(made)[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert set(probes) == {"admin"}


def test_the_test_pod_asks_the_service(made):
    arguments = only(made, "Pod")["spec"]["containers"][0]["args"]
    service = only(made, "Service")
    host, port = arguments[arguments.index("--at") + 1].rsplit(":", 1)
    assert host == f"{service['metadata']['name']}.{NAMESPACE}.svc"
    assert {"port": int(port), "targetPort": "admin"}.items() <= service["spec"]["ports"][1].items()
    # Neither the test's Pod nor the injector's is one of the Service's or the webhook's own.
    assert not only(made, "Service")["spec"]["selector"].items() <= only(made, "Pod")["metadata"]["labels"].items()


def test_every_volume_is_mounted_and_every_account_exists(made):
    pod = pod_of(made)["spec"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in injector_of(made)["volumeMounts"]}
    assert pod["serviceAccountName"] == only(made, "ServiceAccount")["metadata"]["name"]
    for binding in of_kind(made, "RoleBinding") + of_kind(made, "ClusterRoleBinding"):
        role = only(made, binding["roleRef"]["kind"])
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert [subject["name"] for subject in binding["subjects"]] == [pod["serviceAccountName"]]


def test_weir_keeps_its_certificate_itself():
    made = objects()
    tls, secret, hook = config_of(made)["inject"]["tls"], only(made, "Secret"), only(made, "MutatingWebhookConfiguration")
    assert tls == {
        "source": "self_managed",
        "secret": secret["metadata"]["name"],
        "webhook_configuration": hook["metadata"]["name"],
        "service": only(made, "Service")["metadata"]["name"],
    }
    assert not {"data", "stringData"} & secret.keys(), "made empty"
    assert pod_of(made)["spec"]["automountServiceAccountToken"] is True
    [rule] = only(made, "Role")["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["secrets"], [tls["secret"]], ["get", "update"])
    [rule] = only(made, "ClusterRole")["rules"]
    assert (rule["resourceNames"], rule["verbs"]) == ([tls["webhook_configuration"]], ["get", "patch"])
    assert all("caBundle" not in one["clientConfig"] for one in hook["webhooks"]), "whose field it is"


@pytest.mark.parametrize("case", ["cert-manager", "provided"])
def test_whose_certificate_others_make_may_do_nothing(case):
    made = objects(CASES[case])
    assert not {"Secret", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & {one["kind"] for one in made}
    assert pod_of(made)["spec"]["automountServiceAccountToken"] is False
    tls = config_of(made)["inject"]["tls"]
    [mount] = [mount for mount in injector_of(made)["volumeMounts"] if mount["name"] == "tls"]
    assert tls == {"source": "files", "directory": mount["mountPath"]}


def test_cert_manager_makes_what_is_mounted():
    made = objects(CASES["cert-manager"])
    service, hook = only(made, "Service")["metadata"], only(made, "MutatingWebhookConfiguration")
    issuers = {one["metadata"]["name"]: one["spec"] for one in of_kind(made, "Issuer")}
    certificates = {one["metadata"]["name"]: one["spec"] for one in of_kind(made, "Certificate")}
    leaf = certificates[service["name"]]
    assert hook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == f"{NAMESPACE}/{service['name']}"
    assert f"{service['name']}.{NAMESPACE}.svc" in leaf["dnsNames"]
    [volume] = [volume for volume in pod_of(made)["spec"]["volumes"] if volume["name"] == "tls"]
    assert volume["secret"]["secretName"] == leaf["secretName"]
    # The leaf is signed by a CA, whose certificate the root signs.
    [ca] = [one for one in certificates.values() if one.get("isCA")]
    assert issuers[leaf["issuerRef"]["name"]] == {"ca": {"secretName": ca["secretName"]}}
    assert issuers[ca["issuerRef"]["name"]] == {"selfSigned": {}}
    assert all("caBundle" not in one["clientConfig"] for one in hook["webhooks"])


def test_an_issuer_of_yours_is_asked():
    values = {"certificates": {"mode": "certManager", "certManager": {"issuerRef": {"kind": "ClusterIssuer", "name": "company"}}}}
    made = objects(values)
    assert only(made, "Certificate")["spec"]["issuerRef"] == {"kind": "ClusterIssuer", "name": "company"}
    assert of_kind(made, "Issuer") == []


def test_a_provided_ca_is_told_to_the_api_server():
    made = objects(CASES["provided"])
    pem = CASES["provided"]["certificates"]["provided"]["caBundle"]
    bundles = [one["clientConfig"]["caBundle"] for one in only(made, "MutatingWebhookConfiguration")["webhooks"]]
    assert [base64.b64decode(bundle).decode() for bundle in bundles] == [pem, pem]


def selected(selector, labels):
    """Whether a selector of Kubernetes' takes an object with these labels."""
    meets = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "DoesNotExist": lambda value, values: value is None,
    }
    found = ((labels.get(one["key"]), one) for one in selector["matchExpressions"])
    return all(meets[one["operator"]](value, one.get("values")) for value, one in found)


@pytest.mark.parametrize(
    ("namespace", "pod", "asked"),
    [
        ({}, {}, []),
        ({}, {INJECT: "true"}, ["object"]),
        ({}, {INJECT: "false"}, []),
        ({INJECTION: "enabled"}, {}, ["namespace"]),
        ({INJECTION: "enabled"}, {INJECT: "true"}, ["namespace"]),
        ({INJECTION: "enabled"}, {INJECT: "false"}, []),
        ({INJECTION: "disabled"}, {}, []),
        ({INJECTION: "disabled"}, {INJECT: "true"}, []),
        ({INJECTION: "enabled", "kubernetes.io/metadata.name": "kube-system"}, {}, []),
        ({INJECTION: "enabled", "kubernetes.io/metadata.name": NAMESPACE}, {INJECT: "true"}, []),
        ({"kubernetes.io/metadata.name": NAMESPACE}, {INJECT: "true"}, []),
    ],
)
def test_labels_decide_who_is_asked_about(namespace, pod, asked):
    namespace = {"kubernetes.io/metadata.name": "team-a"} | namespace
    hooks = only(objects(), "MutatingWebhookConfiguration")["webhooks"]
    taken = [one for one in hooks if selected(one["namespaceSelector"], namespace) and selected(one["objectSelector"], pod)]
    assert [one["name"] for one in taken] == [f"{name}.inject.weir.dev" for name in asked]


def test_a_webhook_that_others_can_live_with():
    for one in only(objects(), "MutatingWebhookConfiguration")["webhooks"]:
        assert (one["failurePolicy"], one["timeoutSeconds"]) == ("Ignore", 5)
        assert (one["sideEffects"], one["reinvocationPolicy"], one["matchPolicy"]) == ("None", "IfNeeded", "Equivalent")
        assert one["rules"] == [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}
        ]


def test_another_configuration_is_another_pod():
    def checksum(values):
        return pod_of(objects(values))["metadata"]["annotations"]["checksum/config"]

    assert checksum({}) != checksum({"sidecar": {"port": 9999}})
    assert checksum({}) == checksum({"commonLabels": {"team": "platform"}}), "what it does not read"


def test_defaults_of_the_cluster_lie_below_the_namespaces_file():
    """One variable that weir lays below its file. Variables of `sidecar.env` lie above it."""
    values = {"sidecar": {"defaults": {"cache": {"mode": "off", "max_bytes": 104857600}}, "env": {"WEIR_LOG": "info"}}}
    env = config_of(objects(values))["inject"]["env"]
    assert env.keys() == {"WEIR_DEFAULTS", "WEIR_LOG"}
    assert json.loads(env["WEIR_DEFAULTS"]) == values["sidecar"]["defaults"]
    assert "e+" not in env["WEIR_DEFAULTS"], "whole numbers stay whole"


def test_a_namespace_has_its_own_on_top():
    made = objects(CASES["all-on"])
    files = {one["metadata"]["namespace"]: one["data"] for one in of_kind(made, "ConfigMap") if one["metadata"]["name"] == "weir"}
    values = CASES["all-on"]["config"]
    assert files.keys() == {"team-a", "team-b"}
    assert yaml.safe_load(files["team-a"]["weir.yaml"]) == values["weir"]
    assert yaml.safe_load(files["team-b"]["weir.yaml"])["cache"] == values["weir"]["cache"] | {"max_entries": 100000}
    assert all(data["prices.json"] == values["files"]["prices.json"] for data in files.values())
    assert config_of(made)["inject"]["config_map"] == "weir"


def weir(*arguments):
    return subprocess.run([WEIR, *arguments], text=True, capture_output=True, check=False, env={})


@pytest.fixture(scope="module")
def default():
    """What weir does where nothing is written."""
    return yaml.safe_load(weir("config", "default").stdout)


def needs_the_section(default):
    if "inject" not in default:
        pytest.skip("this weir has no section `inject`")


@pytest.mark.parametrize("case", CASES)
def test_weir_takes_the_injectors_configuration(case, tmp_path, default):
    needs_the_section(default)
    file = tmp_path / "weir.yaml"
    file.write_text(yaml.safe_dump(config_of(objects(CASES[case]))))
    said = weir("check", "--config", str(file))
    assert said.returncode == 0, said.stderr


def test_weir_takes_what_namespaces_are_given(tmp_path):
    made = objects(CASES["all-on"])
    [data] = [one["data"] for one in of_kind(made, "ConfigMap") if one["metadata"].get("namespace") == "team-b"]
    for name, text in data.items():
        (tmp_path / name).write_text(text.replace("/etc/weir", str(tmp_path)))
    said = weir("check", "--config", str(tmp_path / "weir.yaml"))
    assert said.returncode == 0, said.stderr


def test_the_charts_defaults_are_weirs(default):
    """What the injector would do without the chart's ConfigMap, but for the names that the chart gives."""
    needs_the_section(default)
    # What is written without a value is empty.
    default = default["inject"] | {"env": {}}
    chosen = config_of(objects())["inject"]
    given = {"image", "tls"}
    assert {name: chosen[name] for name in chosen.keys() - given} == {name: default[name] for name in default.keys() - given}
    assert chosen["tls"].items() <= default["tls"].items()


def test_notes_say_what_to_do_next():
    said = render()["NOTES.txt"]
    assert "kubectl label namespace YOUR-NAMESPACE weir.dev/injection=enabled" in said
    assert "calls are not metered" in said and "image.digest" in said
    said = render(CASES["all-on"])["NOTES.txt"]
    assert "no Pod of a namespace with that label can be created" in said
    assert "alertmanagerConfigMatcherStrategy" in said and "image.digest" not in said


def test_the_chart_is_for_versions_that_have_native_sidecars():
    about = yaml.safe_load(pathlib.Path(CHART / "Chart.yaml").read_text())
    assert (about["apiVersion"], about["kubeVersion"]) == ("v2", ">=1.33.0-0")
