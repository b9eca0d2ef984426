"""docker-compose.yml without containers: its services as processes, by their very commands, with the very files that they mount;
only addresses and folders are those of this machine."""

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import urllib.parse

import pytest

from composed import mounts, services
from house import ROOT, WEIR, eventually, get, get_json, parse_samples, running
from test_prometheus import free_port, needed

# Prometheus scrapes every 15 seconds and evaluates its rules every minute, as it does in earnest.
WITHIN_S = 150
# Who listens where, inside: every address that a command or a file names.
PORTS = {"weir": [9347, 9348], "simulator": [9349], "prometheus": [9090], "alertmanager": [9093], "tempo": [4318]}
# What the images' programs are called here. Debian renames one of them.
PROGRAMS = {"prometheus": ["prometheus"], "alertmanager": ["alertmanager", "prometheus-alertmanager"]}
# What the app moves at once. Other panels ask for what takes minutes or a mishap to come about; test_boards.py has them all.
MOVED = {"weir_requests_total", "weir_cost_usd_total", "weir_tokens_total", "weir_cache_requests_total"}


class Stage:
    """This machine, dressed up as compose's network and file systems."""

    def __init__(self, folder):
        self.folder = folder
        self.port = {port: free_port() for ports in PORTS.values() for port in ports}

    def url(self, port):
        return f"http://127.0.0.1:{self.port[port]}"

    def addresses(self, text):
        """With this machine's addresses in place of the network's."""
        for service, ports in PORTS.items():
            for port in ports:
                for host in (service, "0.0.0.0", "127.0.0.1"):
                    text = re.sub(rf"(?<![\w.]){re.escape(host)}:{port}\b", f"127.0.0.1:{self.port[port]}", text)
        return text

    def build(self, name):
        """What a service sees of the repository, copied to where its commands will find it; its volumes, empty."""
        root, service = self.folder / name, services()[name]
        targets = [target for _, target in mounts(service)]
        targets += [volume["target"] for volume in service.get("volumes", []) if volume["type"] == "volume"]
        for here, there in mounts(service):
            shutil.copytree(here, root / there.strip("/"), dirs_exist_ok=True)
        for target in targets:
            (root / target.strip("/")).mkdir(parents=True, exist_ok=True)
        # Longest first: one is inside another.
        self.paths = getattr(self, "paths", {}) | {name: (root, sorted(targets, key=len, reverse=True))}
        for file in root.rglob("*.y*ml"):
            file.write_text(self.at_home(name, self.addresses(file.read_text())))

    def at_home(self, name, text):
        """With the service's folder here in place of its root."""
        root, targets = self.paths[name]
        pattern = "|".join(map(re.escape, targets))
        return re.sub(rf"(?<![\w.])(?:{pattern})(?=/|\b)", lambda found: f"{root}{found[0]}", text) if targets else text

    def words(self, name, words):
        return [self.at_home(name, self.addresses(word)) for word in words]

    def environment(self, name):
        return {key: self.at_home(name, value) for key, value in services()[name].get("environment", {}).items()}

    def command(self, name):
        words = self.words(name, services()[name]["command"])
        if name not in PROGRAMS:
            return [WEIR, *words]
        found = next(filter(None, map(shutil.which, PROGRAMS[name])), None)
        port = self.port[PORTS[name][0]]
        return [found or needed(PROGRAMS[name][-1]), *words, f"--web.listen-address=127.0.0.1:{port}"]

    def is_well(self, name):
        """Whether the service's own health check says so."""
        _, program, *words = services()[name]["healthcheck"]["test"]
        program = WEIR if program == "/weir" else needed(program)
        said = subprocess.run([program, *self.words(name, words)], env=self.environment(name), capture_output=True, check=False)
        return said.returncode == 0

    @contextlib.contextmanager
    def on(self, name):
        self.build(name)
        with running(self.command(name), self.environment(name)) as process:
            if "test" in services()[name].get("healthcheck", {}):
                eventually(lambda: process.process.poll() is not None or self.is_well(name), within_s=60)
            assert process.process.poll() is None, "".join(process.lines)
            yield process

    def query(self, query):
        return get_json(f"{self.url(9090)}/api/v1/query?query={urllib.parse.quote(query)}")["data"]["result"]


@contextlib.contextmanager
def collector(port):
    """In place of Tempo: takes whatever it is told."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("stage"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(collector(stage.port[4318]))
        for name in ("simulator", "alertmanager", "prometheus", "weir", "app"):
            process = stack.enter_context(stage.on(name))
            if name == "app":
                process.wait_for(lambda line: "calls per second go through" in line)
        yield stage


@pytest.mark.parametrize("name", ["simulator", "weir", "prometheus", "alertmanager"])
def test_each_says_itself_that_it_is_well(stage, name):
    eventually(lambda: stage.is_well(name), within_s=60)


def test_a_health_check_can_fail(tmp_path):
    away = Stage(tmp_path)
    for name in ("simulator", "weir", "prometheus", "alertmanager"):
        away.build(name)
        assert not away.is_well(name), f"{name} does not run here"


def test_the_apps_calls_go_through_weir_to_the_provider(stage):
    eventually(lambda: get_json(f"{stage.url(9349)}/simulator/bill")["lines"] != [], within_s=WITHIN_S)

    def is_metered():
        """Once a call is over, which is later than when the provider bills it."""
        samples = parse_samples(get(f"{stage.url(9348)}/metrics"))
        return {"weir_requests_total", "weir_cost_usd_total"} <= {name for (name, _), value in samples.items() if value > 0}

    eventually(is_metered, within_s=WITHIN_S)


def test_prometheus_scrapes_weir_under_the_apps_name(stage):
    eventually(lambda: stage.query('up{job="demo", namespace="compose"} == 1') != [], within_s=WITHIN_S)
    targets = get_json(f"{stage.url(9090)}/api/v1/targets")["data"]
    assert [target["lastError"] for target in targets["activeTargets"]] == [""]


def test_the_dashboards_queries_are_answered(stage):
    """All of the first page without an error, and those that ask for what the app moves, however it ends, with numbers."""
    page = json.loads((ROOT / "grafana/dashboards/weir-overview.json").read_text())
    panels = [panel for top in page["panels"] for panel in (top, *top.get("panels", []))]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", []) if "expr" in target]
    assert asked
    moved = []
    for expression in map(as_grafana_sends, asked):
        stage.query(expression)
        if "outcome=" not in expression and any(re.search(rf"\b{name}\b", expression) for name in MOVED):
            eventually(lambda: stage.query(expression) != [], within_s=WITHIN_S)
            moved.append(expression)
    assert moved


def as_grafana_sends(expression):
    for variable in ("$__rate_interval", "$__range", "$__interval"):
        expression = expression.replace(variable, "1m")
    return re.sub(r'"\$[a-z]+"', '".*"', expression)


def test_rules_are_evaluated_and_alerts_arrive(stage):
    """The watchdog rings always: that it is heard shows that rules, Prometheus and Alertmanager know of each other."""

    def heard():
        alerts = get_json(f"{stage.url(9093)}/api/v2/alerts")
        return "WeirWatchdog" in {alert["labels"]["alertname"] for alert in alerts}

    eventually(heard, within_s=WITHIN_S)
    groups = get_json(f"{stage.url(9090)}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 50
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_spans_are_sent(stage):
    def sent():
        samples = parse_samples(get(f"{stage.url(9348)}/metrics"))
        return sum(value for (name, _), value in samples.items() if name == "weir_otlp_exported_spans_total") > 0

    eventually(sent, within_s=WITHIN_S)
