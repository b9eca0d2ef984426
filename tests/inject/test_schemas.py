"""Kubernetes would take what weir makes of pods: the strict schemas of each version, and `weir inject --manifest`."""

import copy
import json
import os
import pathlib
import random
import subprocess

import pytest
import yaml
from kubernetes_validate import utils

ROOT = pathlib.Path(__file__).parents[2]
WEIR = os.environ.get("WEIR_BIN", str(ROOT / "target/debug/weir"))
IMAGE = "ghcr.io/weir-dev/weir:0.1.0"
# What upstream supports, and what many clusters still have. Native sidecars are there since 1.29.
OLDEST = (1, 33)
MINORS = [minor for minor in utils.all_versions() if tuple(map(int, minor.split(".")[:2])) >= OLDEST]
# Fields of a Kubernetes to come, on purpose.
OF_TOMORROW = {"fields_of_tomorrow"}


def goldens():
    """What the webhook makes of pods, but for one."""
    found = []
    for path in sorted((ROOT / "tests/inject/pods").glob("*.json")):
        golden = json.loads(path.read_text())
        if golden["pod"] is not None and path.stem not in OF_TOMORROW:
            found.append(pytest.param(golden, id=path.stem))
    return found


def inject(text, *options, fails=False):
    """What `weir inject --manifest -` prints, and what it complains of."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    command = [WEIR, "inject", "--manifest", "-", "--set", f"inject.image={IMAGE}", *options]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout, done.stderr


def validate(thing, minor):
    utils.validate(thing, minor, strict=True)


def test_there_are_versions_to_validate_against():
    assert len(MINORS) >= 4, MINORS


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("golden", goldens())
def test_every_pod_is_one_that_kubernetes_takes(golden, minor):
    validate(golden["pod"], minor)


def test_the_schemas_are_strict():
    pod = goldens()[0].values[0]["pod"]
    pod["spec"]["containres"] = []
    with pytest.raises(utils.ValidationError):
        validate(pod, MINORS[-1])


@pytest.mark.parametrize("golden", goldens())
def test_a_manifest_becomes_what_the_webhook_makes(golden):
    """The same pods, as YAML."""
    pod = golden["review"]["request"]["object"]
    options = ["--set", "listen=127.0.0.1:1"]
    for name, value in golden["settings"].items():
        options += ["--set", f"inject.{name}={json.dumps(value) if not isinstance(value, str) else value}"]
    printed, _ = inject(yaml.safe_dump(pod, sort_keys=False), *options)
    made = yaml.safe_load(printed)
    status = "weir.dev/status"
    told, expected = made["metadata"]["annotations"][status], golden["pod"]["metadata"]["annotations"][status]
    assert {**json.loads(told), "version": "-"} == json.loads(expected)
    made["metadata"]["annotations"][status] = expected
    assert made == golden["pod"]
    assert inject(printed, *options)[0] == printed, "a second run changes nothing"


POD = {"spec": {"containers": [{"name": "app", "image": "registry.example/app:1"}]}}
SELECTED = {**POD, "metadata": {"labels": {"app": "shop"}}}


def workload(kind, version, spec):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "shop"}, "spec": spec}


def job(pod):
    return {"template": {**pod, "spec": {**pod["spec"], "restartPolicy": "Never"}}}


SELECTOR = {"matchLabels": {"app": "shop"}}
WORKLOADS = [
    workload("Deployment", "apps/v1", {"selector": SELECTOR, "template": SELECTED}),
    workload("StatefulSet", "apps/v1", {"selector": SELECTOR, "serviceName": "shop", "template": SELECTED}),
    workload("DaemonSet", "apps/v1", {"selector": SELECTOR, "template": SELECTED}),
    workload("ReplicaSet", "apps/v1", {"selector": SELECTOR, "template": SELECTED}),
    workload("Job", "batch/v1", job(POD)),
    workload("CronJob", "batch/v1", {"schedule": "0 3 * * *", "jobTemplate": {"spec": job(POD)}}),
    {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "shop"}, "template": SELECTED},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop"}, **POD},
]


def sidecars(thing):
    """The containers called weir, wherever they are."""
    if isinstance(thing, dict):
        own = [thing] if thing.get("name") == "weir" and "image" in thing else []
        return own + [found for value in thing.values() for found in sidecars(value)]
    if isinstance(thing, list):
        return [found for value in thing for found in sidecars(value)]
    return []


@pytest.mark.parametrize("thing", WORKLOADS, ids=lambda thing: thing["kind"])
def test_every_kind_gets_weir_and_stays_valid(thing):
    made = yaml.safe_load(inject(yaml.safe_dump(thing))[0])
    (sidecar,) = sidecars(made)
    service = [variable["value"] for variable in sidecar["env"] if variable["name"] == "OTEL_SERVICE_NAME"]
    assert service == ["shop"] or thing["kind"] == "PodTemplate"
    for minor in MINORS:
        validate(made, minor)


def test_lists_and_several_documents():
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": WORKLOADS[:2]}) + "---\n" + yaml.safe_dump(WORKLOADS[2])
    documents = list(yaml.safe_load_all(inject(text)[0]))
    assert [len(sidecars(document)) for document in documents] == [2, 1]


def test_what_is_wrong_is_told_and_nothing_is_printed():
    thing = copy.deepcopy(WORKLOADS[0])
    thing["spec"]["template"]["metadata"]["annotations"] = {"weir.dev/port": "x", "weir.dev/mode": "y"}
    printed, told = inject("a: b\n---\n" + yaml.safe_dump(thing), fails=True)
    assert printed == ""
    assert "document 2 (Deployment shop): spec.template: weir finds 2 mistakes in this pod: weir.dev/" in told
    printed, told = inject("a: [\n", fails=True)
    assert printed == "" and "line 2" in told


def test_warnings_are_told_beside():
    thing = copy.deepcopy(WORKLOADS[0])
    thing["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "OPENAI_BASE_URL", "value": "https://llm.example"}]
    printed, told = inject(yaml.safe_dump(thing))
    assert len(sidecars(yaml.safe_load(printed))) == 1
    assert told.startswith("warning: document 1 (Deployment shop): spec.template: container app has OPENAI_BASE_URL of its own")


AS_WRITTEN = r"""
a: [yes, no, on, off, y, "yes", 'no', True, FALSE, null, ~, Null, "null", ""]
b: [1e3, 1.0e+3, 0123, 0o17, 0x1F, 1_000, 12:30:45, -0, +1, .5, 5., .inf, -.INF, "1e3", "0123"]
c: {2026-11-22: 2026-11-22T03:12:00Z, "2026-11-22": '2026-11-22', 1: one, true: truth, ? : nothing}
d: |
  #!/bin/sh
  echo "a: b" # no comment

    indented
