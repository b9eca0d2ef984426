"""docker-compose.yml and the Dockerfile: what can be said of them without a container engine."""

import json
import os
import re
import subprocess

import jsonschema
import pytest
import yaml

from composed import VARIABLE, compose, environment_example, mounts, services
from house import ROOT, WEIR

SCHEMA = json.loads((ROOT / "tests/fixtures/compose/compose-spec.json").read_text())
# An exact version after the colon; a digest may follow.
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")
# The programs that an image is known to have, of those that health checks are made of. Every other is missed when the
# container runs, not before: images lose their shells and tools from one version to the next.
PROGRAMS = {
    "ghcr.io/weir-dev/weir": {"/weir"},  # from scratch: nothing else
    "prom/prometheus": {"promtool"},  # in the distroless variant too
    "prom/alertmanager": {"amtool"},
    "grafana/grafana": {"wget"},  # Alpine's; those that end in -ubuntu have curl instead
    "grafana/tempo": set(),  # distroless; `tempo -health` comes with 3.0
    "redis": {"redis-cli"},
}
EACH = services().items()
NAMES = services().keys()


def faults(document):
    validator = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)
    return [error.message for error in validator.iter_errors(document)]


def test_it_is_what_the_specification_says():
    assert faults(compose()) == []


def test_a_misspelt_option_is_noticed():
    document = compose()
    document["services"]["weir"]["read-only"] = True
    assert faults(document) != []


@pytest.mark.parametrize(("name", "service"), EACH, ids=NAMES)
def test_an_image_has_an_exact_version(name, service):
    assert PINNED.fullmatch(service["image"])


@pytest.mark.parametrize("image", ["redis", "redis:latest", "redis:7", "redis:7.2-alpine", "grafana/tempo:main"])
def test_what_moves_is_no_exact_version(image):
    assert not PINNED.fullmatch(image)


@pytest.mark.parametrize(("name", "service"), EACH, ids=NAMES)
def test_ports_are_for_this_machine_alone(name, service):
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize(("name", "service"), EACH, ids=NAMES)
def test_what_is_mounted_is_there_and_stays_as_it_is(name, service):
    for volume in service.get("volumes", []):
        if volume["type"] == "volume":
            assert volume["source"] in compose()["volumes"]
            continue
        assert (ROOT / volume["source"]).exists(), volume
        assert volume["read_only"] is True, volume
        assert volume["bind"]["create_host_path"] is False, volume


