"""The runbook: a section for each alert and for nothing else, and what it says to type exists."""

import re
import subprocess

import pytest
import yaml

from house import ROOT, WEIR, get
from rules import ALERTS
from test_prometheus import needed

DOCS = ROOT / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text()
ALERTS_PAGE = (DOCS / "alerts.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=\n#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
SNIPPETS = re.findall(r"`([^`]+)`", RUNBOOK)
COMMANDS = sorted({" ".join(it.split()[:3]) for it in SNIPPETS if it.startswith("weir ")})
QUERIES = sorted({it.replace("…", "chat") for it in SNIPPETS if 'job="…"' in it and it != 'job="…"'})
LINKS = sorted(set(re.findall(r"\]\(([\w.-]*)(?:#([\w-]+))?\)", RUNBOOK + ALERTS_PAGE)))


def test_each_alert_has_a_section_and_each_section_an_alert():
    assert list(SECTIONS) == list(ALERTS), "in the order of the rules"


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_what_to_do(name):
    labels = ALERTS[name]["labels"]
    assert SECTIONS[name].startswith(f"`{labels['severity']}`, {labels['category']}. ")
    for heading in ("Likely causes", "See", "Do", "Silence"):
        assert f"- **{heading}**:" in SECTIONS[name]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command):
    words = [word for word in command.split()[1:] if re.fullmatch("[a-z]+", word)]
    while words:
        said = subprocess.run([WEIR, *words, "--help"], text=True, capture_output=True, check=False)
        usage = re.search(r"Usage: (weir[a-z ]*)", said.stdout)
        if said.returncode == 0 and usage and usage[1].split() == ["weir", *words]:
            return
        # The last word may be an argument, such as the name of a budget; the first never is.
        words.pop()
    pytest.fail(f"there is no `{command}`")


def test_the_endpoints_exist(house):
    paths = set(re.findall(r"127\.0\.0\.1:9348(/\w+)", RUNBOOK))
    assert paths
    for path in paths:
        assert get(house.admin + path)


def test_queries_can_be_asked(tmp_path):
    assert len(QUERIES) > 50
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    checked = subprocess.run([needed("promtool"), "check", "rules", str(file)], text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("page", "anchor"), LINKS)
def test_a_link_leads_somewhere(page, anchor):
    text = (DOCS / page).read_text() if page else RUNBOOK
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert not anchor or anchor in anchors
