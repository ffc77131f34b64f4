"""`python -m supply` makes all checks; `python -m supply page` writes the page of licences."""

from __future__ import annotations

import sys

from supply import check
from supply.licences import PAGE, read_rules, write_page

CHECKS = {
    "the lock": check.check_lock,
    "the environment": check.check_environment,
    "licences": check.check_licences,
    "list of parts (CycloneDX)": check.write_sbom,
    "known weaknesses (pip-audit)": check.find_weaknesses,
}


def main() -> int:
    """Make the checks, print their problems, and return 1 if there are any."""
    if sys.argv[1:] == ["page"]:
        PAGE.write_text(write_page(read_rules()), encoding="utf-8")
        return 0
    failed = False
    for name, run in CHECKS.items():
        print(f"== {name}", flush=True)
        for problem in run():
            failed = True
            print(f"   {problem}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
