"""What charts have from elsewhere is what is there: `make chart` writes it."""

import pytest
import yaml

import chart as script
from house import ROOT
from rendering import CASES, CHART, objects

MADE = script.wanted()


@pytest.mark.parametrize("path", MADE)
def test_a_file_that_is_made_is_up_to_date(path):
    assert (ROOT / path).read_bytes() == MADE[path], "run `make chart`"


@pytest.mark.parametrize("folder", script.COPIES)
def test_there_are_no_copies_of_what_is_gone(folder):
    there = {str(path.relative_to(ROOT)) for path in (CHART / folder).iterdir()}
    assert there == {path for path in MADE if path.startswith(f"helm/weir/{folder}/")} != set()


@pytest.mark.parametrize("values", sorted(ROOT.glob("helm/*/values.yaml")), ids=lambda path: path.parent.name)
def test_every_value_is_described(values):
    """A comment that is not one is found: each leaf, or what it is part of, has a row of its own."""
    described = {path for path, _ in script.described(values.read_text())}

    def leaves(value, path=()):
        if path in described:
            return
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from leaves(inner, (*path, name))
        else:
            yield path

    assert list(leaves(yaml.safe_load(values.read_text()))) == []


def test_dashboards_arrive_byte_by_byte():
    wanted = {path.name: path.read_text() for path in (ROOT / "grafana/dashboards").glob("*.json")}
    maps = [one for one in objects(CASES["all-on"]) if one["kind"] == "ConfigMap" and "-dashboard-" in one["metadata"]["name"]]
    found = {name: text for one in maps for name, text in one["data"].items()}
    assert {name: text.rstrip("\n") for name, text in found.items()} == {name: text.rstrip("\n") for name, text in wanted.items()}
    assert len(maps) == len(wanted), "one dashboard each"
