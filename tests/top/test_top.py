"""`weir top` on a real terminal, and where there is none."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.request

import pytest

from house import AWS_KEYS, WEIR, running, sides_of

WITHIN_S = 20
LEAVES = b"\x1b[?1049l"
ENVIRONMENT = {"PATH": os.environ["PATH"], "TERM": "xterm-256color"}


def ask(app, prompt, model="gpt-5-mini", **headers):
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    headers = {"content-type": "application/json", "authorization": "Bearer sk-test", **headers}
    request = urllib.request.Request(f"{app}/openai/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
        answer.read()


class Terminal:
    """A terminal of 80 × 24 on which a program runs, and all that it has written."""

    def __init__(self, command, environment):
        self.main, self.side = pty.openpty()
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.side)
        self.written = b""
        self.process = subprocess.Popen(
            command, stdin=self.side, stdout=self.side, stderr=self.side, env=environment, start_new_session=True
        )

    def read(self, seconds=0.1):
        """Reads what there is; whether there was anything."""
        if not select.select([self.main], [], [], seconds)[0]:
            return False
        self.written += os.read(self.main, 1 << 16)
        return True

    def wait_for(self, text):
        """Waits for a word. Spaces are not written where there were some before."""
        deadline = time.monotonic() + WITHIN_S
        while text not in self.written:
            assert time.monotonic() < deadline, (text, self.written)
            self.read()

    def press(self, keys):
        os.write(self.main, keys)

    def ends(self):
        """Waits until the program has ended and everything it wrote is read; the exit code."""
        deadline = time.monotonic() + WITHIN_S
        while self.process.poll() is None or self.read(0):
            assert time.monotonic() < deadline, self.written
            self.read()
        return self.process.returncode


@contextlib.contextmanager
def top_of(house, *arguments, **environment):
    command = [WEIR, "top", "--url", house.admin, *arguments]
    terminal = Terminal(command, ENVIRONMENT | environment)
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        os.close(terminal.main)
        os.close(terminal.side)


@pytest.mark.parametrize("how", ["q", "ctrl-c", "SIGTERM", "SIGINT"])
def test_calls_are_shown_and_the_terminal_is_given_back(house, prompt, how):
    with top_of(house) as top:
        top.wait_for(b"tokens/s")
        assert termios.tcgetattr(top.side) != top.before, "keys come one by one, unseen"
        ask(house.app, f"{prompt} {how}", **{"x-agent-id": "planner-of-top"})
        top.wait_for(b"gpt-5-mini")
        top.press(b"\t")
        top.wait_for(b"planner-of-top")
        match how:
            case "q":
                top.press(b"q")
            case "ctrl-c":
                top.press(b"\x03")
            case name:
                top.process.send_signal(getattr(signal, name))
        assert top.ends() == 0
        assert LEAVES in top.written and b"\x1b[?25h" in top.written, "the screen from before, and its cursor"
        assert termios.tcgetattr(top.side) == top.before


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_unless_there_shall_be_none(house, prompt, environment, coloured):
    with top_of(house, **environment) as top:
        top.wait_for(b"since")
        ask(house.app, prompt)
        top.wait_for(b"gpt-5-mini")
        top.press(b"q")
        assert top.ends() == 0
        assert bool(re.search(rb"\x1b\[(38|3[1-7])[;m]", top.written)) == coloured


def test_who_is_away_is_said_to_be_on_the_screen():
    class Nowhere:
        admin = f"http://127.0.0.1:{free_port()}"

    with top_of(Nowhere) as top:
        top.wait_for(b"reached;")
        top.press(b"q")
        assert top.ends() == 0


def test_what_weir_refuses_is_said_after_the_terminal_is_given_back(house):
    with top_of(house, "--outcome", "fine") as top:
        assert top.ends() == 1
        assert b"`outcome` is `fine`" in top.written.split(LEAVES)[-1]


def test_without_a_terminal_each_call_is_a_line(house, prompt):
    command = [WEIR, "top", "--url", house.admin, "--model", "gpt-5-nano"]
    with lines_of(command) as plain, lines_of([*command, "--json"]) as as_json:
        for process in (plain, as_json):
            wait_until_watching(house, process)
        ask(house.app, prompt)
        ask(house.app, prompt, model="gpt-5-nano", **{"x-user-id": "ann lee"})
        words = next(line for line in plain.stdout if "ann" in line).split(" ")
        assert (words[1:5], words[-1]) == (["openai", "gpt-5-nano", "success", "miss"], "ann_lee\n")
        call = json.loads(next(line for line in as_json.stdout if "ann" in line))
        assert (call["model"], call["user_id"]) == ("gpt-5-nano", "ann lee")
        assert call["cost_usd"] == float(words[6]) > 0


def test_it_comes_back_when_weir_does(house, prompt):
    port = free_port()
    with lines_of([WEIR, "top", "--admin-listen", f"127.0.0.1:{port}"]) as top:
        assert "cannot be reached" in top.stderr.readline()
        arguments = ["--listen", "127.0.0.1:0", "--admin-listen", f"127.0.0.1:{port}", "--set", "telemetry.log.format=json"]
        provider = f"providers.openai.base_url={house.simulator}"
        with running([WEIR, "run", *arguments, "--set", provider], AWS_KEYS) as weir:
            app = sides_of(weir)["app"]
            deadline, number = time.monotonic() + WITHIN_S, 0
            while not select.select([top.stdout], [], [], 0.2)[0]:
                assert time.monotonic() < deadline
                ask(app, f"{prompt} {number}")
                number += 1
            assert " openai gpt-5-mini success miss " in top.stdout.readline()
            weir.stop()


@contextlib.contextmanager
def lines_of(command):
    """A program whose output is read line by line; told to stop at the end, which it does in peace."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        yield process
        process.terminate()
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def wait_until_watching(house, process):
    """Makes calls until one is seen."""
    begun = time.monotonic()
    number = 0
    while not select.select([process.stdout], [], [], 0.2)[0]:
        assert time.monotonic() - begun < WITHIN_S
        ask(house.app, f"{begun} {number}", model="gpt-5-nano")
        number += 1


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
