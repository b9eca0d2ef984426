"""What docs/kubernetes.md shows is right: commands that a shell reads, options that Helm takes, values that the chart takes."""

import json
import re
import shlex
import shutil
import subprocess

import helm_python
import kubernetes_validate
import pytest
import yaml

from house import ROOT, WEIR
from rendering import CHART, chart, objects

PAGES = [ROOT / "docs/kubernetes.md", CHART / "README.md", ROOT / "helm/weir-lib/README.md"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What has a schema neither here nor in Kubernetes.
FOREIGN = ("argoproj.io/", "helm.toolkit.fluxcd.io/")


def blocks(language):
    """Every block of one language: where it is, and its text."""
    shown = ((page, found, page.read_text()[: found.start()]) for page in PAGES for found in FENCE.finditer(page.read_text()))
    return [
        pytest.param(found[2], id=f"{page.parent.name}/{page.name}:{before.count(chr(10)) + 1}")
        for page, found, before in shown
        if found[1] == language
    ]


def commands(text):
    """Each command of a block, in words."""
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_are_a_shells(text):
    said = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    assert {words[0] for words in commands(text)} <= {"helm", "kubectl", "make", "WEIR_INJECT__IMAGE=ghcr.io/weir-dev/weir:0.1.0"}


@pytest.mark.parametrize("text", blocks("sh"))
def test_helm_is_given_charts_and_values_that_are_there(text):
    for words in commands(text):
        if words[0] != "helm" or words[1] not in ("install", "upgrade"):
            continue
        assert (ROOT / words[3] / "Chart.yaml").is_file(), words
        for option, value in zip(words, words[1:], strict=False):
            if option == "--set":
                chart().validate_schema(helm_python.parse_set_string(value))


def rendered(template, tmp_path):
    """A template of the chart that is the library's example."""
    shutil.copytree(ROOT / "tests/helm/app", tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "helm/weir-lib", tmp_path / "charts/weir-lib", dirs_exist_ok=True)
    (tmp_path / "templates/deployment.yaml").write_text(template)
    with helm_python.Chart.load(str(tmp_path)) as app:
        [text] = app.render({}, name="app", namespace="my-team").values()
    return text


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_what_it_says_it_is(text, tmp_path):
    document = yaml.safe_load(rendered(text, tmp_path) if "{{-" in text else text)
    if text.startswith("# values of the chart\n"):
        assert objects(document) != objects(), "values that change nothing"
    elif text.startswith("# values of kube-prometheus-stack\n"):
        assert document["alertmanager"]["alertmanagerSpec"]["alertmanagerConfigMatcherStrategy"] == {"type": "None"}
    elif text.startswith("# templates/deployment.yaml\n"):
        whole = rendered((ROOT / "tests/helm/app/templates/deployment.yaml").read_text(), tmp_path)
        assert document["spec"]["template"] == yaml.safe_load(whole)["spec"]["template"]
    elif text.startswith("# Chart.yaml\n"):
        assert document["dependencies"][0]["name"] == "weir-lib"
    elif not document["apiVersion"].startswith(FOREIGN):
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_gitops_gives_the_chart_values_that_it_takes():
    documents = [yaml.safe_load(block.values[0]) for block in blocks("yaml") if "{{-" not in block.values[0]]
    by_kind = {one["kind"]: one["spec"] for one in documents if "spec" in one and "kind" in one}
    application, release = by_kind["Application"], by_kind["HelmRelease"]
    assert (ROOT / application["source"]["path"] / "Chart.yaml").is_file()
    assert (ROOT / release["chart"]["spec"]["chart"] / "Chart.yaml").is_file()
    assert "ignoreDifferences" not in application
    for values in (application["source"]["helm"]["valuesObject"], release["values"]):
        assert objects(values) != objects()


def test_the_configuration_that_is_shown_is_weirs(tmp_path):
    [text] = [block.values[0] for block in blocks("yaml") if "\nkind: ConfigMap\n" in block.values[0]]
    file = tmp_path / "weir.yaml"
    file.write_text(yaml.safe_load(text)["data"]["weir.yaml"])
    said = subprocess.run([WEIR, "check", "--config", str(file)], text=True, capture_output=True, check=False, env={})
    assert said.returncode == 0, said.stderr


def test_sizes_are_the_charts():
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in
            (line.strip("|").split("|") for line in PAGES[0].read_text().splitlines() if line.startswith("| "))}  # fmt: skip
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for who in ("sidecar", "injector"):
        asked, most = values[who]["resources"]["requests"], values[who]["resources"]["limits"]
        assert rows[who][:3] == [asked["cpu"], asked["memory"], most["memory"]], json.dumps(values[who])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in page.read_text().splitlines() if line.startswith("#")}
    for anchor in re.findall(r"\]\(#([^)]+)\)", page.read_text()):
        assert anchor in headings, anchor
