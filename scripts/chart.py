"""Writes what the charts in helm/ have from elsewhere: copies of rules, dashboards and Alertmanager's configuration, since
Helm reads nothing outside a chart; and each README's table, from the comments of values.yaml.

`make chart` runs it, and tests/helm compares.
"""

import json
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPIES = {
    "rules": "prometheus/rules/*.rules.yml",
    "dashboards": "grafana/dashboards/*.json",
    "alertmanager": "alertmanager/alertmanager.yml",
}
# Where a README's table begins and ends.
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
# A value that is described, of helm-docs: https://github.com/norwoodj/helm-docs#values-file-metadata
COMMENT = re.compile(r"^(?P<indent> *)# -- (?P<text>.*)$")
MORE = re.compile(r"^ *# (?P<text>.*)$")
KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9-]*):")
INDENT = 2


def wanted():
    """Every file that is made: its path below the root, and its bytes."""
    files = {}
    for folder, pattern in COPIES.items():
        for source in sorted(ROOT.glob(pattern)):
            files[f"helm/weir/{folder}/{source.name}"] = source.read_bytes()
    for values in sorted(ROOT.glob("helm/*/values.yaml")):
        readme = values.with_name("README.md")
        files[str(readme.relative_to(ROOT))] = with_table(readme.read_text(), table(values.read_text())).encode()
    return files


def with_table(text, rows):
    """`text` with `rows` between the marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{rows}{END}{after}"


def table(text):
    """The values that are described, as a table: name, default, description."""
    values = yaml.safe_load(text)
    rows = ["| value | default | |", "|---|---|---|"]
    for path, description in described(text):
        value = values
        for name in path:
            value = value[name]
        shown = json.dumps(value, ensure_ascii=False)
        rows.append(f"| `{'.'.join(path)}` | `{shown}` | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def described(text):
    """Path and description of each value that has one, in the order of the file."""
    path, description = [], None
    for line in text.splitlines():
        if found := COMMENT.match(line):
            description = [found["text"]]
        elif description and (found := MORE.match(line)):
            description.append(found["text"])
        elif found := KEY.match(line):
            path[len(found["indent"]) // INDENT :] = [found["key"]]
            if description:
                yield tuple(path), " ".join(description)
            description = None


def write():
    """Writes the files, and removes copies of what is there no more."""
    files = wanted()
    for folder in COPIES:
        target = ROOT / "helm/weir" / folder
        target.mkdir(exist_ok=True)
        for path in target.iterdir():
            if str(path.relative_to(ROOT)) not in files:
                path.unlink()
    for path, content in files.items():
        (ROOT / path).write_bytes(content)


if __name__ == "__main__":
    write()
