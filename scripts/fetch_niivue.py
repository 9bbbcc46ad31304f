"""Put NiiVue, the viewer of the report, into the package: python scripts/fetch_niivue.py.

It is fetched by npm, in the version that nnunetv2_spmc/reports/niivue.py pins, and stays out of the
repository. A build of a wheel does the same (scripts/build_backend.py); this is for a clone that is
installed editable, so that its reports and the tests of the viewer need no network later.
"""

from __future__ import annotations

import sys

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.reports.niivue import BUNDLED_FILE, fetch_niivue


def main() -> None:
    if BUNDLED_FILE.is_file():
        return
    try:
        fetch_niivue(BUNDLED_FILE)
    except DataError as error:
        sys.exit(f"error: {error}")
    print(f"NiiVue is in {BUNDLED_FILE}")


if __name__ == "__main__":
    main()
