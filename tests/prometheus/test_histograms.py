"""A real Prometheus takes native histograms, and says of them what it says of the classic ones."""

import json
import urllib.request

import pytest

from house import CONFIG, eventually, open_house
from test_prometheus import prometheus_of

BOTH = CONFIG.replace("telemetry: {{", "cache: {{ mode: off }}\ntelemetry: {{ metrics: {{ histograms: both }},")
# One call in five is slow, so that the 95th percentile is that of the slow ones.
LATENCIES_MS = [10, 10, 10, 10, 200]
# Between two buckets, what is in one is taken to be spread evenly: native ones are 9 % apart, and nothing is exact.
SLOW_S = pytest.approx(0.2, rel=0.2)
DURATION = "weir_request_duration_seconds"


@pytest.fixture
def house(tmp_path):
    with open_house(tmp_path, config=BOTH) as own:
        yield own


def call(house, headers):
    """Asks once, and returns the head of the answer."""
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "What is a weir?"}]}
    headers = {"authorization": "Bearer sk-1", "content-type": "application/json", **headers}
    request = urllib.request.Request(f"{house.app}/openai/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.status == 200
        return reply.headers


def test_a_quantile_of_native_buckets_is_that_of_the_classic_ones(house, tmp_path):
    with (
        prometheus_of(house, tmp_path / "native", "native-histograms") as native,
        prometheus_of(house, tmp_path / "classic") as classic,
    ):
        natively = f"histogram_quantile(0.95, sum(rate({DURATION}[1m])))"
        classically = f"histogram_quantile(0.95, sum by (le) (rate({DURATION}_bucket[1m])))"

        def both_know():
            """Calls go on until both have seen enough of them to tell a rate."""
            for latency_ms in LATENCIES_MS:
                simulated = f"latency={latency_ms}ms;chunk-delay=0ms;usage=input:3,output:1"
                call(house, {"x-simulate": simulated})
            return is_known(native, natively) and is_known(classic, classically)

        eventually(both_know, within_s=60)
        assert value(native, natively) == SLOW_S
        assert 0.1 < value(classic, classically) <= 0.25, "its bucket is as wide"
        counted = f"histogram_count(sum({DURATION}))"
        house.settle()
        eventually(lambda: value(native, counted) == house.sum(f"{DURATION}_count"), within_s=30)
        # Everything else reads as it does in text.
        calls = house.sum("weir_requests_total")
        for prometheus in (native, classic):
            eventually(lambda: prometheus.sum("weir_requests_total") == calls, within_s=30)
            assert prometheus.sum("weir_build_info") == 1
        assert native.query(f"{DURATION}_bucket") == [], "native buckets take the place of classic ones"
        assert native.sum("weir_metrics_series") > classic.sum("weir_metrics_series")


def is_known(prometheus, query):
    return value(prometheus, query) is not None


def value(prometheus, query):
    """The value that a query finds; None if there is none yet."""
    found = prometheus.query(query)
    known = float(found[0]["value"][1]) if found else float("nan")
    return None if known != known else known
