"""The program `helm`, where there is one, makes of the chart what the engine does that the other tests ask."""

import shutil
import subprocess

import pytest
import yaml

from rendering import CHART, CI, NAMESPACE, RELEASE, case_of, objects

HELM = shutil.which("helm")
# A helm that was built from source takes clusters to be of the version that its own release had in mind, or none.
OLDEST = ("--kube-version", "1.33.0")
pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed")


def helm(*arguments):
    said = subprocess.run([HELM, *arguments], text=True, capture_output=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.mark.parametrize("file", CI, ids=case_of)
def test_it_makes_the_same_objects(file):
    made = helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(file), *OLDEST)
    found = [one for one in yaml.safe_load_all(made) if one]
    wanted = objects(yaml.safe_load(file.read_text()))
    assert sorted(found, key=repr) == sorted(wanted, key=repr)


@pytest.mark.parametrize("file", CI, ids=case_of)
def test_lint_has_nothing_to_say(file):
    helm("lint", "--strict", str(CHART), "--values", str(file))


def test_the_library_is_found_as_a_dependency(tmp_path):
    app = tmp_path / "tests/helm/app"
    shutil.copytree(CHART.parent, tmp_path / "helm")
    shutil.copytree(CHART.parent.parent / "tests/helm/app", app)
    helm("dependency", "update", str(app))
    assert "name: weir-admin" in helm("template", "app", str(app), *OLDEST)


def test_the_archive_has_what_it_needs_and_no_more(tmp_path):
    helm("package", str(CHART), "--destination", str(tmp_path))
    [archive] = tmp_path.iterdir()
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    there = {path.name for path in (tmp_path / "unpacked/weir").iterdir()}
    assert there == {"Chart.yaml", "README.md", ".helmignore", "values.yaml", "values.schema.json", "templates", "rules", "dashboards", "alertmanager"}
