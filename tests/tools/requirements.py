"""Print the rows of the requirements that no test shows.

A test shows a row by `@pytest.mark.requirement("COHORT-3")`; `docs/requirements.txt` lists the rows' ids.
"""

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SHOWN = re.compile(r"""requirement\(\s*((?:["'][A-Z]+-\d+["']\s*,?\s*)+)\)""")
IDS = re.compile(r"[A-Z]+-\d+")


def shown(checkout: Path) -> set[str]:
    """The ids that some test of the checkout names."""
    folders = [folder for folder in checkout.glob("**/tests") if ".local" not in folder.parts]
    tests = [file for folder in folders for file in folder.rglob("*.py")]
    named = [found for file in tests for found in SHOWN.findall(file.read_text())]
    return {each for found in named for each in IDS.findall(found)}


def main() -> int:
    """0 where every id that a test names is a row; the rows without a test are printed."""
    rows = (CHECKOUT / "docs" / "requirements.txt").read_text().split()
    found = shown(CHECKOUT)
    missing = [row for row in rows if row not in found]
    print(f"{len(rows) - len(missing)} of {len(rows)} rows are shown by a test. Without one:")
    print("  " + " ".join(missing))
    unknown = sorted(found - set(rows))
    if unknown:
        print(f"tests name rows that don't exist: {' '.join(unknown)}")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
