"""Charts, rendered by Helm's own engine: the Go code of Helm 4, which a Python package brings along."""

import contextlib
import functools

import helm_python
import yaml

from house import ROOT

CHART = ROOT / "helm/weir"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "weir", "weir-system"


def case_of(file):
    """What a file of values is about: `ci/all-on-values.yaml` is `all-on`."""
    return file.name.removesuffix("-values.yaml")


CASES = {case_of(file): yaml.safe_load(file.read_text()) for file in CI}


@functools.cache
def chart(folder=CHART):
    """A chart that is loaded once for all tests."""
    return helm_python.Chart.load(str(folder))


def render(values=None, *, name=RELEASE, namespace=NAMESPACE, folder=CHART):
    """Each template's text, by its path below `templates/`."""
    rendered = chart(folder).render(values or {}, name=name, namespace=namespace)
    return {path.split("/templates/", 1)[1]: text for path, text in sorted(rendered.items())}


def objects(values=None, **how):
    """Every object that the chart makes."""
    texts = (text for path, text in render(values, **how).items() if path.endswith(".yaml"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def of_kind(made, kind):
    """Those of one kind."""
    return [one for one in made if one["kind"] == kind]


def only(made, kind):
    """The one of its kind."""
    [found] = of_kind(made, kind)
    return found


@contextlib.contextmanager
def refused(*parts):
    """The values are refused, and each of `parts` is said."""
    try:
        yield
    except helm_python.HelmError as error:
        said = str(error)
        missing = [part for part in parts if part not in said]
        assert not missing, f"{missing} not in: {said}"
    else:
        raise AssertionError(f"nothing was refused; expected {parts}")
