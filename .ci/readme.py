"""Runs the curl lines of the README and then of docs/api.md against the running service, and compares the responses.

A ```json 201``` block holds the response, with that status, to the ```sh``` block before it. Tokens and times differ from
run to run: a string that ends in … matches any string, a time any time.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/api.md")
BLOCK = re.compile(r"^```(\w*) ?(\d*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
END = "--- end of block ---"


def examples(text):
    """Yield the lines of each block with a curl line, and the status and response that it shows, or None."""
    blocks = [*BLOCK.findall(text), ("", "", "")]
    for (language, _, content), (follower, status, response) in pairwise(blocks):
        if language == "sh" and "curl" in content:
            is_shown = follower == "json"
            yield content, int(status) if is_shown else None, response if is_shown else None


def matches(expected, actual):
    if isinstance(expected, dict) and isinstance(actual, dict):
        return list(expected) == list(actual) and all(matches(expected[key], actual[key]) for key in expected)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(matches, expected, actual))
    if isinstance(expected, str) and isinstance(actual, str):
        return expected == actual or expected.endswith("…") or bool(TIME.fullmatch(expected) and TIME.fullmatch(actual))
    return expected == actual and type(expected) is type(actual)


def run(blocks, home):
    """Run the blocks in one shell. Return what each prints on standard output and on standard error."""
    mark = f"\nprintf '%s\\n' '{END}'; printf '%s\\n' '{END}' >&2\n"
    (home / ".curlrc").write_text('write-out = "%{stderr}%{http_code}\\n"\n')
    shell = subprocess.run(
        ["bash"],
        input="".join(block + mark for block in blocks),
        env={**os.environ, "CURL_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return zip(shell.stdout.split(f"{END}\n")[:-1], shell.stderr.split(f"{END}\n")[:-1], strict=True)


def main():
    shown = [(page, *example) for page in PAGES for example in examples((ROOT / page).read_text())]
    failed = 0
    with tempfile.TemporaryDirectory() as home:
        outputs = run([block for _, block, _, _ in shown], Path(home))
        for (page, block, status, response), (out, err) in zip(shown, outputs, strict=True):
            if status is None:
                continue
            expected = json.loads(response) if response else None
            actual = json.loads(out) if out.strip() else None
            if int(err or 0) != status or not matches(expected, actual):
                failed += 1
                print(f"{page}: {block}expected {status} {response}got      {err.strip()} {out}", file=sys.stderr)
    compared = sum(status is not None for _, _, status, _ in shown)
    print(f"The curl lines of {' and '.join(PAGES)}: {compared - failed} passed, {failed} failed")
    sys.exit(failed > 0 or not compared)


main()
