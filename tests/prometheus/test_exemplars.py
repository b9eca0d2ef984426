"""A real Prometheus keeps exemplars, which lead from a duration and a cost to the trace of a call."""

import urllib.parse

import pytest

from house import CONFIG, eventually, get_json, open_house
from test_histograms import call
from test_prometheus import free_port, prometheus_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HISTOGRAMS = [
    "weir_request_duration_seconds_bucket",
    "gen_ai_client_operation_duration_seconds_bucket",
    "weir_request_cost_usd_bucket",
]


@pytest.fixture
def house(tmp_path):
    # Nobody listens there: exemplars need spans that are kept, not a collector that takes them.
    traces = f'telemetry: {{{{ traces: {{{{ endpoint: "http://127.0.0.1:{free_port()}" }}}},'
    with open_house(tmp_path, config=CONFIG.replace("telemetry: {{", f"cache: {{{{ mode: off }}}}\n{traces}")) as own:
        yield own


def call_in_trace(house, sampled):
    trace = TRACE if sampled else TRACE[::-1]
    head = call(house, {"traceparent": f"00-{trace}-{PARENT}-{int(sampled):02}"})
    assert head["x-weir-trace-id"] == (TRACE if sampled else None)


def exemplars(prometheus, metric):
    """What Prometheus keeps beside a metric."""
    found = get_json(f"{prometheus.url}/api/v1/query_exemplars?query={urllib.parse.quote(metric)}&start=0&end=9999999999")
    return [exemplar for series in found["data"] for exemplar in series["exemplars"]]


@pytest.mark.parametrize("form", [[], ["native-histograms"]], ids=["text", "protobuf"])
def test_exemplars_name_the_trace_of_a_call_whose_spans_are_kept(house, tmp_path, form):
    with prometheus_of(house, tmp_path / "prometheus", "exemplar-storage", *form) as prometheus:
        call_in_trace(house, sampled=True)
        call_in_trace(house, sampled=False)
        for metric in HISTOGRAMS:
            eventually(lambda metric=metric: exemplars(prometheus, metric), within_s=30)
            for exemplar in exemplars(prometheus, metric):
                assert exemplar["labels"]["trace_id"] == TRACE, "the other call cannot be looked at"
                assert exemplar["labels"]["span_id"] != PARENT, "it is the span of weir's own"
                assert float(exemplar["value"]) > 0
