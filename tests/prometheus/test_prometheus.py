"""A real Prometheus scrapes weir, and its sums equal the provider's bill and the price table."""

import contextlib
import decimal
import json
import socket
import subprocess
import urllib.parse

import pytest

from house import ROOT, eventually, get, get_json, needed, running
from traffic import make_traffic

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
CONFIG = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: weir
    static_configs: [{{ targets: ["{target}"] }}]
"""
# Floats are added up by Prometheus; a nano-dollar is far below what a bill shows.
NANO_USD = 1e-9


class Prometheus:
    def __init__(self, url):
        self.url = url

    def query(self, query):
        """What an instant query finds: a list of labels and values."""
        return get_json(f"{self.url}/api/v1/query?query={urllib.parse.quote(query)}")["data"]["result"]

    def sum(self, metric, **labels):
        """The sum over the newest samples of a metric that carry these labels; zero if there are none."""
        selector = ",".join(f'{name}="{value}"' for name, value in labels.items())
        found = self.query(f"sum({metric}{{{selector}}})")
        return float(found[0]["value"][1]) if found else 0.0


@contextlib.contextmanager
def prometheus_of(house, folder, *features):
    """A Prometheus that scrapes the house, with these features of its own."""
    program = needed("prometheus")
    folder.mkdir(exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(target=house.admin.removeprefix("http://")))
    url = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url}",
        "--log.level=warn",
        *(f"--enable-feature={feature}" for feature in features),
    ]
    with running(command) as process:
        eventually(lambda: process.process.poll() is None and is_ready(f"http://{url}"), within_s=30)
        yield Prometheus(f"http://{url}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(url):
    with contextlib.suppress(OSError):
        return "Ready" in get(f"{url}/-/ready")


def test_sums_equal_the_bill_and_the_price_table(fresh_house, tmp_path):
    with prometheus_of(fresh_house, tmp_path) as prometheus:
        make_traffic(fresh_house)
        calls = fresh_house.sum("weir_requests_total")
        eventually(lambda: prometheus.sum("weir_requests_total") == calls, within_s=30)
        lines = fresh_house.bill()["lines"]
        assert len(lines) >= 4
        for line in lines:
            labels = {"provider": line["api"], "model": line["model"]}
            hits = prometheus.sum("weir_cache_requests_total", result="hit", **labels)
            assert hits > 0, line
            assert prometheus.sum("weir_requests_total", **labels) - hits == line["requests"], line
            assert prometheus.sum("weir_tokens_total", **labels) == line["input"] + line["output"], line
            spent = prometheus.sum("weir_cost_usd_total", **labels)
            assert spent == pytest.approx(float(charge(line)), abs=NANO_USD, rel=0), line
        assert prometheus.sum("weir_unpriced_requests_total") == 0
        assert prometheus.sum("up") == 1


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_a_scrape_reads_well(fresh_house, accept):
    promtool = needed("promtool")
    make_traffic(fresh_house)
    text = get(f"{fresh_house.admin}/metrics", headers={"Accept": accept})
    if accept == OPENMETRICS:
        # promtool reads classic text only; of OpenMetrics it can check what both have in common: the end marker must
        # be there, and go.
        assert text.endswith("# EOF\n")
        return
    checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def charge(line):
    """What a line of the bill costs by the price table, in US dollars."""
    rates = rates_of(line["api"], line["model"])
    uncached = line["input"] - line["cached"] - line["cache_write_short"] - line["cache_write_long"]
    counts = {
        "input_tokens": uncached,
        "cache_read_tokens": line["cached"],
        "cache_write_tokens": line["cache_write_short"],
        "cache_write_1h_tokens": line["cache_write_long"],
        "output_tokens": line["output"],
    }
    return sum(decimal.Decimal(rates[unit]) * count for unit, count in counts.items() if count) / 1_000_000


def rates_of(provider, model):
    """The standard rates of a model that is listed under its own name, for prompts of ordinary length."""
    table = json.loads((ROOT / "src/price/prices.json").read_text())
    models = next(entry["models"] for entry in table["providers"] if entry["id"] == provider)
    rates = next(entry["rates"] for entry in models if entry["id"] == model)
    return {unit: rate["base"] if isinstance(rate, dict) else rate for unit, rate in rates.items()}
