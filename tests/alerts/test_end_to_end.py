"""Real weirs under load, a real Prometheus with the real rules, a real Alertmanager with the real configuration: what is
wrong rings once, with the right text, and is told to be over; what is well is silent. An hour is a minute: see scale.py.

Each story has an app of its own, and all are told at the same time in one stack."""

import concurrent.futures
import contextlib
import re
import threading
import time

import pytest

from house import eventually, running
from recorder import WEBHOOK
from stack import WITHIN_S, Instance, Simulator, open_stack

# What the app `spike` has spent at this hour of the past seven days.
PAST_USD = [0.5, 0.4, 0.5, 0.6, 0.5, 0.5, 0.4, 0.5]
SPIKE_SERIES = 'job:weir_cost_usd:increase1h{namespace="shop",job="spike"}'
# Calls of a calm app, and of one whose provider fails.
CALLS_PER_S = 2


class World:
    """The stack, and what the stories start in it."""

    def __init__(self, stack, processes, simulator):
        self.stack, self.processes, self.simulator = stack, processes, simulator

    def instance(self, name, provider=None):
        instance = Instance(self.processes, self.stack.folder / name, (provider or self.simulator).url)
        instance.start()
        return instance


@contextlib.contextmanager
def traffic(instances):
    """Calls to whichever instances there are, by turns, until the end."""
    over = threading.Event()

    def go_on():
        while not over.wait(1 / CALLS_PER_S):
            for instance in list(instances):
                instance.call()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def budget(world):
    """A month's budget of 100 dollars: most is spent already, then it crosses 80 and 100 %, then it is raised."""
    stack, job = world.stack, "budget"
    weir = world.instance(job)
    assert weir.call(79) == 200
    stack.scrape(job, weir)
    half = stack.wait_for(job, "WeirBudget50Percent")
    assert weir.call(1.5) == 200
    most = stack.wait_for(job, "WeirBudget80Percent")

    # It starts anew, and goes on with what was spent. That does not ring.
    weir.stop()
    weir.start()
    stack.wait_until_scraped(job)

    assert weir.call(21) == 200
    all_of_it = stack.wait_for(job, "WeirBudgetExceeded")
    weir.limit_month(1000)
    stack.wait_until_over(job, "budget-critical", "WeirBudgetExceeded")
    stack.wait_until_over(job, "budget", "WeirBudget80Percent")
    return half, most, all_of_it


def spike(world):
    """An app that spends half a dollar at this hour of every day, and now five."""
    stack, job = world.stack, "spike"
    weir = world.instance(job)
    assert weir.call() == 200
    stack.scrape(job, weir)
    eventually(lambda: stack.values(f'job:weir_cost_usd:increase1h{{job="{job}"}}') == [0], WITHIN_S)
    eventually(lambda: stack.values(f'job:weir_cost_usd_same_hour:count7d{{job="{job}"}}') == [7], WITHIN_S)
    for _ in range(5):
        assert weir.call(1) == 200
    rung = stack.wait_for(job, "WeirSpendSpikeSameHour")
    stack.wait_until_over(job, "budget", "WeirSpendSpikeSameHour")
    return rung


def outage(world):
    """A provider that goes away and comes back. (Few calls: an hour with fifty has an error budget to burn.)"""
    stack, job = world.stack, "outage"
    provider = Simulator(world.processes)
    provider.start()
    weir = world.instance(job, provider)
    assert weir.call() == 200
    stack.scrape(job, weir)
    stack.wait_until_scraped(job)
    provider.kill()
    with traffic([weir]):
        rung = stack.wait_for(job, "WeirProviderDown")
        provider.start()
        eventually(lambda: weir.call() == 200, WITHIN_S)
        failing = f'job_provider:weir_upstream_failures_per_request:ratio_rate5m{{job="{job}"}} > 0.9'
        eventually(lambda: not stack.values(failing), WITHIN_S)
    stack.wait_until_over(job, "pagerduty", "WeirProviderDown")
    return rung


def dead(world):
    """The only weir of an app dies, and is brought back."""
    stack, job = world.stack, "dead"
    weir = world.instance(job)
    stack.scrape(job, weir)
    stack.wait_until_scraped(job)
    weir.kill()
    one = stack.wait_for(job, "WeirInstanceDown")
    everyone = stack.wait_for(job, "WeirAllInstancesAbsent")
    weir.start()
    stack.wait_until_over(job, "slack", "WeirInstanceDown")
    stack.wait_until_over(job, "pagerduty", "WeirAllInstancesAbsent")
    return one, everyone, weir.target


def calm(world, others):
    """Nothing is wrong: calls go through, weir starts anew, another instance takes its place, until all others are told."""
    stack, job = world.stack, "calm"
    first = world.instance(job)
    stack.scrape(job, first)
    instances = [first]
    with traffic(instances):
        assert first.call(30) == 200
        stack.wait_until_scraped(job)
        first.stop()
        first.start()
        stack.wait_until_scraped(job)
        second = world.instance("calm-2")
        stack.scrape(job, first, second)
        stack.wait_until_scraped(job, 2)
        instances[:] = [second]
        stack.scrape(job, second)
        stack.wait_until_scraped(job, 1)
        first.stop()
        concurrent.futures.wait(others)
    ended = f'resets(weir_requests_total{{job="{job}"}}[10m])'
    assert max(stack.values(ended)) >= 1, "a counter was set back"
    assert stack.values(f'count(count by (instance) (count_over_time(up{{job="{job}"}}[10m])))') == [2]
    return stack.query(f'count_over_time(ALERTS{{alertstate="firing", job="{job}"}}[10m])')


