#!/usr/bin/env bash
# Set up a Python environment and run the tests: bash scripts/test.sh [--fast] [pytest arguments]
# --fast leaves out the tests that train or run whole workflows, those marked slow.
# With SPMC_REQUIRE_BROWSER=1 it also installs a browser and the viewer, and the browser tests must
# run; without it they skip where one of the two is missing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$repository"
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m "not slow" "$@"
fi

if [ "${SPMC_REQUIRE_BROWSER:-}" = 1 ]; then
    say "Viewer and browser"
    bash scripts/browser_test_tools.sh
fi

say "Rules, formatting and types"
ruff check .
ruff format --check .
mypy

say "Documentation"
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
NO_MKDOCS_2_WARNING=1 mkdocs build --strict --site-dir "$site"  # --quiet counts no warnings

say "Tests"
python -m pytest "$@"
