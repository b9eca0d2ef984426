"""Every expression of every dashboard, rule and alert returns numbers, from a real Prometheus that evaluates the real rules
and scrapes a weir that does everything.

What is rightly empty is listed with the reason, and the list is tested too: what is on it and returns numbers fails.
"""

import contextlib
import dataclasses
import json
import math
import re
import subprocess
import time
import urllib.parse

import promql_parser
import pytest
import yaml

import busy
from house import CONFIG, ROOT, eventually, get, get_json, open_house, running
from test_prometheus import free_port, is_ready, needed

# As long as Prometheus needs to have seen two time ranges of everything.
BUSY_S = 55
# What is not there by then will not come.
PATIENCE_S = 60
RANGE_S = 20
# What Grafana puts in place of its variables. `.*` is what the dashboards say for "all".
INTERVALS = {"$__rate_interval": "15s", "$__range": f"{RANGE_S}s", "$__interval": "15s"}
CHOICE = re.compile(r'"\$[a-z]+"')

PROMETHEUS = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: ["{folder}/rules/*.yml"]
scrape_configs:
  - job_name: app
    static_configs: [{{ targets: ["{target}"], labels: {{ namespace: shop }} }}]
"""

# Rightly empty: place → (the metric without which it is, why there is none). It is empty exactly where weir does not export
# that metric: on another machine it may well return numbers, and then has to.
NO_QUOTA = ("weir_cgroup_cpu_quota_cores", "this machine gives its containers no share of the CPU")
NO_PERIODS = ("weir_cgroup_cpu_periods_total", "without a quota the kernel does not count throttling")
NO_LIMIT = ("weir_cgroup_memory_limit_bytes", "this machine gives its containers no limit of memory")
NO_PRESSURE = ("weir_cgroup_pressure_waiting_seconds_total", "this kernel does not account for pressure")
NO_INJECTOR = ("weir_inject_requests_total", "an app's weir is no injector")
NO_CLUSTER = ("kube_pod_info", "there is no kube-state-metrics here")
EMPTY = {
    "weir-sidecar / CPU / B": NO_QUOTA,
    "weir-sidecar / Memory / B": NO_LIMIT,
    "weir-sidecar / Throttling / A": NO_PERIODS,
    "weir-sidecar / Time throttled / A": NO_PERIODS,
    "weir-sidecar / Pressure / A": NO_PRESSURE,
    "weir-sidecar / Pressure / B": NO_PRESSURE,
    "weir-sidecar / Address space / B": ("process_virtual_memory_max_bytes", "the address space is not limited here"),
    "WeirMemoryNearLimit reads weir_cgroup_memory_limit_bytes{}": NO_LIMIT,
    "WeirCPUThrottled reads last_over_time(weir_cgroup_cpu_throttled_periods_total{}[10m])": NO_PERIODS,
    "WeirCPUThrottled reads last_over_time(weir_cgroup_cpu_periods_total{}[10m])": NO_PERIODS,
    "weir-sidecar / Certificate / A": NO_INJECTOR,
    "weir-sidecar / Reviews / A": NO_INJECTOR,
    "weir-sidecar / Pods / A": NO_INJECTOR,
    "weir-sidecar / Time of a review / A": NO_INJECTOR,
    "weir-sidecar / Time of a review / B": NO_INJECTOR,
    "WeirAllInstancesAbsent reads last_over_time(weir_inject_cert_expiry_timestamp_seconds{}[1h])": NO_INJECTOR,
    "WeirInjectorCertExpiring reads weir_inject_cert_expiry_timestamp_seconds{}": NO_INJECTOR,
    "WeirInjectorDown reads last_over_time(weir_inject_cert_expiry_timestamp_seconds{}[1h])": NO_INJECTOR,
    "WeirInjectorErrors reads last_over_time(weir_inject_results_total{result=\"error\"}[15m])": NO_INJECTOR,
    "WeirPodsWithoutSidecar reads kube_pod_info{host_network=\"false\"}": NO_CLUSTER,
    "WeirPodsWithoutSidecar reads kube_pod_status_ready{condition=\"true\"}": NO_CLUSTER,
    "WeirPodsWithoutSidecar reads kube_pod_labels{label_weir_dev_inject=\"true\"}": NO_CLUSTER,
    "WeirPodsWithoutSidecar reads kube_pod_labels{label_weir_dev_inject!=\"false\"}": NO_CLUSTER,
    "WeirPodsWithoutSidecar reads kube_namespace_labels{label_weir_dev_injection=\"enabled\"}": NO_CLUSTER,
    "WeirVersionSkew reads weir_inject_cert_expiry_timestamp_seconds{}": NO_INJECTOR,
}

# Eight days before the test began, of what takes that long to be usual: series → (value, how much it swings).
USUAL = {
    "job:weir_cost_usd:increase1h": (2.0, 0.5),
    "job:weir_tokens:rate5m": (1000.0, 100.0),
    "job:weir_request_cost_usd:mean1h": (0.01, 0.001),
    "job:weir_cache_hits_per_lookup:ratio_rate1h": (0.4, 0.05),
    'job_provider_model:weir_upstream_duration_seconds:p95_15m{provider="openai",model="gpt-4o-mini"}': (1.0, 0.2),
    'job_provider_model:weir_ttft_seconds:p95_15m{provider="openai",model="gpt-4o-mini"}': (0.5, 0.1),
}
DAYS, STEP_S = 8, 240


@dataclasses.dataclass
class Asked:
    """An expression, and where it stands."""

    place: str
    expression: str

    def query(self):
        """The expression as Grafana would send it."""
        expression = self.expression
        for variable, length in INTERVALS.items():
            expression = expression.replace(variable, length)
        return CHOICE.sub('".*"', expression)


class Boards:
    """A Prometheus that knows a busy weir."""

    def __init__(self, url, house, app):
        self.url, self.house, self.app = url, house, app

    def numbers(self, query):
        """How many numbers a query returns; what is not a number does not count. Raises what is wrong with it."""
        answer = get_json(f"{self.url}/api/v1/query?query={urllib.parse.quote(query)}")["data"]
        result = [{"value": answer["result"]}] if answer["resultType"] == "scalar" else answer["result"]
        return sum(not math.isnan(float(sample["value"][1])) for sample in result)

    def label_values(self, label, selector):
        return get_json(f"{self.url}/api/v1/label/{label}/values?match[]={urllib.parse.quote(selector)}")["data"]

    def check(self, all_asked):
        """Waits until all of them return numbers, but those that are rightly empty; and insists that those do not."""
        wanted = [asked for asked in all_asked if not self.is_rightly_empty(asked.place)]
        until = time.monotonic() + PATIENCE_S
        while wanted := [asked for asked in wanted if not self.numbers(asked.query())]:
            self.app.insist()
            if time.monotonic() > until:
                break
            time.sleep(1)
        silent = [f"{asked.place}: {asked.query()}" for asked in wanted]
        assert silent == [], "these return nothing:\n" + "\n".join(silent)
        empty = [asked for asked in all_asked if self.is_rightly_empty(asked.place)]
        talking = [asked.place for asked in empty if self.numbers(asked.query())]
        assert talking == [], "these return numbers: take them off the list"

    def is_rightly_empty(self, place):
        if place not in EMPTY:
            return False
        without, _ = EMPTY[place]
        return not any(name == without for name, _ in self.house.samples())


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    with contextlib.ExitStack() as stack:
        stack.enter_context(redis(folder))
        environment = busy.ENVIRONMENT | {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(busy.collector())}
        house = stack.enter_context(open_house(folder, environment, busy.config(folder, CONFIG)))
        prometheus = stack.enter_context(prometheus_of(house, folder))
        app = busy.Busy(house, folder)
        with app.going_on():
            time.sleep(BUSY_S)
            yield Boards(prometheus, house, app)


@contextlib.contextmanager
def redis(folder):
    socket = folder / "redis.sock"
    command = [needed("redis-server"), "--port", "0", "--save", "", "--unixsocket", str(socket), "--dir", str(folder)]
    with running(command):
        eventually(socket.exists)
        yield


@contextlib.contextmanager
def prometheus_of(house, folder):
    """Debian's Prometheus, with eight days behind it, and the rules evaluated every second."""
    target = house.admin.removeprefix("http://")
    (folder / "rules").mkdir()
    for file in rule_files():
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            group.pop("interval", None)
        (folder / "rules" / file.name).write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yml").write_text(PROMETHEUS.format(folder=folder, target=target))
    remember(folder, target)
    address = f"127.0.0.1:{free_port()}"
    command = [
        needed("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with running(command) as process:
        url = f"http://{address}"
        eventually(lambda: process.process.poll() is None and is_ready(url), within_s=60)
        yield url


def remember(folder, target):
    """Writes eight days of what is usual into the place where Prometheus will look."""
    now = int(time.time())
    times = range(now - DAYS * 86400, now - 300, STEP_S)
    lines = []
    for series, (middle, swing) in USUAL.items():
        name, _, labels = series.partition("{")
        labels = f'namespace="shop",job="app"{"," + labels.removesuffix("}") if labels else ""}'
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{name}{{{labels}}} {middle + swing * math.sin(at / 20000)} {at}" for at in times]
    lines.append("# TYPE weir_budget_charged_usd counter")
    for budget in ("app", "alone"):
        labels = f'namespace="shop",job="app",instance="{target}",budget="{budget}"'
        spent = ((at - times[0]) / 86400 * (10 + math.sin(at / 90000)) for at in times)
        lines += [f"weir_budget_charged_usd_total{{{labels}}} {usd} {at}" for at, usd in zip(times, spent)]
    file = folder / "usual.txt"
    file.write_text("\n".join([*lines, "# EOF\n"]))
    command = [needed("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(file), str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True)


def rule_files():
    return sorted((ROOT / "prometheus/rules").glob("*.yml"))


def rules(kind):
    """Every rule that has a `kind`, `record` or `alert`, as (name, expression)."""
    groups = [group for file in rule_files() for group in yaml.safe_load(file.read_text())["groups"]]
    return [(rule[kind], rule["expr"]) for group in groups for rule in group["rules"] if kind in rule]


def pages():
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted((ROOT / "grafana/dashboards").glob("*.json"))]


def panels(page):
    return [panel for top in page["panels"] for panel in (top, *top.get("panels", []))]


def asked_by(page):
    """Every expression of a dashboard: of its panels and of its annotations."""
    for panel in panels(page):
        for target in panel.get("targets", []):
            if target["datasource"]["type"] == "prometheus":
                yield Asked(f"{page['uid']} / {panel['title']} / {target['refId']}", target["expr"])
    for mark in page["annotations"]["list"]:
        yield Asked(f"{page['uid']} / annotation {mark['name']}", mark["expr"])


def selectors(expression):
    """What an expression reads, each by itself; of a range, the newest value in it."""
    found, in_range = [], []

    def see(part):
        if isinstance(part, promql_parser.MatrixSelector):
            found.append(f"last_over_time({part})")
            in_range.append(str(part.vector_selector))
        elif isinstance(part, promql_parser.VectorSelector) and str(part) not in in_range:
            found.append(str(part))

    promql_parser.walk(promql_parser.parse(expression), pre_visit=see)
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: page["uid"])
def test_every_panel_and_annotation_returns_numbers(boards, page):
    boards.check(list(asked_by(page)))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page["uid"])
def test_every_variable_has_values_to_choose(boards, page):
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            assert boards.label_values(label, Asked("", selector).query()) != [], variable["name"]


def test_every_recorded_series_is_there(boards):
    boards.check([Asked(name, name) for name, _ in rules("record")])


def test_every_rule_records_what_it_says(boards):
    boards.check([Asked(f"rule {name}", expression) for name, expression in rules("record")])


def test_all_that_an_alert_reads_is_there(boards):
    asked = [
        Asked(f"{name} reads {selector}", selector) for name, expression in rules("alert") for selector in selectors(expression)
    ]
    assert len(asked) > len(rules("alert"))
    boards.check(asked)


def test_prometheus_evaluates_every_rule(boards):
    groups = get_json(f"{boards.url}/api/v1/rules")["data"]["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in found} == {name for kind in ("record", "alert") for name, _ in rules(kind)}
    faults = [f"{rule['name']}: {rule['lastError']}" for rule in found if rule["health"] != "ok"]
    assert faults == []


def test_the_list_of_what_is_empty_is_of_what_there_is(boards):
    places = {asked.place for page in pages() for asked in asked_by(page)}
    places |= {name for name, _ in rules("record")} | {f"rule {name}" for name, _ in rules("record")}
    places |= {f"{name} reads {selector}" for name, expression in rules("alert") for selector in selectors(expression)}
    assert set(EMPTY) - places == set()
