"""The real thing, an hour in a minute: apps with a weir each, Prometheus with the real rules, Alertmanager with the real
configuration, and a recorder in place of the people who are told."""

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from house import ROOT, STOP_WITHIN_S, WEIR, eventually, get, get_json, running, sides_of
from recorder import WEBHOOK, recorder
from rules import RULES
from scale import FACTOR, SCRAPE_S, scaled_alertmanager, scaled_rules
from test_prometheus import free_port, needed

SECRETS = "/etc/alertmanager/secrets"
TEMPLATES = "/etc/alertmanager/templates"
TOKEN = "test-token"
# The age of the table that is compiled in is a matter of the calendar: some day each weir here would ring for it.
WITHOUT = {"WeirPriceTableStale"}
# Longest wait for something to happen: a scaled minute or two, on a slow machine.
WITHIN_S = 150
# Dollars for a token out of gpt-5-mini.
USD_PER_TOKEN = 2e-6

WEIR_CONFIG = """
listen: 127.0.0.1:{app}
connections: {{ drain_timeout: 5s }}
admin: {{ listen: 127.0.0.1:{admin}, token_file: "{folder}/token" }}
state_dir: "{folder}"
providers: {{ openai: {{ base_url: "{provider}" }} }}
cache: {{ mode: off }}
budgets:
  - {{ name: app, limit_usd: 100, window: month, enforce: alert }}
telemetry: {{ log: {{ format: json }} }}
"""


class Simulator:
    """A provider that can go away and come back."""

    def __init__(self, stack):
        self.stack, self.port = stack, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process = self.stack.enter_context(running([WEIR, "simulate", "--listen", f"127.0.0.1:{self.port}"]))
        self.process.wait_for(lambda line: re.search(r"simulator listening on", line))

    def kill(self):
        self.process.process.kill()
        self.process.process.wait()