e: |-
  no break at the end
f: |+
  breaks at the end

g: >
  folded
  text

  in two paragraphs
h: "tab\t, bell \a, null \0, snow \u2603, astral \U0001F600, next line \N, separator \L\P, quote \", slash \/, back \\"
i: 'it''s'
j: plain
  over two lines

  and a paragraph
k: "# no comment"
l: - no list
m: "trailing space "
n: " leading space"
o: &anchor {a: 1, b: [x, y]}
p: *anchor
q: {<<: *anchor, b: 2}
r: []
s: {}
t: !!str 123
u: !!binary aGVsbG8=
v: "@at"
w: "%percent"
x: a:b
y: a#b
z: "\n"
aa: "multi\nline\n"
ab: "\r\n"
ac: |2
   more indented
ad: "---"
ae: "..."
""".replace("l: - no list\n", 'l: "- no list"\n')


def same(one, other):
    """Equal, and of the same types: 1 is not true, and not 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(*keys) and same(one[keys[0]], other[keys[1]]) for keys in zip(sorted(one, key=repr), sorted(other, key=repr))
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one


def test_other_documents_keep_every_value_and_type():
    before = list(yaml.safe_load_all(AS_WRITTEN))
    printed, _ = inject(AS_WRITTEN)
    assert same(list(yaml.safe_load_all(printed)), before), printed
    assert inject(printed)[0] == printed


# Without U+0085 and its likes: written plainly, YAML 1.1 takes them for the end of a line and 1.2 does not.
TEXTS = ["yes", "1e3", "0123", "null", "~", "", " ", "a: b", "# a", "- a", "a\nb", "a\nb\n", "\na", "a\n\n", "é☃😀", "\x07",
         "'", '"', "\\", "{a}", "[a]", "*a", "&a", "!a", "|", ">", "%a", "@a", "`a`", "?", "? a", ":", "a:", "-", "---", "...", "=", "<<",
         "0x1f", "1_000", "12:30", "2026-11-22", ".inf", "true", "a" * 200, "a b " * 60, "  a\n b\n", "a\n  \nb\n", "\ta", "a\t\n"]


def value(dice, depth=0):
    kind = dice.randrange(7 if depth < 4 else 5)
    if kind < 3:
        return dice.choice(TEXTS)
    if kind == 3:
        return dice.choice([0, -1, 10**12, 1.5, 1e300, True, False, None])
    if kind == 4:
        return "".join(dice.choice("ab:#-? \n'\"\\{}[],&*!|>%@`~") for _ in range(dice.randrange(12)))
    if kind == 5:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(TEXTS): value(dice, depth + 1) for _ in range(dice.randrange(4))}


def test_documents_made_at_random_keep_every_value_and_type():
    dice = random.Random(41)
    styles = [None, "'", '"', "|", ">"]
    documents, texts = [], []
    for _ in range(400):
        document = {"kind": "ConfigMap", "data": value(dice)}
        style, flow = dice.choice(styles), dice.choice([True, False, None])
        documents.append(document)
        texts.append(yaml.safe_dump(document, default_style=style, default_flow_style=flow, allow_unicode=dice.random() < 0.5))
    printed, _ = inject("---\n".join(texts))
    after = list(yaml.safe_load_all(printed))
    assert len(after) == len(documents)
    for document, text, now in zip(documents, texts, after):
        assert same(now, document), text
