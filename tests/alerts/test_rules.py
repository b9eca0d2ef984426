"""The rules say what they should, and ring when they should: Prometheus' own tool says so."""

import concurrent.futures
import itertools
import os
import re
import subprocess

import pytest
import yaml

from house import ROOT
from rules import ALERTS, RULES, TESTS
from test_prometheus import needed

RUNBOOK = "https://weir.example/docs/runbook.md"
DASHBOARDS = "https://grafana.example/d"
DASHBOARD = re.compile(
    DASHBOARDS + r"/weir-[a-z]+(\?var-namespace=\{\{ \$labels\.namespace \}\}&var-job=\{\{ \$labels\.job \}\})?"
)
SEVERITIES = {"critical", "warning", "info", "none"}
CATEGORIES = {"cost", "reliability", "performance", "capacity", "hygiene"}


def promtool(*arguments):
    said = subprocess.run([needed("promtool"), *arguments], text=True, capture_output=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_rules_are_well_formed():
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))


def test_the_configuration_is_valid():
    promtool("check", "config", str(ROOT / "prometheus/prometheus.yml"))


@pytest.fixture(scope="module")
def verdicts():
    """What promtool says of each file of tests. Some take half a minute of one processor, so they run beside each other."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as runners:
        yield {file: runners.submit(promtool, "test", "rules", str(file)) for file in TESTS}


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name.removesuffix(".test.yml"))
def test_alerts_ring_when_they_should(verdicts, file):
    verdicts[file].result()


def test_every_alert_has_a_time_to_ring_and_one_to_be_silent():
    groups = itertools.chain.from_iterable(yaml.safe_load(file.read_text())["tests"] for file in TESTS)
    checks = [check for group in groups for check in group["alert_rule_test"]]
    rings = {check["alertname"] for check in checks if check.get("exp_alerts")}
    silent = {check["alertname"] for check in checks if not check.get("exp_alerts")}
    assert set(ALERTS) - rings == set()
    assert set(ALERTS) - silent == {"WeirWatchdog"}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_needed(name):
    alert = ALERTS[name]
    assert name.startswith("Weir")
    assert alert["labels"].keys() == {"severity", "category"}
    assert alert["labels"]["severity"] in SEVERITIES
    assert alert["labels"]["category"] in CATEGORIES
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url", "dashboard_url"}
    assert annotations["runbook_url"] == f"{RUNBOOK}#{name.lower()}"
    assert DASHBOARD.fullmatch(annotations["dashboard_url"])
    assert "$" not in annotations["description"], "it is the same for all, and links to it can be trusted"
    if name != "WeirWatchdog":
        assert "{{ $labels.namespace }}/{{ $labels.job }}" in annotations["summary"], "it names the app"
