"""Metrics of the app's own: what OpenTelemetry's SDK records, and what is pushed as JSON, is what weir exposes."""

import contextlib
import itertools
import json
import urllib.request

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA


class Exporter(OTLPMetricExporter):
    """The SDK's exporter, which remembers what came of each push."""

    results = ()

    def export(self, *args, **kwargs):
        result = super().export(*args, **kwargs)
        self.results = (*self.results, result)
        return result


class App:
    """One process of the app, with the SDK as an app sets it up."""

    def __init__(self, house, temporality=CUMULATIVE, compression=None, views=(), **resource):
        kinds = (Counter, UpDownCounter, Histogram, ObservableCounter)
        self.exporter = Exporter(
            endpoint=f"{house.admin}/v1/metrics",
            compression=compression,
            preferred_temporality=dict.fromkeys(kinds, temporality),
        )
        # Nothing is pushed but by `push`.
        reader = PeriodicExportingMetricReader(self.exporter, export_interval_millis=3_600_000)
        self.provider = MeterProvider([reader], resource=Resource(resource), views=views)
        self.meter = self.provider.get_meter("shop", "1.0")
        self.orders = self.meter.create_counter("shop.orders", unit="{order}", description="Orders")
        self.revenue = self.meter.create_counter("shop.revenue", unit="USD")
        self.carts = self.meter.create_up_down_counter("shop.carts")
        self.latency = self.meter.create_histogram(
            "shop.checkout.duration", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1.0]
        )

    def push(self):
        assert self.provider.force_flush()
        assert all(result == MetricExportResult.SUCCESS for result in self.exporter.results)

    def end(self):
        self.provider.shutdown()


@contextlib.contextmanager
def app(*args, **kwargs):
    one = App(*args, **kwargs)
    try:
        yield one
    finally:
        one.end()


def test_every_instrument_is_exposed(fresh_house):
    with app(fresh_house, compression=Compression.Gzip) as one:
        served = itertools.count(10, 5)
        one.meter.create_observable_counter(
            "shop.served", unit="By", callbacks=[lambda _: [Observation(next(served), {"http.route": "/a"})]]
        )
        one.meter.create_gauge("shop.temperature", unit="Cel").set(21.5)
        one.meter.create_observable_gauge("shop.load", unit="1", callbacks=[lambda _: [Observation(0.25)]])
        one.orders.add(2, {"shop": "eu", "first": True})
        one.orders.add(3, {"shop": "us", "first": False})
        one.revenue.add(12.5)
        one.carts.add(4)
        one.carts.add(-1)
        for seconds in (0.05, 0.5, 5):
            one.latency.record(seconds, {"shop": "eu"})
        one.push()
        samples = fresh_house.samples()
        expected = {
            ("app_shop_orders_total", (("first", "true"), ("shop", "eu"))): 2,
            ("app_shop_orders_total", (("first", "false"), ("shop", "us"))): 3,
            ("app_shop_revenue_usd_total", ()): 12.5,
            ("app_shop_carts", ()): 3,
            ("app_shop_checkout_duration_seconds_bucket", (("le", "0.1"), ("shop", "eu"))): 1,
            ("app_shop_checkout_duration_seconds_bucket", (("le", "1.0"), ("shop", "eu"))): 2,
            ("app_shop_checkout_duration_seconds_bucket", (("le", "+Inf"), ("shop", "eu"))): 3,
            ("app_shop_checkout_duration_seconds_sum", (("shop", "eu"),)): 5.55,
            ("app_shop_checkout_duration_seconds_count", (("shop", "eu"),)): 3,
            ("app_shop_served_bytes_total", (("http_route", "/a"),)): 10,
            ("app_shop_temperature_celsius", ()): 21.5,
            ("app_shop_load_ratio", ()): 0.25,
        }
        for (name, labels), value in expected.items():
            assert samples.get((name, frozenset(labels))) == pytest.approx(value), (name, labels)


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_counts_go_on_whichever_way_they_are_told(fresh_house, temporality):
    def counted():
        return [
            fresh_house.sum("app_shop_orders_total"),
            fresh_house.sum("app_shop_checkout_duration_seconds_count"),
            fresh_house.sum("app_shop_checkout_duration_seconds_sum"),
            fresh_house.sum("app_shop_carts"),
        ]

    with app(fresh_house, temporality) as one:
        for pushes in (1, 2, 3):
            one.orders.add(2)
            one.carts.add(1)
            one.latency.record(0.5)
            one.push()
            assert counted() == [2 * pushes, pushes, 0.5 * pushes, pushes]
        one.push()
        assert counted() == [6, 3, 1.5, 3], "nothing has happened"
    with app(fresh_house, temporality) as restarted:
        restarted.orders.add(1)
        restarted.latency.record(0.25)
        restarted.push()
        assert counted()[:3] == [7, 4, 1.75], "the app began again at zero, and its total goes on"


def test_processes_of_one_app_add_up(fresh_house):
    with app(fresh_house, worker=1) as one, app(fresh_house, worker=2) as other:
        for pushes in (1, 2, 3):
            one.orders.add(1)
            other.orders.add(10)
            one.push()
            other.push()
            assert fresh_house.sum("app_shop_orders_total") == 11 * pushes


def test_what_cannot_be_taken_is_counted_and_the_rest_is_taken(fresh_house):
    exponential = View(instrument_name="shop.checkout.duration", aggregation=ExponentialBucketHistogramAggregation())
    with app(fresh_house, views=[exponential]) as one:
        one.orders.add(1, {name: "x" for name in "abcde"})
        one.orders.add(1)
        one.latency.record(0.5)
        one.push()
        # Before the end of the app, which pushes once more.
        assert fresh_house.sum("app_shop_orders_total") == 1
        assert fresh_house.sum("weir_custom_metrics_rejected_total", reason="labels") == 1
        assert fresh_house.sum("weir_custom_metrics_rejected_total", reason="type") == 1
        assert fresh_house.sum("weir_custom_metrics_rejected_total") == 2


def test_json_and_opentelemetry_meet_in_one_name(fresh_house):
    with app(fresh_house) as one:
        one.orders.add(2)
        one.push()
    body = json.dumps({"name": "shop_orders", "type": "counter", "value": 3}).encode()
    with urllib.request.urlopen(f"{fresh_house.admin}/api/v1/metrics", body, timeout=10) as reply:
        assert json.load(reply) == {"accepted": 1}
    assert fresh_house.sum("app_shop_orders_total") == 5
