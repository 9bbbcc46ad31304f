#!/usr/bin/env bash
# Set up everything and run the tests: bash scripts/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$repository"

bash scripts/browser_test_tools.sh

say "Rules, formatting and types"
ruff check .
ruff format --check .
mypy

say "Tests"
python -m pytest "$@"
