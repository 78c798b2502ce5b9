"""Runs the README's curl lines as they stand against the running service, comparing what comes back.

A ```json 201``` block holds what the ```sh``` block before it must answer, under that status. Tokens and times differ
from run to run: a string that ends in … stands for any string, a time for any time.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w*) ?(\d*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
END = "--- end of block ---"


def examples(text):
    """The blocks with a curl line: the lines, the expected status and the expected answer, both None where not shown."""
    blocks = [(language, status, content) for language, status, content in BLOCK.findall(text)]
    for position, (language, _, content) in enumerate(blocks):
        if language == "sh" and "curl" in content:
            follower, status, answer = blocks[position + 1]
            shown = follower == "json"
            yield content, int(status) if shown else None, answer if shown else None


def matches(expected, actual):
    if isinstance(expected, dict) and isinstance(actual, dict):
        return list(expected) == list(actual) and all(matches(expected[key], actual[key]) for key in expected)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(matches, expected, actual))
    if isinstance(expected, str) and isinstance(actual, str):
        return expected == actual or expected.endswith("…") or bool(TIME.fullmatch(expected) and TIME.fullmatch(actual))
    return expected == actual and type(expected) is type(actual)


def run(shown, home):
    """What each block prints on standard output and on standard error, all run by one shell."""
    mark = f"\nprintf '%s\\n' '{END}'; printf '%s\\n' '{END}' >&2\n"
    (home / ".curlrc").write_text('write-out = "%{stderr}%{http_code}\\n"\n')
    shell = subprocess.run(
        ["bash"],
        input="".join(block + mark for block, _, _ in shown),
        env={**os.environ, "CURL_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return zip(shell.stdout.split(f"{END}\n")[:-1], shell.stderr.split(f"{END}\n")[:-1], strict=True)


def main():
    shown = list(examples((ROOT / "README.md").read_text()))
    failed = 0
    with tempfile.TemporaryDirectory() as home:
        for (block, status, answer), (out, err) in zip(shown, run(shown, Path(home)), strict=True):
            if status is None:
                continue
            expected = json.loads(answer) if answer else None
            actual = json.loads(out) if out.strip() else None
            if int(err or 0) != status or not matches(expected, actual):
                failed += 1
                print(f"README.md: {block}expected {status} {answer}got      {err.strip()} {out}", file=sys.stderr)
    compared = sum(status is not None for _, status, _ in shown)
    print(f"The README's curl lines: {compared - failed} passed, {failed} failed")
    sys.exit(failed > 0 or not compared)


main()
