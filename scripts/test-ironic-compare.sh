#!/usr/bin/env bash
# Holds Ferric beside ironic-python-agent: what both said to a real Ironic and to direct questions, exchange by exchange.
# Compares the transcripts that `make test-ironic` has left, and asks the direct questions itself; the other side is the
# reference in tests/ironic/compare/reference. docs/ipa-differences.md has what may differ.
#
#   AGENT       ferric (default), or the path of a program
#   RECORD=1    first records the reference anew with the real ironic-python-agent: every scenario on every release (about an hour)
. "$(dirname "$0")/lib.sh"

compare=(python3 -B tests/ironic/compare)
(cd tests/ironic/compare && python3 -B -m unittest discover -q -t . -s tests)
scripts/setup.sh ironic
if [ -n "${RECORD:-}" ]; then
    tests/ironic/run --agent ipa || say "some scenarios failed with ironic-python-agent: see above; that is part of the reference"
    "${compare[@]}" probe ipa
    "${compare[@]}" record
fi
agent=${AGENT:-ferric}
[ "$agent" != ferric ] || scripts/build.sh
"${compare[@]}" probe "$agent"
exec "${compare[@]}" reference
