"""docker-compose.yml as Docker Compose reads it: variables replaced by their defaults, and what services have in common merged
into each."""

import re

import yaml

from house import ROOT

FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def compose():
    return yaml.safe_load(VARIABLE.sub(lambda found: found[2], FILE.read_text()))


def services():
    return compose()["services"]


def mounts(service):
    """The folders and files of this repository that a service sees: (here, there)."""
    binds = [volume for volume in service.get("volumes", []) if volume["type"] == "bind"]
    return [(ROOT / bind["source"], bind["target"]) for bind in binds]


def environment_example():
    """The lines of .env.example, as they are once the # is gone: name → value."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(found.groups() for line in lines if (found := re.fullmatch(r"#(\w+)=(.*)", line)))
