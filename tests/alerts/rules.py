"""The alerts, as they are written."""

import yaml

from house import ROOT

RULES = sorted((ROOT / "prometheus/rules").glob("*.rules.yml"))
TESTS = sorted((ROOT / "prometheus/tests").glob("*.test.yml"))


def alerts():
    """Every alert, by its name."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


ALERTS = alerts()
