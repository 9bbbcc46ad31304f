#!/usr/bin/env bash
# What tests/reports/test_report_browser.py needs beside Python: the viewer and a browser.
# Both are optional: where one cannot be had the test skips and says why.
set -euo pipefail
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

python "$scripts/fetch_niivue.py" || echo "note: no NiiVue, so the browser test will skip."
for browser in chromium chromium-browser google-chrome google-chrome-stable chrome; do
    if command -v "$browser" > /dev/null; then exit 0; fi
done
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null \
        || echo "note: apt-get could not install chromium, so the browser test will skip."
else
    echo "note: no browser; install chromium to run the browser test."
fi
