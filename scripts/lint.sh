#!/usr/bin/env bash
# Format, clippy, and the rules on dependencies (deny.toml). Runs all of them, then fails if one did.
. "$(dirname "$0")/lib.sh"
scripts/setup.sh check build

failed=()
say "lint: format"
for workspace in . fuzz tests/oracles; do
    cargo fmt --all --check --manifest-path "$workspace/Cargo.toml" ||
        failed+=("format (run: cargo fmt --all --manifest-path $workspace/Cargo.toml)")
done

say "lint: clippy"
cargo clippy --workspace --all-targets -- -D warnings || failed+=(clippy)

say "lint: licences and sources of dependencies"
scripts/licences.py check || failed+=("a licence or a source that deny.toml does not allow")
if command -v cargo-deny >/dev/null; then
    say "lint: cargo deny"
    cargo deny check bans licenses sources || failed+=("cargo deny")
else
    say "lint: banned dependencies (without cargo-deny, so its further checks are left out; advisories are not looked up)"
    tree=$(cargo tree --workspace --target all --prefix none --format '{p}')
    banned=$(sed -n 's/.*{ crate = "\([^"]*\)".*/\1/p' deny.toml)
    [ -n "$banned" ] || failed+=("reading the bans from deny.toml")
    for crate in $banned; do
        if printf '%s\n' "$tree" | grep -q "^$crate v"; then
            cargo tree --workspace --target all --invert "$crate" || true
            failed+=("$crate is banned by deny.toml")
        fi
    done
fi

for script in scripts/*.sh tests/images/*.sh .ci/run; do
    bash -n "$script" || failed+=("$script is no valid shell")
done
if command -v python3 >/dev/null; then
    find scripts tests/ironic tests/bench tests/images \( -name '*.py' -o -path '*/ironic/run' -o -path '*/bin/ipmitool' \) -print0 |
        xargs -0 python3 -c 'import ast, sys; [ast.parse(open(name).read(), name) for name in sys.argv[1:]]' ||
        failed+=("a file is no valid Python")
fi

if [ ${#failed[@]} != 0 ]; then
    printf 'lint: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
say "lint: clean"
