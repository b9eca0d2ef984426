"""What the chart makes for Prometheus, Alertmanager and Grafana is what these read."""

import json
import pathlib
import re
import subprocess

import pytest
import yaml

from house import ROOT, needed
from rendering import CASES, objects, of_kind, only

ALL_ON = CASES["all-on"]
RULES = {path.name.removeprefix("weir-").removesuffix(".rules.yml"): path for path in (ROOT / "prometheus/rules").glob("*.rules.yml")}
ALERTMANAGER = yaml.safe_load((ROOT / "alertmanager/alertmanager.yml").read_text())


@pytest.fixture(scope="module")
def made():
    return objects(ALL_ON)


def test_nothing_of_it_is_made_unasked():
    foreign = [one["kind"] for one in objects() if "." in one["apiVersion"] and not one["apiVersion"].split("/")[0].endswith("k8s.io")]
    assert foreign == []
    assert [one for one in objects() if "dashboard" in one["metadata"]["name"]] == []


@pytest.mark.parametrize("name", RULES)
def test_rules_arrive_as_they_are(made, name, tmp_path):
    [rule] = [one for one in of_kind(made, "PrometheusRule") if one["metadata"]["name"] == f"llm-weir-{name}"]
    said = RULES[name].read_text()
    links = [("https://weir.example/docs", "https://git.example.com/weir/docs"), ("https://grafana.example", "https://grafana.example.com")]
    for example, yours in links:
        assert example in said
        said = said.replace(example, yours)
    assert rule["spec"] == yaml.safe_load(said)
    assert "{{ $labels." in json.dumps(rule), "double braces are Prometheus' own"
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    checked = subprocess.run([needed("promtool"), "check", "rules", str(file)], text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_without_addresses_of_yours_the_examples_stay():
    made = objects({"monitoring": {"prometheusRule": {"enabled": True}}})
    assert {one["metadata"]["name"]: one["spec"] for one in made if one["kind"] == "PrometheusRule"} == {
        f"weir-{name}": yaml.safe_load(path.read_text()) for name, path in RULES.items()
    }


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor", "PrometheusRule", "AlertmanagerConfig"])
def test_labels_and_namespace_are_yours(made, kind):
    """kube-prometheus-stack takes what has its `release`, in the namespaces that it looks at."""
    section = ALL_ON["monitoring"][kind[0].lower() + kind[1:]]
    for one in of_kind(made, kind):
        assert section["labels"].items() <= one["metadata"]["labels"].items()
        assert one["metadata"]["namespace"] == "monitoring"
        assert one["metadata"].get("annotations", {}) == section.get("annotations", {})


def test_sidecars_are_found_wherever_they_are(made):
    spec = only(objects({"monitoring": {"podMonitor": {"enabled": True}}}), "PodMonitor")["spec"]
    assert spec == {
        "jobLabel": "app.kubernetes.io/name",
        "namespaceSelector": {"any": True},
        "selector": {"matchLabels": {"weir.dev/injected": "true"}},
        "podMetricsEndpoints": [{"port": "weir-admin", "path": "/metrics", "interval": "30s"}],
    }
    spec = only(made, "PodMonitor")["spec"]
    assert spec["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}
    [endpoint] = spec["podMetricsEndpoints"]
    assert endpoint["scrapeTimeout"] == "10s"
    assert endpoint["relabelings"] == ALL_ON["monitoring"]["podMonitor"]["relabelings"]
    assert endpoint["metricRelabelings"] == ALL_ON["monitoring"]["podMonitor"]["metricRelabelings"]


def test_the_injector_is_found_through_its_service(made):
    spec, service = only(made, "ServiceMonitor")["spec"], only(made, "Service")
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert spec["namespaceSelector"] == {"matchNames": [service["metadata"]["namespace"]]}
    assert {endpoint["port"] for endpoint in spec["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}


def test_each_dashboard_is_found_by_grafana(made):
    maps = {one["metadata"]["name"]: one for one in of_kind(made, "ConfigMap") if "-dashboard-" in one["metadata"]["name"]}
    for one in maps.values():
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["annotations"] == {"grafana_folder": "weir"}
        [text] = one["data"].values()
        assert json.loads(text)["uid"].startswith("weir-")
    pointed = {one["spec"]["configMapRef"]["name"]: one["spec"]["configMapRef"]["key"] for one in of_kind(made, "GrafanaDashboard")}
    assert pointed == {name: next(iter(one["data"])) for name, one in maps.items()} != {}


def snake(name):
    return {"apiURL": "api_url"}.get(name, re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name))


def as_alertmanager_reads_it(value, secrets):
    """An AlertmanagerConfig's part, as the operator hands it on: names with underscores, matchers as text, Secrets as files."""
    if isinstance(value, list):
        return [as_alertmanager_reads_it(one, secrets) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"name", "matchType", "value"}:
        return f'{value["name"]} {value["matchType"]} {json.dumps(value["value"])}'
    read = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner.keys() == {"name", "key"}:
            secrets.add((inner["name"], inner["key"]))
            # A Secret with an address or a key: a file for Alertmanager.
            read[{"apiURL": "api_url_file", "routingKey": "routing_key_file", "urlSecret": "url"}[name]] = (
                "http://127.0.0.1/secret" if name == "urlSecret" else f"/secrets/{inner['key']}"
            )
        elif name == "details":
            read[name] = {one["key"]: one["value"] for one in inner}
        else:
            renamed = {"sourceMatch": "source_matchers", "targetMatch": "target_matchers"}.get(name, snake(name))
            read[renamed] = as_alertmanager_reads_it(inner, secrets)
    return read


PARTS = {
    "everybody": {"slack": {"secretName": "s"}, "pagerduty": {"secretName": "p"}, "deadman": {"secretName": "d"}},
    "Slack alone": {"slack": {"secretName": "s"}},
    "PagerDuty alone": {"pagerduty": {"secretName": "p"}},
}


@pytest.mark.parametrize("who", PARTS)
def test_alertmanager_takes_who_is_told(who, tmp_path):
    made = objects({"monitoring": {"alertmanagerConfig": {"enabled": True, **PARTS[who]}}})
    secrets = set()
    config = as_alertmanager_reads_it(only(made, "AlertmanagerConfig")["spec"], secrets)
    # The operator hangs what a namespace says below a route of its own.
    config["route"] = {"receiver": "nobody", "routes": [config["route"]]}
    file = pathlib.Path(tmp_path / "alertmanager.yml")
    file.write_text(yaml.safe_dump(config))
    checked = subprocess.run([needed("amtool"), "check-config", str(file)], text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {name for name, _ in secrets} == {part["secretName"] for part in PARTS[who].values()}
    told = {
        labels: subprocess.run(
            [needed("amtool"), "config", "routes", "test", f"--config.file={file}", "alertname=WeirX", *labels.split()],
            text=True, capture_output=True, check=True,
        ).stdout.strip()
        for labels in ("severity=critical", "severity=critical category=cost", "severity=warning", "severity=info")
    }  # fmt: skip
    wakes, tells = {"everybody": ("pagerduty", "slack"), "Slack alone": ("slack",) * 2, "PagerDuty alone": ("pagerduty",) * 2}[who]
    assert told == {
        "severity=critical": wakes,
        "severity=critical category=cost": wakes,
        "severity=warning": tells,
        "severity=info": tells,
    }


def test_what_mutes_what_is_read_from_the_file(made):
    rules = as_alertmanager_reads_it(only(made, "AlertmanagerConfig")["spec"]["inhibitRules"], set())

    def plain(rules):
        """Without quotes and spaces, which mean nothing there."""
        return json.loads(re.sub(r'\\"| (?=[=!])|(?<=[=~]) ', "", json.dumps(rules)))

    assert plain(rules) == plain(ALERTMANAGER["inhibit_rules"])


def test_titles_are_alertmanagers_own_templates(made):
    receivers = {one["name"]: one for one in only(made, "AlertmanagerConfig")["spec"]["receivers"]}
    [slack] = receivers["slack"]["slackConfigs"]
    assert slack["title"].startswith("[{{ .Status | toUpper }}] {{ .CommonLabels.alertname }}")
    assert slack["text"].endswith("{{ .Annotations.runbook_url }}\n{{ end }}")
    assert slack["channel"] == "#llm-alerts"
