#!/usr/bin/env bash
# Runs the scenarios of tests/ironic with the agent that this repository builds, or another one. Its README says more.
#
#   IRONIC      release of Ironic, several separated by commas, or all (default)
#   SCENARIOS   their names (default: all)
#   AGENT       ferric (default), ipa for ironic-python-agent, or the path of a program
. "$(dirname "$0")/lib.sh"

scripts/setup.sh ironic
if [ "${AGENT:-ferric}" = ferric ]; then
    scripts/build.sh
    cargo build --quiet -p ferric-agent --example reboot_step
fi
exec tests/ironic/run
