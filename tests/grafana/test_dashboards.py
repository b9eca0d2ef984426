"""Dashboards: the files are what grafana/dashboards.py makes, and Grafana's own types know all that is in them."""

import json
import re

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import dashboards

# An annotation carries whatever its data source understands; the types leave that open, so reading drops it. These are
# what Grafana's Prometheus data source understands.
OPEN = re.compile(r"\.annotations\.list\.\d+\.(titleFormat|textFormat|step|useValueForTime)")


def test_the_files_are_what_their_source_makes():
    made = dashboards.files()
    kept = {file.name: file.read_text(encoding="utf-8") for file in dashboards.FOLDER.glob("*.json")}
    assert kept == made, "run: make dashboards"


@pytest.mark.parametrize("name", dashboards.files())
def test_grafana_knows_every_field(name):
    written = json.loads((dashboards.FOLDER / name).read_text(encoding="utf-8"))
    plugins.register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    lost = [path for path in differences(written, read) if not OPEN.fullmatch(path)]
    assert lost == [], "Grafana's types have no such field, or another value"


def test_a_field_that_grafana_does_not_know_is_noticed():
    written = json.loads((dashboards.FOLDER / "weir-cost.json").read_text(encoding="utf-8"))
    written["panels"][1]["options"]["colourMode"] = "value"
    plugins.register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    assert ".panels.1.options.colourMode" in list(differences(written, read))


def differences(written, read, path=""):
    """Where what was written is not what was read. What is empty need not be there."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in read or value not in (None, [], {}, ""):
                yield from differences(value, read.get(key), f"{path}.{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for at, value in enumerate(written):
            yield from differences(value, read[at], f"{path}.{at}")
    elif written != read:
        yield path
