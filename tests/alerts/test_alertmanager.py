"""Who is told of what: the real configuration, asked of Alertmanager's own tool and of an Alertmanager."""

import json
import re
import subprocess
import urllib.request

import pytest
import yaml

from house import ROOT, eventually, get_json, running
from rules import ALERTS
from stack import SECRETS, TEMPLATES, alertmanager_command, is_up
from test_prometheus import free_port, needed

CONFIG = ROOT / "alertmanager/alertmanager.yml"
TEMPLATE = ROOT / "alertmanager/templates/weir.tmpl"
SECRET_FIELDS = {"slack_api_url", "smtp_auth_password", "routing_key", "service_key", "api_url", "credentials", "password"}
APP = {"namespace": "shop", "job": "chat", "budget": "app", "window": "month", "instance": "a", "provider": "openai"}
APP |= {"loop_type": "plan", "backend": "redis"}
ZERO = "0001-01-01T00:00:00Z"

# Who is told of each severity and category. Only those are here that there are alerts of.
ROUTES = {
    ("critical", "cost"): "budget-critical",
    ("critical", "hygiene"): "pagerduty",
    ("critical", "reliability"): "pagerduty",
    ("warning", "cost"): "budget",
    ("warning", "reliability"): "slack",
    ("warning", "performance"): "slack",
    ("warning", "capacity"): "slack",
    ("warning", "hygiene"): "slack",
    ("info", "cost"): "budget",
    ("info", "reliability"): "slack",
    ("info", "performance"): "slack",
    ("info", "capacity"): "slack",
    ("info", "hygiene"): "slack",
}

# What a source mutes, of the alerts of the same app, budget, provider and loop type.
MUTED = {
    "WeirBudget80Percent": {"WeirBudget50Percent"},
    "WeirBudget90Percent": {"WeirBudget50Percent", "WeirBudget80Percent"},
    "WeirBudgetExceeded": {
        "WeirBudget50Percent",
        "WeirBudget80Percent",
        "WeirBudget90Percent",
        "WeirBudgetExhaustionImminent",
        "WeirBudgetProjectedOverspend",
    },
    "WeirBudgetExhaustionImminent": {
        "WeirBudget50Percent",
        "WeirBudget80Percent",
        "WeirBudget90Percent",
        "WeirBudgetProjectedOverspend",
        "WeirSpendSpikeSameHour",
        "WeirSpendSpikeZScore",
        "WeirTokenRateAnomaly",
    },
    "WeirSpendSpikeSameHour": {"WeirSpendSpikeZScore"},
    "WeirLoopRunaway": {"WeirLoopManyCalls"},
    "WeirProviderDown": {
        "WeirCircuitOpen",
        "WeirErrorBudgetBurnFast",
        "WeirErrorBudgetBurnSlow",
        "WeirErrorBudgetBurnTicket",
        "WeirLatencyP95Regression",
        "WeirLatencyP99High",
        "WeirRetryStorm",
        "WeirTTFTRegression",
        "WeirUpstream429",
    },
    "WeirCircuitOpen": {"WeirLatencyP95Regression", "WeirRetryStorm", "WeirTTFTRegression"},
    "WeirErrorBudgetBurnFast": {"WeirErrorBudgetBurnSlow", "WeirErrorBudgetBurnTicket"},
    "WeirErrorBudgetBurnSlow": {"WeirErrorBudgetBurnTicket"},
    "WeirSharedStoreDown": {"WeirCacheBackendErrors"},
    "WeirAllInstancesAbsent": {"WeirInstanceDown"},
}


