#!/usr/bin/env bash
# Runs the scenarios of tests/ironic with the agent that this repository builds, or another one. Its README says more.
#
#   IRONIC      release of Ironic, several separated by commas, or all (default)
#   SCENARIOS   their names (default: all)
#   AGENT       ferric (default), ipa for ironic-python-agent, or the path of a program
. "$(dirname "$0")/lib.sh"

scripts/setup.sh ironic
[ "${AGENT:-ferric}" != ferric ] || scripts/build.sh
exec tests/ironic/run