class Instance:
    """One weir of an app, always at the same address."""

    def __init__(self, stack, folder, provider):
        self.stack, self.folder = stack, folder
        folder.mkdir()
        (folder / "token").write_text(TOKEN)
        self.app, self.admin = free_port(), free_port()
        config = WEIR_CONFIG.format(app=self.app, admin=self.admin, folder=folder, provider=provider)
        (folder / "weir.yaml").write_text(config)

    @property
    def target(self):
        return f"127.0.0.1:{self.admin}"

    def start(self):
        self.process = self.stack.enter_context(running([WEIR, "run", "--config", str(self.folder / "weir.yaml")]))
        sides_of(self.process)

    def stop(self):
        self.process.stop()

    def kill(self):
        self.process.process.kill()
        self.process.process.wait(STOP_WITHIN_S)

    def call(self, usd=0.0001):
        """Makes a call that costs so much; its status, or None where nobody answers."""
        tokens = round(usd / USD_PER_TOKEN)
        body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "q"}]}
        headers = {
            "authorization": "Bearer sk-1",
            "content-type": "application/json",
            "x-simulate": f"usage=input:0,output:{tokens}",
        }
        url = f"http://127.0.0.1:{self.app}/openai/v1/chat/completions"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10) as it:
                return it.status
        except urllib.error.HTTPError as failed:
            return failed.code
        except OSError:
            return None

    def limit_month(self, usd):
        """Gives the month another limit, as an operator does."""
        url = f"http://{self.target}/api/v1/cost/budget"
        body = json.dumps({"monthly_limit_usd": usd}).encode()
        request = urllib.request.Request(url, body, {"authorization": f"Bearer {TOKEN}"}, method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


class Stack:
    def __init__(self, folder, recorded):
        self.folder, self.recorded = folder, recorded
        self.prometheus, self.alertmanager = (f"http://127.0.0.1:{free_port()}" for _ in range(2))

    def scrape(self, job, *instances):
        """From now on, these are the instances of an app."""
        targets = [{"targets": [it.target for it in instances], "labels": {"namespace": "shop", "job": job}}]
        # Prometheus must never read half of it.
        new = self.folder / "targets" / f"{job}.new"
        new.write_text(json.dumps(targets))
        new.rename(new.with_suffix(".json"))

    def query(self, query):
        return get_json(f"{self.prometheus}/api/v1/query?query={urllib.parse.quote(query)}")["data"]["result"]

    def wait_until_scraped(self, job, instances=1):
        eventually(lambda: self.values(f'sum(up{{job="{job}"}})') == [instances], WITHIN_S)

    def values(self, query):
        return [float(found["value"][1]) for found in self.query(query)]

    def wait_for(self, job, name):
        """The alert of this name, once it rings."""
        eventually(lambda: self.recorded.rung(job, name), WITHIN_S)
        return self.recorded.rung(job, name)

    def wait_until_over(self, job, receiver, name):
        eventually(lambda: self.recorded.is_over(job, receiver, name), WITHIN_S)


def prometheus_config(folder, alertmanager):
    """The one for laptops, with other targets, and as fast as the rules."""
    config = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    every = f"{SCRAPE_S}s"
    config["global"] |= {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    config["rule_files"] = [str(folder / "rules/*.yml")]
    told = {"api_version": "v2", "static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}
    config["alerting"]["alertmanagers"] = [told]
    files = {"files": [str(folder / "targets/*.json")], "refresh_interval": every}
    config["scrape_configs"] = [{"job_name": "weir", "file_sd_configs": [files]}]
    return config


def alertmanager_config(folder, recorded):
    """The real one, with secrets and receivers that are here. Beside what it sends to, each receiver has a webhook."""
    text = (ROOT / "alertmanager/alertmanager.yml").read_text()
    config = yaml.safe_load(text.replace(SECRETS, str(folder)).replace(TEMPLATES, str(ROOT / "alertmanager/templates")))
    (folder / "slack_url").write_text(f"{recorded.url}/slack")
    for secret in ("pagerduty_key", "deadman_token", "webhook_token", "smtp_password"):
        (folder / secret).write_text("secret")
    config["global"]["pagerduty_url"] = f"{recorded.url}/pagerduty"
    for receiver in config["receivers"]:
        receiver.pop("email_configs", None)
        receiver["webhook_configs"] = [{"url": f"{recorded.url}{WEBHOOK}{receiver['name']}", "send_resolved": True}]
    return scaled_alertmanager(config)


def write_history(folder, series, hourly):
    """Writes a recorded series of the past seven days, scaled, into Prometheus' data; `hourly` says each day's value."""
    day, step, now = 86400 // FACTOR, 15, int(time.time())
    name, _, _ = series.partition("{")
    lines = [f"# TYPE {name} gauge"]
    # Two days' lookbacks overlap by what the test takes: the past ends half a day before it.
    for at in range(now - 7 * day - 300, now - day // 2, step):
        lines.append(f"{series} {hourly[(now - at) // day]} {at}")
    file = folder / "history.om"
    file.write_text("\n".join([*lines, "# EOF", ""]))
    command = [needed("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(file), str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def open_stack(folder, history):
    """Prometheus and Alertmanager, and nothing scraped yet. `history`: the recorded series that go back seven days."""
    prometheus = needed("prometheus")
    for name in ("targets", "rules", "data"):
        (folder / name).mkdir()
    with recorder() as recorded, contextlib.ExitStack() as processes:
        stack = Stack(folder, recorded)
        for file in RULES:
            rules = scaled_rules(yaml.safe_load(file.read_text()), WITHOUT)
            (folder / "rules" / file.name).write_text(yaml.safe_dump(rules, sort_keys=False))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(prometheus_config(folder, stack.alertmanager)))
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(alertmanager_config(folder, recorded)))
        for series, hourly in history.items():
            write_history(folder, series, hourly)
        commands = {
            stack.alertmanager: alertmanager_command(
                folder / "alertmanager.yml", folder / "alertmanager", stack.alertmanager
            ),
            stack.prometheus: [
                prometheus,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={stack.prometheus.removeprefix('http://')}",
                # A minute by default. Not a second: of what it has not heard of four times that, Alertmanager says it is over.
                "--rules.alert.resend-delay=10s",
                "--log.level=warn",
            ],
        }
        for url, command in commands.items():
            process = processes.enter_context(running(command))
            eventually(lambda: process.process.poll() is None and is_up(url), within_s=60)
        yield stack


def alertmanager_command(config, data, url):
    """The command that runs an Alertmanager by itself. Debian calls the program by another name."""
    return [
        shutil.which("alertmanager") or needed("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={data}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


def is_up(url):
    with contextlib.suppress(OSError):
        return get(f"{url}/-/ready") != ""
