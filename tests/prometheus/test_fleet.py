"""Several weirs hold one budget, by what a real Prometheus knows of them."""

import contextlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from house import WEIR, eventually, get, get_json, parse_samples, running, sides_of
from test_prometheus import free_port, is_ready, needed

SCRAPE_S = 1
READ_S = 1
LIMIT_USD = 10
CALLS_PER_S = 5
# A hundred thousand tokens out of gpt-5-mini, at two dollars for a million.
USD_PER_CALL = 0.2
CENT = 0.01

WEIR_CONFIG = """
listen: 127.0.0.1:0
admin: {{ listen: 127.0.0.1:0 }}
state_dir: "{state}"
providers: {{ openai: {{ base_url: "{simulator}" }} }}
cache: {{ mode: off }}
limits:
  - {{ name: agents, per: agent, requests_per_minute: 100000, tokens_per_minute: 1000000000 }}
budgets:
  - {{ name: app, limit_usd: {limit}, limit_tokens: 1000000000, window: month, enforce: block }}
  - {{ name: users, per: user, limit_usd: 1000, window: day }}
fleet_spend: {{ prometheus_url: "{prometheus}", match: 'job="weir"', interval: {read}s }}
telemetry: {{ log: {{ format: json }} }}
"""

PROMETHEUS_CONFIG = """
global: {{ scrape_interval: {scrape}s, scrape_timeout: {scrape}s }}
scrape_configs:
  - job_name: weir
    file_sd_configs: [{{ files: ["{targets}"], refresh_interval: 1s }}]
"""


class Replica:
    """One weir of several."""

    def __init__(self, process, app, admin):
        self.process, self.app, self.admin = process, app, admin

    def call(self):
        """Makes a call that costs USD_PER_CALL; whether it was let through."""
        body = {"model": "gpt-5-mini", "max_tokens": 100_000, "messages": [{"role": "user", "content": "q"}]}
        headers = {
            "authorization": "Bearer sk-1",
            "content-type": "application/json",
            "x-simulate": "usage=input:0,output:100000",
        }
        url = f"{self.app}/openai/v1/chat/completions"
        try:
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status == 200
        except urllib.error.HTTPError as refused:
            assert refused.code == 429, refused.read()
            return False

    def spent(self, scope="app"):
        """What the budget shows as spent in this scope; None if it has another."""
        labels = {("budget", "app"), ("window", "month"), ("scope", scope)}
        return parse_samples(get(f"{self.admin}/metrics")).get(("weir_budget_spent_usd", frozenset(labels)))

    def said(self, words):
        """How often it has said so in its log."""
        return sum(words in line for line in self.process.lines)