@pytest.mark.parametrize(("name", "service"), EACH, ids=NAMES)
def test_a_container_can_do_little(name, service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()


@pytest.mark.parametrize(("name", "service"), EACH, ids=NAMES)
def test_a_health_check_runs_a_program_that_the_image_has(name, service):
    programs = PROGRAMS[service["image"].rpartition(":")[0]]
    check = service.get("healthcheck", {})
    if not programs:
        assert check == {}, "there is nothing in the image to check with"
    elif "disable" not in check:
        kind, program, *_ = check["test"]
        assert kind == "CMD", "a shell may not be there"
        assert program in programs


@pytest.mark.parametrize(("name", "service"), EACH, ids=NAMES)
def test_who_is_waited_for_can_say_when_it_is_well(name, service):
    for other, wanted in service.get("depends_on", {}).items():
        assert wanted["condition"] == "service_healthy"
        assert "test" in services()[other]["healthcheck"]


@pytest.mark.parametrize(("name", "service"), EACH, ids=NAMES)
def test_no_secret_is_written_down(name, service):
    for variable, value in service.get("environment", {}).items():
        assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY", variable), variable
        assert "@" not in value


def test_what_may_hold_secrets_is_not_committed():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/.env", "/alertmanager/secrets/", "/compose/weir/shared-secret"} <= set(ignored)


def test_the_app_is_beside_weir_as_in_a_pod():
    app = services()["app"]
    assert app["network_mode"] == "service:weir"
    assert app["depends_on"]["weir"]["restart"] is True, "it would be left in a network that is gone"
    assert not {"ports", "networks"} & app.keys()


def test_nobody_logs_in_to_grafana():
    environment = services()["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def provisioned():
    """The data sources that Grafana is given."""
    files = sorted((ROOT / "grafana/provisioning/datasources").glob("*.yaml"))
    return [source for file in files for source in yaml.safe_load(file.read_text())["datasources"]]


def uids(value):
    """Every data source that is named by its UID somewhere in `value`."""
    if isinstance(value, dict):
        source = value.get("datasource")
        if isinstance(source, dict) and "uid" in source:
            yield source["uid"]
        if "datasourceUid" in value:
            yield value["datasourceUid"]
        for inner in value.values():
            yield from uids(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from uids(inner)


def test_dashboards_ask_data_sources_that_are_provisioned():
    known = {source["uid"] for source in provisioned()} | {"-- Grafana --", "grafana"}
    pages = [json.loads(file.read_text()) for file in (ROOT / "grafana/dashboards").glob("*.json")]
    assert pages
    for page in pages:
        variables = {f"${{{variable['name']}}}" for variable in page["templating"]["list"]}
        variables |= {f"${variable['name']}" for variable in page["templating"]["list"]}
        assert set(uids(page)) <= known | variables, page["uid"]
    assert set(uids(provisioned())) <= known


def test_grafana_is_told_where_its_data_sources_are():
    environment = services()["grafana"]["environment"]
    for source in provisioned():
        url = environment[source["url"].removeprefix("$")]
        host, _, port = url.removeprefix("http://").partition(":")
        assert host in services(), url
        assert port.isdigit()


def test_dashboards_are_where_grafana_looks_for_them():
    [provider] = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/weir.yaml").read_text())["providers"]
    grafana = services()["grafana"]
    there = {target: here for here, target in mounts(grafana)}
    assert any(there[provider["options"]["path"]].glob("*.json"))
    folder, _, page = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
    assert (there[folder] / page).exists()


def test_every_name_is_one_of_a_service():
    """Hosts in the files that are mounted for compose alone."""
    for file in sorted((ROOT / "compose").rglob("*.yaml")) + sorted((ROOT / "compose").rglob("*.yml")):
        for host in re.findall(r'"(?:http://)?([a-z]+):\d+"', file.read_text()):
            assert host in services(), f"{file}: {host}"


def check(environment, *arguments):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WEIR_", "OTEL_"))}
    command = [WEIR, "check", *arguments]
    return subprocess.run(command, env=clean | environment, text=True, capture_output=True, check=False)


def test_weir_takes_its_configuration():
    weir = services()["weir"]
    [(here, there)] = mounts(weir)
    config = weir["environment"]["WEIR_CONFIG"].replace(there, str(here))
    said = check({"WEIR_CONFIG": config})
    assert said.returncode == 0, said.stderr
    assert "http://simulator:9349" in said.stdout
    assert "traces     http://tempo:4318/v1/traces" in said.stdout


def test_weir_takes_every_line_of_the_example(tmp_path):
    """And compose gets no variable that weir would refuse: .env is for both."""
    (tmp_path / "shared-secret").write_text("0" * 64)
    text = json.dumps(environment_example()).replace("/etc/weir/shared-secret", str(tmp_path / "shared-secret"))
    environment = json.loads(text) | {"OPENAI_API_KEY": "sk-test", "WEIR_CONFIG": str(ROOT / "compose/weir/weir.yaml")}
    said = check(environment)
    assert said.returncode == 0, said.stderr
    assert "https://api.openai.com" in said.stdout


def test_the_example_has_every_variable_with_its_default():
    asked = dict(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    example = environment_example()
    assert {name: example.get(name) for name in asked} == asked


@pytest.mark.parametrize("name", ["app", "weir", "simulator"])
def test_a_command_is_one_of_weirs(name):
    """Up to its arguments, which `--help` at the end lets clap read without doing anything."""
    said = subprocess.run([WEIR, *services()[name]["command"], "--help"], text=True, capture_output=True, check=False)
    assert said.returncode == 0, said.stderr
    command = services()[name]["command"][0]
    assert f"Usage: weir {command}" in said.stdout


def instructions():
    text = (ROOT / "Dockerfile").read_text()
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]


def test_the_image_is_a_program_and_no_more():
    stages = [rest for word, rest in instructions() if word == "FROM"]
    *built, last = stages
    assert last == "scratch"
    for stage in built:
        platform, image, *_ = stage.split()
        assert platform == "--platform=$BUILDPLATFORM"
        assert PINNED.fullmatch(image)
    after = instructions()[-1 - [word for word, _ in instructions()][::-1].index("FROM") :]
    said = dict(after)
    assert said["USER"] == "65532:65532"
    assert json.loads(said["ENTRYPOINT"]) == ["/weir"]
    assert said["HEALTHCHECK"].endswith('CMD ["/weir", "health"]')
    assert "RUN" not in said


def test_the_image_is_built_from_what_it_needs_and_nothing_else():
    """Everything that the crate's manifest, its build script and its sources name is let through."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!/") for line in ignored if line.startswith("!/")}
    assert "*" in ignored
    assert {".cargo/config.toml", "Cargo.toml", "Cargo.lock", "build.rs", "docs/openapi.json", "docs/weir.schema.json", "src", "benches", *(f"scripts/{name}" for name in ("pgo.sh", "pgo-train.sh", "pgo.jsonl")), "LICENSE", "NOTICE"} == let_in
    assert all((ROOT / name).exists() for name in let_in)
    sources = [*(ROOT / "src").rglob("*.rs"), ROOT / "build.rs"]
    for file in sources:
        before_tests = file.read_text().split("#[cfg(test)]")[0]
        for named in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', before_tests):
            assert (file.parent / named).resolve().is_relative_to(ROOT / "src"), f"{file} includes {named}"


def test_the_toolchain_is_new_enough():
    manifest = (ROOT / "Cargo.toml").read_text()
    needed = re.search(r'rust-version = "(\d+)\.(\d+)\.(\d+)"', manifest).groups()
    image = re.search(r"rust:(\d+)\.(\d+)\.(\d+)", (ROOT / "Dockerfile").read_text()).groups()
    assert tuple(map(int, image)) >= tuple(map(int, needed))
