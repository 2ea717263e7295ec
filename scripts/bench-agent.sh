#!/usr/bin/env bash
# Measures the agent beside ironic-python-agent, in turns, in the machine of tests/ironic, and prints the table of docs/performance.md.
#
#   AGENT       ferric (default), or the path of a program
#   ROUNDS      starts of each (default: 7)
. "$(dirname "$0")/lib.sh"

scripts/setup.sh ironic
command -v wrk >/dev/null || die "\`wrk\` is missing: install it (Debian: apt-get install wrk)"
[ "${AGENT:-ferric}" != ferric ] || scripts/build.sh
exec python3 -B tests/ironic/compare bench --rounds "${ROUNDS:-7}" "${AGENT:-ferric}"
