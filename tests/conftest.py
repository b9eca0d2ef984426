"""Fixtures for all Python tests."""

import pytest

from house import open_house


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    """A house that all tests share. Prompts differ from test to test, so that no test meets another one's answers."""
    with open_house(tmp_path_factory.mktemp("house")) as shared:
        yield shared


@pytest.fixture
def fresh_house(tmp_path):
    """A house of the test's own, where all counts begin at zero."""
    with open_house(tmp_path) as own:
        yield own


@pytest.fixture
def prompt(request):
    """A prompt that no other test sends."""
    return f"What is a weir? Asked by {request.node.nodeid}"