def amtool(*arguments):
    said = subprocess.run([needed("amtool"), *arguments], text=True, capture_output=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The configuration, with templates and secrets where they are here."""
    folder = tmp_path_factory.mktemp("alertmanager")
    text = CONFIG.read_text().replace(TEMPLATES, str(TEMPLATE.parent)).replace(SECRETS, str(folder))
    (folder / "slack_url").write_text("http://127.0.0.1:9/slack")
    (folder / "alertmanager.yml").write_text(text)
    return folder / "alertmanager.yml"


def test_the_configuration_and_its_templates_are_valid(here):
    assert "1 templates" in amtool("check-config", str(here))


def test_secrets_are_in_files():
    def secrets_of(value):
        if isinstance(value, dict):
            yield from value.keys() & SECRET_FIELDS
            for inner in value.values():
                yield from secrets_of(inner)
        if isinstance(value, list):
            for inner in value:
                yield from secrets_of(inner)

    assert list(secrets_of(yaml.safe_load(CONFIG.read_text()))) == []


def routed_to(receiver, labels):
    amtool(
        "config",
        "routes",
        "test",
        f"--config.file={CONFIG}",
        f"--verify.receivers={receiver}",
        *(f"{name}={value}" for name, value in labels.items()),
    )


@pytest.mark.parametrize(("severity", "category"), ROUTES)
def test_a_severity_and_category_has_its_receiver(severity, category):
    routed_to(ROUTES[severity, category], {"severity": severity, "category": category})


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_its_receiver(name):
    labels = ALERTS[name]["labels"]
    receiver = "deadman" if name == "WeirWatchdog" else ROUTES[labels["severity"], labels["category"]]
    routed_to(receiver, {"alertname": name} | labels)


def test_what_no_route_is_for_goes_to_slack():
    routed_to("slack", {"alertname": "SomethingElse"})


def route_of(receiver, **matchers):
    """The one route to a receiver with these matchers."""
    wanted = sorted(f"{name} = {value}" for name, value in matchers.items())
    routes = yaml.safe_load(CONFIG.read_text())["route"]["routes"]
    return next(it for it in routes if it["receiver"] == receiver and sorted(it["matchers"]) == wanted)


def test_cooldown_and_mute_times():
    root = yaml.safe_load(CONFIG.read_text())["route"]
    assert root["repeat_interval"] == "4h"
    assert route_of("budget-critical", severity="critical", category="cost")["repeat_interval"] == "1h"
    assert route_of("pagerduty", severity="critical")["repeat_interval"] == "1h"
    assert route_of("budget", category="cost")["repeat_interval"] == "24h"
    assert route_of("slack", severity="info")["active_time_intervals"] == ["office-hours"]
    muted = [it["receiver"] for it in root["routes"] if "maintenance" in it.get("mute_time_intervals", [])]
    assert muted == ["budget", "slack"], "never what is critical, nor the watchdog"
    assert route_of("deadman", alertname="WeirWatchdog")["repeat_interval"] == "5m"


class Alertmanager:
    def __init__(self, url):
        self.url = url

    def tell(self, alerts):
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts", json.dumps(alerts).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def muted(self, job):
        """The names of alerts of an app, and whether each is muted."""
        found = [it for it in get_json(f"{self.url}/api/v2/alerts") if it["labels"]["job"] == job]
        return {it["labels"]["alertname"]: it["status"]["state"] == "suppressed" for it in found}


@pytest.fixture(scope="module")
def alertmanager(here):
    url = f"http://127.0.0.1:{free_port()}"
    with running(alertmanager_command(here, here.parent / "data", url)) as process:
        eventually(lambda: process.process.poll() is None and is_up(url), within_s=60)
        yield Alertmanager(url)


@pytest.mark.parametrize("source", MUTED)
def test_an_alert_mutes_what_it_says_better(alertmanager, source):
    """Told of all there are of one app, it mutes these and no others; and none of another app, which lacks the source."""
    with_source, without = f"with-{source}", f"without-{source}"
    # What is muted mutes in its turn; that is for its own test.
    further = set().union(*(MUTED.get(name, set()) for name in MUTED[source]))
    unrelated = set(ALERTS) - set(MUTED) - MUTED[source] - further
    names = {source} | MUTED[source] | unrelated
    alertmanager.tell([alert(name, job=with_source) for name in names])
    alertmanager.tell([alert(name, job=without) for name in unrelated | leaves(MUTED[source])])
    expected = {name: name in MUTED[source] for name in names}
    eventually(lambda: alertmanager.muted(with_source) == expected)
    assert not any(alertmanager.muted(without).values())


def leaves(names):
    return {name for name in names if name not in MUTED}


def test_another_budget_is_not_muted(alertmanager):
    job = "two-budgets"
    alertmanager.tell([alert("WeirBudgetExceeded", job=job), alert("WeirBudget90Percent", job=job, budget="other")])
    eventually(lambda: len(alertmanager.muted(job)) == 2)
    assert not any(alertmanager.muted(job).values())


def test_the_circuit_of_another_provider_mutes_nothing(alertmanager):
    job = "two-providers"
    alertmanager.tell([alert("WeirProviderDown", job=job), alert("WeirCircuitOpen", job=job, provider="eu")])
    alertmanager.tell([alert("WeirTTFTRegression", job="other")])
    alertmanager.tell([alert("WeirCircuitOpen", job="other", provider="eu")])
    eventually(lambda: len(alertmanager.muted(job)) == 2 and len(alertmanager.muted("other")) == 2)
    assert not any((alertmanager.muted(job) | alertmanager.muted("other")).values())


def alert(name, **labels):
    return {"labels": APP | {"alertname": name} | ALERTS[name]["labels"] | labels, "annotations": {}}


def test_every_rule_of_muting_is_tested():
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    sources = {re.fullmatch("alertname = (.*)", it["source_matchers"][0])[1] for it in rules}
    assert sources == set(MUTED)


def sample(status, *names):
    """What a template is given: a group of alerts that fire, or are over."""
    over = status == "resolved"
    alerts = [
        {
            "status": status,
            "labels": alert(name)["labels"],
            "annotations": {
                "summary": f"{name} happens to shop/chat & <others>",
                "description": "Do this first.",
                "runbook_url": f"https://weir.example/docs/runbook.md#{name.lower()}",
                "dashboard_url": "https://grafana.example/d/weir-cost?var-namespace=shop&var-job=chat",
            },
            "startsAt": "2026-11-21T17:00:00Z",
            "endsAt": "2026-11-21T18:30:00Z" if over else ZERO,
            "generatorURL": "http://prometheus:9090/graph",
            "fingerprint": f"{number:016x}",
        }
        for number, name in enumerate(names)
    ]
    shared = dict(set.intersection(*(set(it["labels"].items()) for it in alerts)))
    return {
        "receiver": "budget",
        "status": status,
        "alerts": alerts,
        "groupLabels": {"namespace": "shop", "job": "chat", "budget": "app"},
        "commonLabels": shared,
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
    }


def rendered(folder, template, data, kind="text"):
    file = folder / "data.json"
    file.write_text(json.dumps(data))
    return amtool(
        "template",
        "render",
        f"--template.glob={TEMPLATE}",
        f"--template.text={{{{ template \"{template}\" . }}}}",
        f"--template.data={file}",
        f"--template.type={kind}",
    ).strip()


def test_titles(tmp_path):
    one, two = ("WeirBudget90Percent",), ("WeirBudget90Percent", "WeirBudgetProjectedOverspend")
    title = lambda data: rendered(tmp_path, "weir.title", data)  # noqa: E731
    assert title(sample("firing", *one)) == "[FIRING:1] WeirBudget90Percent shop/chat budget app"
    assert title(sample("firing", *two)) == "[FIRING:2] 2 alerts shop/chat budget app"
    assert title(sample("resolved", *one)) == "[RESOLVED] WeirBudget90Percent shop/chat budget app"
    watchdog = sample("firing", "WeirWatchdog")
    watchdog["commonLabels"] = {"alertname": "WeirWatchdog"}
    assert title(watchdog) == "[FIRING:1] WeirWatchdog"


BODIES = {
    "weir.slack.text": ("text", "<https://weir.example/docs/runbook.md#weirbudget90percent|runbook>"),
    "weir.teams.text": ("text", "[runbook](https://weir.example/docs/runbook.md#weirbudget90percent)"),
    "weir.email.text": ("text", "runbook: https://weir.example/docs/runbook.md#weirbudget90percent"),
    "weir.email.html": ("html", '<a href="https://weir.example/docs/runbook.md#weirbudget90percent">runbook</a>'),
}


@pytest.mark.parametrize("template", BODIES)
def test_bodies_say_what_is_wrong_and_where_to_look(tmp_path, template):
    kind, link = BODIES[template]
    said = rendered(tmp_path, template, sample("firing", "WeirBudget90Percent", "WeirSpendSpikeSameHour"), kind)
    summary = "WeirBudget90Percent happens to shop/chat &amp; &lt;others&gt;" if kind == "html" else "& <others>"
    assert summary in said
    assert "Do this first." in said
    assert link in said
    assert "grafana.example/d/weir-cost" in said
    assert "WeirSpendSpikeSameHour" in said
    assert "over:" not in said
    over = rendered(tmp_path, template, sample("resolved", "WeirBudget90Percent"), kind)
    assert "over: WeirBudget90Percent happens to shop/chat" in over
    assert "Do this first." not in over


def test_every_template_is_rendered_here_and_used_there():
    defined = set(re.findall(r'define "(weir\.[\w.]+)"', TEMPLATE.read_text()))
    assert defined == set(BODIES) | {"weir.title"}
    used = set(re.findall(r'template "(weir\.[\w.]+)"', CONFIG.read_text()))
    assert used == defined
