"""Time that runs faster: the real rules and the real Alertmanager configuration, with every duration in them divided by
FACTOR, so that what takes ten minutes takes ten seconds. Nothing else of them is changed, but the day of the maintenance."""

import re
from datetime import UTC, datetime, timedelta

# An hour is a minute; seven days are three hours.
FACTOR = 60
SCRAPE_S = 1
# A range holds this many scrapes at least, or a rate over it would have nothing to go by when a machine is slow.
SCRAPES_IN_A_RANGE = 6

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
RANGE = re.compile(r"\[(\d+[smhdw])\]")
OFFSET = re.compile(r"\boffset (\d+[smhdw])\b")
# The two bare numbers of seconds in expressions that have to keep step: 4 hours and 1 hour.
SECONDS = re.compile(r"\b(14400|3600)\b")
# What is left of a budget's window, which goes by the calendar.
LEFT = re.compile(r"clamp_min\((.*) - time\(\), 0\)")


def scaled_duration(text, at_least_s=0.0):
    """`5m` → `5000ms`, and no less than so many seconds."""
    seconds = int(text[:-1]) * UNITS[text[-1]] / FACTOR
    return f"{round(max(seconds, at_least_s) * 1000)}ms"


def scaled_expression(text):
    text = RANGE.sub(lambda it: f"[{scaled_duration(it[1], SCRAPES_IN_A_RANGE * SCRAPE_S)}]", text)
    text = OFFSET.sub(lambda it: f"offset {scaled_duration(it[1])}", text)
    text = LEFT.sub(rf"clamp_min((\1 - time()) / {FACTOR}, 0)", text)
    return SECONDS.sub(lambda it: str(int(it[1]) // FACTOR), text)


def scaled_rules(document, without=()):
    """A rule file, an hour as a minute. No group is evaluated more often than it is scraped."""
    for group in document["groups"]:
        if "interval" in group:
            group["interval"] = scaled_duration(group["interval"], SCRAPE_S)
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") not in without]
        for rule in group["rules"]:
            rule["expr"] = scaled_expression(rule["expr"])
            for knob in ("for", "keep_firing_for"):
                if knob in rule:
                    rule[knob] = scaled_duration(rule[knob])
    return document


def scaled_alertmanager(config):
    """The configuration of an Alertmanager, an hour as a minute, in a week without maintenance: whether an alert rings must
    not depend on when the tests run. (What is muted when is asked of the real one, by `test_alertmanager.py`.)"""
    for interval in config["time_intervals"]:
        if interval["name"] == "maintenance":
            in_half_a_week = datetime.now(UTC) + timedelta(days=3)
            interval["time_intervals"][0]["weekdays"] = [in_half_a_week.strftime("%A").lower()]
    config["global"]["resolve_timeout"] = scaled_duration(config["global"]["resolve_timeout"], 60)
    _scale_route(config["route"])
    return config


def _scale_route(route):
    for knob in ("group_wait", "group_interval", "repeat_interval"):
        if knob in route:
            route[knob] = scaled_duration(route[knob])
    for child in route.get("routes", []):
        _scale_route(child)
