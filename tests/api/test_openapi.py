"""The API does what its description says: no failure, no status and no shape that is not in it, whoever asks."""

import json
import urllib.error
import urllib.request

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks

from house import CONFIG, eventually, get_json, open_house

TOKENS = {"admin": "open-sesame", "team-a": "only-a"}
CALLS = 12
# Requests for each operation and each of those who ask.
EXAMPLES = 25
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="session")
def operated(tmp_path_factory):
    """A house with tokens, and calls of two workspaces in its ledger."""
    folder = tmp_path_factory.mktemp("operated")
    for name, token in TOKENS.items():
        (folder / name).write_text(token)
    team = f"{{{{ name: team-a, file: {folder}/team-a, workspace: a }}}}"
    admin = f"admin: {{{{ listen: 127.0.0.1:0, token_file: {folder}/admin, tokens: [{team}] }}}}"
    config = CONFIG.replace("admin: {{ listen: 127.0.0.1:0 }}", admin) + "ledger: {{ mode: memory }}\n"
    with open_house(folder, config=config) as house:
        for number in range(CALLS):
            call(house, "ab"[number % 2], number)
        overview = f"{house.admin}/api/v1/usage/overview?range=1h"
        eventually(lambda: get_json(overview)["total_calls"] == CALLS)
        yield house


def call(house, workspace, number):
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": f"call {number}"}]}
    headers = {
        "content-type": "application/json",
        "authorization": "Bearer sk-test",
        "x-workspace-id": workspace,
        "x-agent-id": f"agent-of-{workspace}",
        "x-user-id": f"user-of-{workspace}",
        "x-cache-namespace": f"namespace-of-{workspace}",
    }
    request = urllib.request.Request(f"{house.app}/openai/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        reply.read()


@pytest.fixture(scope="session")
def described(operated):
    return schemathesis.openapi.from_url(f"{operated.admin}/api/v1/openapi.json")


GENERATED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("token", [None, "admin", "team-a"])
def test_no_answer_is_another_than_described(described, token):
    headers = {"authorization": f"Bearer {TOKENS[token]}"} if token else {}

    def check(case):
        # One that is made up is a guess, and after ten of them nothing but refusals is seen.
        case.headers.pop("Authorization", None)
        answer = case.call_and_validate(headers=headers, checks=CHECKS)
        if token == "team-a" and case.method == "GET" and not case.query:
            assert b"of-b" not in answer.content

    # A stream of events goes on for ever: tests of its own read it.
    every = [operation.ok() for operation in described.get_all_operations()]
    operations = [operation for operation in every if not operation.path.endswith("/live")]
    assert len(operations) > 25
    for operation in operations:
        GENERATED(given(case=operation.as_strategy())(check))()


def test_the_description_is_itself_valid(operated):
    document = get_json(f"{operated.admin}/api/v1/openapi.json")
    assert document["openapi"].startswith("3.1.")
    operations = [method for path in document["paths"].values() for method in path]
    assert len(operations) > 25


def test_numbers_are_of_the_calls_that_were_made(operated):
    by_token = {}
    for name, token in TOKENS.items():
        request = urllib.request.Request(
            f"{operated.admin}/api/v1/usage/overview?range=1h", headers={"authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            by_token[name] = json.loads(reply.read())
    assert by_token["admin"]["total_calls"] == CALLS
    assert by_token["team-a"]["total_calls"] == CALLS // 2
    assert by_token["team-a"]["unique_users"] == 1