class Fleet:
    """A Prometheus, and weirs that it scrapes, in front of one simulator."""

    def __init__(self, folder, simulator):
        self.folder, self.simulator, self.port = folder, simulator, free_port()
        self.targets = folder / "targets.json"
        self.replicas = []
        self.tell_prometheus()

    @contextlib.contextmanager
    def prometheus(self):
        config = self.folder / "prometheus.yml"
        config.write_text(PROMETHEUS_CONFIG.format(scrape=SCRAPE_S, targets=self.targets))
        command = [
            needed("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        with running(command) as process:
            eventually(lambda: process.process.poll() is None and is_ready(self.url), within_s=30)
            yield
            process.process.terminate()
            process.process.wait(30)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def replica(self):
        file = self.folder / f"weir-{len(self.replicas)}.yaml"
        # Each has a state of its own: what one finds out about the others, it has from Prometheus.
        state = self.folder / f"state-{len(self.replicas)}"
        config = WEIR_CONFIG.format(
            state=state, simulator=self.simulator, limit=LIMIT_USD, prometheus=self.url, read=READ_S
        )
        file.write_text(config)
        with running([WEIR, "run", "--config", str(file)]) as process:
            replica = Replica(process, **sides_of(process))
            self.replicas.append(replica)
            self.tell_prometheus()
            yield replica

    def tell_prometheus(self):
        targets = [replica.admin.removeprefix("http://") for replica in self.replicas]
        self.targets.write_text(json.dumps([{"targets": targets}]))

    def query(self, query):
        found = get_json(f"{self.url}/api/v1/query?query={urllib.parse.quote(query)}")["data"]["result"]
        return float(found[0]["value"][1]) if found else None


@contextlib.contextmanager
def fleet(folder):
    needed("prometheus")
    with running([WEIR, "simulate", "--listen", "127.0.0.1:0"]) as simulator:
        found = simulator.wait_for(lambda line: re.search(r"simulator listening on (http://\S+)", line))
        yield Fleet(folder, found[1])


def spend(replicas, until):
    """Makes calls by turns, so many a second (the bound is a matter of time), until `until` of them in a row are refused;
    what the others cost."""
    admitted, refused, due = 0, 0, time.monotonic()
    while refused < until:
        for replica in replicas:
            let_through = replica.call()
            admitted, refused = (admitted + 1, 0) if let_through else (admitted, refused + 1)
            due += 1 / CALLS_PER_S
            time.sleep(max(0, due - time.monotonic()))
    return admitted * USD_PER_CALL


def test_three_instances_hold_one_budget_within_the_bound(tmp_path):
    with fleet(tmp_path) as house, contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(house.replica()) for _ in range(3)]
        with house.prometheus():
            eventually(lambda: all(replica.spent() == 0 for replica in replicas), within_s=30)
            spent = spend(replicas, until=3 * len(replicas))
            # What the others spend before it is scraped and read, and the call that each of them is in the middle of.
            others = (len(replicas) - 1) / len(replicas) * CALLS_PER_S * USD_PER_CALL
            bound = others * (SCRAPE_S + READ_S + 1) + len(replicas) * USD_PER_CALL
            assert spent <= LIMIT_USD + bound, "held"
            assert spent >= LIMIT_USD - bound, "but not much too early"
            charged = 'sum(weir_budget_charged_usd_total{budget="app"})'
            eventually(lambda: house.query(charged) == pytest.approx(spent))

            # One of them dies. What it spent stays spent, also for one that is new and has spent nothing.
            replicas[0].process.process.kill()
            replicas[0].process.process.wait()
            eventually(lambda: house.query("sum(up)") == 2)
            late = stack.enter_context(house.replica())
            eventually(lambda: (late.spent() or 0) >= LIMIT_USD)
            assert late.spent() <= spent * 1.1, "extrapolated by half a scrape"
            assert not late.call(), "there is nothing left for it"
            replicas[0] = late
            checked = subprocess.run(
                [needed("promtool"), "check", "metrics"],
                input=get(f"{late.admin}/metrics"),
                text=True,
                capture_output=True,
                check=False,
            )
            assert checked.returncode == 0, checked.stdout + checked.stderr

        # Prometheus goes away and comes back: nobody forgets, and each says so once.
        gone, back = "cannot be read from Prometheus", "is read from Prometheus again"
        before = [(replica.said(gone), replica.said(back)) for replica in replicas]
        eventually(lambda: all(now.said(gone) == was[0] + 1 for now, was in zip(replicas, before)))
        assert not any(replica.call() for replica in replicas), "what was spent stays spent"
        with house.prometheus():
            eventually(lambda: all(now.said(back) == was[1] + 1 for now, was in zip(replicas, before)))
            assert not any(replica.call() for replica in replicas)
        assert all(now.said(gone) <= was[0] + 2 for now, was in zip(replicas, before)), "it went away twice"


def test_an_instance_that_starts_anew_finds_what_it_spent(tmp_path):
    with fleet(tmp_path) as house, contextlib.ExitStack() as stack:
        first = stack.enter_context(house.replica())
        with house.prometheus():
            eventually(lambda: first.spent() == 0, within_s=30)
            spent = spend([first], until=1)
            # What it has spent since it was scraped may count twice.
            assert LIMIT_USD - CALLS_PER_S * USD_PER_CALL * (SCRAPE_S + 2) <= spent <= LIMIT_USD + USD_PER_CALL
            charged = 'sum(weir_budget_charged_usd_total{budget="app"})'
            eventually(lambda: house.query(charged) == pytest.approx(spent))
            first.process.process.kill()
            first.process.process.wait()
            anew = stack.enter_context(house.replica())
            eventually(lambda: (anew.spent() or 0) >= spent - CENT)
            assert anew.spent("instance") is None
