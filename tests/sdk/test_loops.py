"""Agent loops, as an app's SDK sees them: one that goes round in circles is told so once, and the SDK leaves it at that."""

import json

import anthropic
import openai
import pytest

from house import CONFIG, open_house
from observe import client_of

TOOL = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo"]}},
        "required": ["city"],
    },
}
MOST_TURNS = 10


@pytest.fixture(scope="module")
def strict_house(tmp_path_factory):
    """A house that stops a loop after four equal calls, or ten of any kind."""
    loops = "loops: {{ repeats: 4, max_calls_per_run: 10, on_runaway: block }}\n"
    with open_house(tmp_path_factory.mktemp("loops"), config=CONFIG + loops) as house:
        yield house


def stuck_agent(client, run, stream=False):
    """An agent whose model wants the same tool for ever, and whose tool always fails. Yields each turn."""
    messages = [{"role": "user", "content": f"What is the weather in Oslo? {run}"}]
    for turn in range(MOST_TURNS):
        reply = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=messages,
            tools=[{"type": "function", "function": TOOL}],
            tool_choice="required",
            stream=stream,
            extra_headers={"X-Run-ID": run, "X-Loop-Type": "weather"},
        )
        if stream:
            chunks = list(reply)
            call = chunks[0].choices[0].delta.tool_calls[0]
            pieces = [c.choices[0].delta.tool_calls for c in chunks if c.choices and c.choices[0].delta.tool_calls]
            arguments = "".join(piece[0].function.arguments or "" for piece in pieces)
        else:
            call = reply.choices[0].message.tool_calls[0]
            arguments = call.function.arguments
        assert (call.function.name, json.loads(arguments)) == ("weather", {"city": "Oslo"})
        messages += [
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": call.id, "type": "function", "function": {"name": "weather", "arguments": arguments}}
                ],
            },
            {"role": "tool", "tool_call_id": call.id, "content": f"error {turn}: try again"},
        ]
        yield turn


@pytest.mark.parametrize("stream", [False, True])
def test_a_stuck_agent_is_stopped_and_the_sdk_does_not_try_again(strict_house, prompt, stream):
    attempts, turns = [], []
    with client_of(
        openai, "sync", f"{strict_house.app}/openai/v1", attempts=attempts, max_retries=3
    ) as client:
        with pytest.raises(openai.RateLimitError) as stopped:
            for turn in stuck_agent(client, prompt, stream):
                turns.append(turn)
                strict_house.settle()
    assert len(turns) == 4
    assert len(attempts) == 5
    assert stopped.value.code == "runaway_loop"
    assert "X-Run-ID" in stopped.value.message and "loops.repeats" in stopped.value.message


def test_another_run_goes_on(strict_house, prompt):
    with client_of(openai, "sync", f"{strict_house.app}/openai/v1") as client:
        for run in ("one", "two"):
            agent = stuck_agent(client, f"{prompt} {run}")
            assert [next(agent) for _ in range(3)] == [0, 1, 2]


def test_an_agent_without_a_run_is_nobodys_business(strict_house, prompt):
    with client_of(openai, "sync", f"{strict_house.app}/openai/v1") as client:
        for _ in range(20):
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": prompt}],
                extra_headers={"X-Loop-Type": "polling"},
            )
    strict_house.settle()
    assert strict_house.sum("weir_loop_llm_calls_total", loop_type="polling") == 20
    assert strict_house.sum("weir_loop_runaways_total", loop_type="polling") == 0


def test_anthropics_sdk_is_told_in_its_own_words(strict_house, prompt):
    attempts = []
    with client_of(anthropic, "sync", f"{strict_house.app}/anthropic", attempts=attempts, max_retries=3) as client:
        with pytest.raises(anthropic.RateLimitError) as stopped:
            for turn in range(MOST_TURNS + 1):
                client.messages.create(
                    model="claude-sonnet-4-6",
                    max_tokens=100,
                    messages=[{"role": "user", "content": f"{prompt} {turn}"}],
                    extra_headers={"X-Run-ID": prompt, "X-Loop-Type": "essay"},
                )
    assert len(attempts) == MOST_TURNS + 1
    assert stopped.value.body["error"]["type"] == "rate_limit_error"
    assert "10 model calls" in stopped.value.message


def test_the_app_says_how_its_run_ends(strict_house, prompt):
    with client_of(openai, "sync", f"{strict_house.app}/openai/v1") as client:
        for number, last in enumerate([{}, {"X-Run-Status": "success"}]):
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": f"{prompt} {number}"}],
                extra_headers={"X-Run-ID": prompt, "X-Loop-Type": "short"} | last,
            )
    strict_house.settle()
    count = "weir_loop_execution_duration_seconds_count"
    assert strict_house.sum(count, loop_type="short", status="success") == 1
    assert strict_house.sum(count, loop_type="short") == 1
    assert strict_house.sum("weir_active_loops", loop_type="short") == 0
