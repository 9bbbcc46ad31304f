#!/usr/bin/env bash
# Install what the browser tests need beyond Python: the viewer (by npm) and a browser (by apt-get).
# scripts/test.sh runs it where SPMC_REQUIRE_BROWSER=1 asks for these tests; by hand it does the same.
set -euo pipefail
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

python "$scripts/fetch_niivue.py"
for browser in chromium chromium-browser google-chrome google-chrome-stable chrome; do
    if command -v "$browser" > /dev/null; then exit 0; fi
done
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
    echo "error: there is no browser, and only root can install one by apt-get; install chromium." >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null
command -v chromium > /dev/null || { echo "error: apt-get gave no chromium; install a browser." >&2; exit 1; }
