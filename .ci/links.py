"""Checks that every relative link in the README and in docs/ leads to a file, and its anchor to a heading."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(file):
    """Return the anchors that GitHub gives to the headings of a page."""
    for heading in HEADING.findall(re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)):
        label = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        yield re.sub(r"[^\w\- ]", "", label.lower()).replace(" ", "-")


def main():
    checked, broken = 0, []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in LINK.findall(CODE.sub("", page.read_text())):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if ":" in path:
                continue
            checked += 1
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link} leads nowhere")
    print("\n".join([*broken, f"{checked} links checked"]))
    sys.exit(bool(broken))


main()