STORIES = (budget, spike, outage, dead)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The recorder, and each story's end, by name."""
    folder = tmp_path_factory.mktemp("stack")
    with open_stack(folder, {SPIKE_SERIES: PAST_USD}) as stack, contextlib.ExitStack() as processes:
        simulator = Simulator(processes)
        simulator.start()
        world = World(stack, processes, simulator)
        with concurrent.futures.ThreadPoolExecutor() as tellers:
            ends = {story.__name__: tellers.submit(story, world) for story in STORIES}
            ends["calm"] = tellers.submit(calm, world, list(ends.values()))
        yield stack.recorded, ends, stack


def labels(alert, **more):
    return {"alertname": alert, "namespace": "shop", "cluster": "local"} | more


def test_a_budget_rings_at_each_threshold(told):
    recorded, ends, _ = told
    half, most, all_of_it = ends["budget"].result()
    which = {"job": "budget", "budget": "app", "window": "month", "category": "cost"}
    assert half["labels"] == labels("WeirBudget50Percent", **which, severity="info")
    assert most["labels"] == labels("WeirBudget80Percent", **which, severity="info")
    assert all_of_it["labels"] == labels("WeirBudgetExceeded", **which, severity="critical")
    assert half["annotations"]["summary"] == "budget app (month) of shop/budget is 79% used"
    assert most["annotations"]["summary"] == "budget app (month) of shop/budget is 80.5% used"
    assert all_of_it["annotations"]["summary"] == "budget app (month) of shop/budget is exceeded: 101.5%"
    assert most["annotations"]["runbook_url"].endswith("runbook.md#weirbudget80percent")
    # Neither the restart nor the 90 % in between, which WeirBudgetExceeded mutes.
    assert recorded.rings("budget") == {
        ("budget", "WeirBudget50Percent"): 1,
        ("budget", "WeirBudget80Percent"): 1,
        ("budget-critical", "WeirBudgetExceeded"): 1,
    }
    # What Slack and PagerDuty are really sent.
    slack = [post["attachments"][0] for post in recorded.sent_to("/slack")]
    assert any(post["title"] == "[FIRING:1] WeirBudget80Percent shop/budget budget app" for post in slack)
    assert any(most["annotations"]["summary"] in post["text"] for post in slack)
    pages = [post["payload"]["summary"] for post in recorded.sent_to("/pagerduty")]
    assert any(page == "[FIRING:1] WeirBudgetExceeded shop/budget budget app" for page in pages)


def test_a_spend_spike_rings(told):
    recorded, ends, _ = told
    rung = ends["spike"].result()
    assert rung["labels"] == labels("WeirSpendSpikeSameHour", job="spike", severity="warning", category="cost")
    text = r"shop/spike spends unusually much for this hour \(robust z \d+\.\d\)"
    assert re.fullmatch(text, rung["annotations"]["summary"])
    # The second opinion, WeirSpendSpikeZScore, is muted.
    assert recorded.rings("spike") == {("budget", "WeirSpendSpikeSameHour"): 1}


def test_a_provider_that_is_away_rings(told):
    recorded, ends, _ = told
    rung = ends["outage"].result()
    which = {"job": "outage", "provider": "openai", "severity": "critical", "category": "reliability"}
    assert rung["labels"] == labels("WeirProviderDown", **which)
    text = r"openai fails for shop/outage: (9\d(\.\d+)?|100)% of attempts"
    assert re.fullmatch(text, rung["annotations"]["summary"])
    assert recorded.rings("outage") == {("pagerduty", "WeirProviderDown"): 1}


def test_a_dead_weir_rings(told):
    recorded, ends, _ = told
    one, everyone, target = ends["dead"].result()
    which = {"job": "dead", "category": "reliability"}
    assert one["labels"] == labels("WeirInstanceDown", **which, instance=target, severity="warning")
    assert everyone["labels"] == labels("WeirAllInstancesAbsent", **which, severity="critical")
    assert one["annotations"]["summary"] == f"weir {target} of shop/dead cannot be scraped"
    assert everyone["annotations"]["summary"] == "no weir of shop/dead reports any more"
    rings = {("slack", "WeirInstanceDown"): 1, ("pagerduty", "WeirAllInstancesAbsent"): 1}
    assert recorded.rings("dead") == rings


def test_a_restart_and_a_rollout_are_silent(told):
    recorded, ends, _ = told
    assert ends["calm"].result() == []
    assert recorded.rings("calm") == {}


def test_the_watchdog_is_heard_again_and_again(told):
    recorded, ends, _ = told
    assert len(recorded.sent_to(f"{WEBHOOK}deadman")) >= 3


def test_no_rule_fails(told):
    _, _, stack = told
    assert max(stack.values("prometheus_rule_evaluation_failures_total"), default=0) == 0
