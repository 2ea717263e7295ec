#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine, after saying what and why. Removes and downgrades nothing. Then
# checks every program that the set needs, and fails with a list and what to do where one is missing: no build starts before that.
#
#   setup.sh                everything: building, virtual machines, the Debian image, a real Ironic
#   setup.sh build          only what building needs
#   setup.sh ironic         what building and the tests against a real Ironic need
#   setup.sh bench          what building and `make bench` need
#   setup.sh oracles        what building and `make test-oracles` need
#   setup.sh check [SET]    installs nothing: the check alone
#
# Prints nothing and does nothing where nothing is missing. Without root it uses sudo.
. "$(dirname "$0")/lib.sh"
. scripts/needs.sh

check_only=
if [ "${1:-}" = check ]; then
    check_only=yes
    shift
fi
choose_set "${1:-everything}"

is_installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed$'; }

# Fails with the programs and files that are missing, and what to do about each.
finish() {
    local entry package absent=() broken=() missing
    missing=$(missing_needs)
    [ -n "$missing" ] || return 0
    say "setup: missing, and nothing is built or run without them:"
    for entry in $missing; do
        package=${entry##*:}
        say "  $(printf '%s' "${entry%:*}" | sed 's/^linking_c()$/files to link C programs with/; s/^making_venvs()$/python3 -m venv/') (package $package)"
        if is_installed "$package"; then
            [[ " ${broken[*]} " == *" $package "* ]] || broken+=("$package")
        else
            [[ " ${absent[*]} " == *" $package "* ]] || absent+=("$package")
        fi
    done
    say "setup: what to do, as root:"
    [ ${#absent[@]} = 0 ] || say "  apt-get install --no-remove --no-install-recommends ${absent[*]}"
    [ ${#broken[@]} = 0 ] || say "  apt-get install --reinstall ${broken[*]}    # installed, but their files are gone"
    die "${1:-some programs are missing; install them, then run the same command again}"
}

if [ -n "$check_only" ]; then
    finish "some programs are missing; \`make setup\` installs what it can"
    exit 0
fi

# ---- the packages that are missing
missing=()
for entry in "${packages[@]}"; do
    absent=()
    for package in ${entry%%:*}; do
        is_installed "$package" || [[ " ${missing[*]} " == *" $package "* ]] || absent+=("$package")
    done
    [ ${#absent[@]} = 0 ] && continue
    [ ${#missing[@]} != 0 ] || say "setup: Debian packages that are missing:"
    say "  ${absent[*]} - ${entry#*:}"
    missing+=("${absent[@]}")
done

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ "${CI:-}" = true ]; then
        sudo -n "$@"
    else
        sudo "$@"
    fi
}
can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }
update_lists() {
    as_root apt-get update -q >&2 ||
        say "setup: \`apt-get update\` failed; going on with the package lists that are there"
}

# ---- a plan that removes and downgrades nothing
install=(install --no-remove --no-install-recommends)
plan=$(mktemp)
trap 'rm -f "$plan"' EXIT

# The packages under one of apt's headings in the plan, one a line.
under() { awk -v head="$1" '$0 ~ head { on = 1; next } /^[^ ]/ { on = 0 } on { for (n = 1; n <= NF; n++) print $n }' "$plan" | tr -d '*'; }
harmed() {
    under '^The following packages will be REMOVED' | sed 's/$/ would be removed/'
    under '^The following packages will be DOWNGRADED' | sed 's/$/ would be downgraded/'
    under '^The following held packages will be changed' | sed 's/$/ is held and would be changed/'
    sed -n 's/^Remv \([^ ]*\).*/\1 would be removed/p' "$plan"
}
# Simulates an installation, as an ordinary user. Succeeds where apt can do it and no installed package is harmed.
is_safe() { LC_ALL=C apt-get -s -q "${install[@]}" "$@" >"$plan" 2>&1 && [ -z "$(harmed)" ]; }

# Prints the source and its version of what apt would install.
candidate() {
    LC_ALL=C apt-cache show --no-all-versions "$1" 2>/dev/null | awk -v source="$1" '
        $1 == "Source:" { source = $2; if (NF > 2) own = substr($3, 2, length($3) - 2) }
        $1 == "Version:" { version = $2 }
        $0 == "" { exit }
        END { sub(/\+b[0-9]+$/, "", version); print source, own == "" ? version : own }' || true
}
# The suite that an installed version comes from, such as bookworm-backports; nothing where it comes from no list.
suite_of_installed() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | awk '
        $1 == "***" { on = 1; next }
        on && $2 ~ /^\/var\/lib\/dpkg/ { next }
        on && NF >= 3 && $1 ~ /^-?[0-9]+$/ { split($3, part, "/"); print part[1]; exit }
        on { exit }' || true
}

# Prints the suite of an installed package that has the same source as this one and another version.
suite_of_sibling() {
    local source version sibling installed suite
    read -r source version < <(candidate "$1") || return 0
    while read -r sibling installed; do
        [ "$installed" != "$version" ] || continue
        suite=$(suite_of_installed "$sibling")
        if [ -n "$suite" ]; then
            printf '%s' "$suite"
            return
        fi
    done < <(dpkg-query -W -f '${db:Status-Status} ${source:Package} ${Package} ${source:Version}\n' 2>/dev/null |
        awk -v source="$source" '$1 == "installed" && $2 == source { print $3, $4 }')
}

run_apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "${install[@]}" "$@" >&2; }
why_not() {
    local reasons
    reasons=$(harmed | sort -u)
    [ -n "$reasons" ] || reasons=$(grep -E '^ |^E: ' "$plan" || true)
    printf '%s\n' "$reasons"
}

# Installs `missing` in a way that removes and downgrades nothing. Fails where there is none; `refused` then has the reason.
install_missing() {
    local package suite unknown reasons group harmless=() harmful=() rest=("${missing[@]}")
    ! is_safe "${rest[@]}" || { run_apt "${rest[@]}"; return; }
    # One package that apt does not know must not keep the others away.
    unknown=$(sed -n "s/^E: Unable to locate package \([^ ]*\).*/\1/p; s/^E: Package '\([^']*\)' has no installation candidate.*/\1/p" "$plan")
    if [ -n "$unknown" ]; then
        say "setup: apt does not know $(printf '%s' "$unknown" | paste -sd' '), so they are left out"
        mapfile -t rest < <(printf '%s\n' "${rest[@]}" | grep -vxF "$unknown" || true)
        [ ${#rest[@]} != 0 ] || { refused="apt does not know these packages"; return 1; }
        ! is_safe "${rest[@]}" || { run_apt "${rest[@]}"; return; }
    fi
    reasons=$(why_not)
    say "setup: the ordinary way to install these would change packages that you have, so it is not done. apt says:"
    printf '%s\n' "$reasons" | sed 's/^ */  /' >&2

    # Packages of one source must often have one version. Where an installed one is from another suite (usually backports), its
    # missing siblings are taken from there, too, and the rest as usual.
    declare -A from=()
    for package in "${rest[@]}"; do
        suite=$(suite_of_sibling "$package")
        [ -z "$suite" ] || from[$suite]+="$package "
    done
    for suite in "${!from[@]}"; do
        read -ra group <<<"${from[$suite]}"
        is_safe -t "$suite" "${group[@]}" || continue
        say "setup: taking ${group[*]} from $suite, where installed packages of the same source are from"
        run_apt -t "$suite" "${group[@]}" || return
        mapfile -t rest < <(printf '%s\n' "${rest[@]}" | grep -vxF "$(printf '%s\n' "${group[@]}")" || true)
    done
    [ ${#rest[@]} != 0 ] || return 0
    ! is_safe "${rest[@]}" || { run_apt "${rest[@]}"; return; }
    # Siblings can be told by no source: the suites of the packages that would be harmed are tried for all.
    for package in $(printf '%s\n' "$reasons" | sed -n 's/^\([^ ]*\) would be .*/\1/p; s/^ *\([^ ]*\) : .*/\1/p'); do
        suite=$(suite_of_installed "$package")
        [ -n "$suite" ] && is_safe -t "$suite" "${rest[@]}" || continue
        say "setup: taking ${rest[*]} from $suite, where $package is from"
        run_apt -t "$suite" "${rest[@]}"
        return
    done
    # What harms nothing is installed all the same, so that the list at the end is short.
    for package in "${rest[@]}"; do
        if is_safe "${harmless[@]}" "$package"; then harmless+=("$package"); else harmful+=("$package"); fi
    done
    [ ${#harmless[@]} = 0 ] || run_apt "${harmless[@]}" || return
    refused="installing ${harmful[*]} would remove or change packages that you have, as listed above: install them by hand in versions that fit, or remove yours first"
    return 1
}

trouble=
if [ ${#missing[@]} != 0 ]; then
    if ! command -v apt-get >/dev/null; then
        trouble="there is no apt-get; install the programs above by your own means"
    elif ! can_be_root; then
        trouble="there is no sudo; run as root: apt-get install --no-remove --no-install-recommends ${missing[*]}"
    else
        [ "$(id -u)" = 0 ] || say "setup: sudo is asked for apt-get, and for nothing else"
        update_lists
        refused="apt-get failed; its message is above"
        install_missing || trouble=$refused
    fi
# The kernel of the ramdisk is downloaded by apt, which must have heard of it.
elif command -v apt-cache >/dev/null && [ -z "$(apt-cache show linux-image-amd64 linux-image-generic 2>/dev/null | head -n 1)" ]; then
    say "setup: apt has no package lists yet"
    can_be_root && update_lists
fi

# The static target. Not having it is no failure: scripts/build.sh knows another way and says so.
if ! has_target $musl && command -v rustup >/dev/null; then
    say "setup: adding Rust's $musl target"
    rustup target add $musl || say "setup: could not add it; the build will use $gnu with a static glibc"
fi
has_target $musl || has_target $gnu || die "Rust's standard library is missing for $musl and $gnu; run: rustup target add $musl"

finish "$trouble"
[ -z "$trouble" ] || say "setup: $trouble. Every program that is needed is there all the same; going on"
