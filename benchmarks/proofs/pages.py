"""The blocks of code on the pages in docs/, which the proofs run unchanged."""

import re
from typing import NamedTuple

from config.testing.service import ROOT

BLOCK = re.compile(r"^(?:## (.*)|(?:`(/.*)`:\n\n)?```(.*)\n((?:.*\n)*?)```)$", re.MULTILINE)


class Block(NamedTuple):
    section: str
    path: str  # of the file that it goes into, or empty
    language: str
    content: str

    def is_step(self) -> bool:
        """Return whether it is a file to write, or commands to run."""
        return bool(self.path) or self.language == "sh"

    def script(self) -> str:
        """Return a script that writes the file, or the commands."""
        return f"cat > {self.path} <<'END OF BLOCK'\n{self.content}END OF BLOCK\n" if self.path else self.content


def blocks(page: str) -> list[Block]:
    found, section = [], ""
    for heading, *block in BLOCK.findall((ROOT / "docs" / page).read_text()):
        section = heading or section
        if not heading:
            found.append(Block(section, *block))
    return found


def steps(page: str, section: str) -> list[Block]:
    return [block for block in blocks(page) if block.section == section and block.is_step()]
