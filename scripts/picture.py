"""Draws docs/demo.svg, the picture in README.md: the last screen of a real `weir demo`, as a terminal shows it.

    cargo build --release && python3 scripts/picture.py

WEIR_BIN names another binary, SECONDS another length. Needs nothing but Python.
"""

import html
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl

ROOT = pathlib.Path(__file__).resolve().parent.parent
WEIR = os.environ.get("WEIR_BIN", str(ROOT / "target/release/weir"))
SECONDS = int(os.environ.get("SECONDS", "45"))
PICTURE = ROOT / "docs/demo.svg"
COLUMNS, ROWS = 80, 24
# Of a character, in pixels.
WIDTH, HEIGHT = 8.4, 17
MARGIN = 16
FRAME = re.compile(rb"\x1b\[\?2026h(.*?)\x1b\[\?2026l", re.DOTALL)
STYLE = re.compile(r"\x1b\[([0-9;]*)m")
OTHER = re.compile(r"\x1b\[[?0-9;]*[A-Za-ln-z]")
# What weir's screens are painted with, on a dark ground.
COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea"}
GROUND, PLAIN, DIM = "#0d1117", "#e6edf3", "#8b949e"


def screen():
    """What the demo draws last, in a terminal of its own."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {"TERM": "xterm-256color", "PATH": os.environ["PATH"]}
    command = [WEIR, "demo", "--duration", f"{SECONDS}s"]
    seen = b""
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as demo:
        os.close(follower)
        until = time.monotonic() + SECONDS + 60
        while time.monotonic() < until:
            if not select.select([leader], [], [], 1)[0]:
                continue
            try:
                seen += os.read(leader, 65536)
            except OSError:  # the other side is closed: it has ended
                break
        assert demo.wait(10) == 0, seen.decode(errors="replace")
    return FRAME.findall(seen)[-1].decode()


def runs(line):
    """The pieces of a line that look alike: (text, colour, whether bold)."""
    colour, bold = PLAIN, False
    pieces = STYLE.split(line)
    for at, piece in enumerate(pieces):
        if at % 2 == 0:
            if piece:
                yield piece, colour, bold
            continue
        for code in map(int, filter(None, (piece or "0").split(";"))):
            if code == 0:
                colour, bold = PLAIN, False
            elif code == 1:
                bold = True
            elif code == 2:
                colour = DIM
            else:
                colour = COLOURS.get(code, colour)


def drawn(text):
    """The screen as SVG. Words are put where their column is, and made as wide: fonts differ."""
    lines = [line.rstrip("\r") for line in OTHER.sub("", text).split("\n")][:ROWS]
    width, height = COLUMNS * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="weir demo in a terminal">',
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
        '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="14">',
    ]
    for row, line in enumerate(lines):
        column = 0
        for piece, colour, bold in runs(line):
            for word in re.finditer(r"\S+(?: \S+)*", piece[: COLUMNS - column]):
                x, y = MARGIN + (column + word.start()) * WIDTH, MARGIN + (row + 0.75) * HEIGHT
                weight = ' font-weight="bold"' if bold else ""
                parts.append(
                    f'<text x="{x:g}" y="{y:g}" fill="{colour}"{weight} textLength="{len(word[0]) * WIDTH:g}" '
                    f'lengthAdjust="spacingAndGlyphs">{html.escape(word[0])}</text>'
                )
            column += len(piece)
    return "\n".join([*parts, "</g>", "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawn(screen()), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
