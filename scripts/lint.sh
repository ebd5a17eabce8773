#!/usr/bin/env bash
# `make lint`: format, clippy without warnings, shell scripts, Python, licences. A tool
# that is not installed is named and left out: cargo-deny takes minutes to
# build, and its list of advisories comes from the network.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

say "format"
cargo fmt --all --check

say "clippy"
cargo clippy --locked --all-targets -- -D warnings

if have shellcheck; then
    say "shell scripts"
    shellcheck -x scripts/*.sh .ci/run
else
    say "left out: shellcheck is not installed (apt-get install shellcheck)"
fi

if have ruff; then
    say "Python"
    ruff check --quiet dags tests scripts
    ruff format --check --quiet dags tests scripts
else
    say "left out: ruff is not installed (pip install ruff)"
fi
if have mypy; then
    say "types of what is installed into DAG folders"
    (cd dags && mypy --strict --ignore-missing-imports --allow-subclassing-any --cache-dir ../.test/mypy \
        flowkeeper_client.py flowkeeper_operators.py flowkeeper_health.py flowkeeper_maintenance.py)
else
    say "left out: mypy is not installed (pip install mypy)"
fi

if cargo deny --version >/dev/null 2>&1; then
    say "licences, sources and duplicates of the dependencies"
    cargo deny --locked check bans licenses sources
    # Needs the advisory database from the network: told, but not fatal.
    cargo deny --locked check advisories || say "the advisories could not be checked, or one applies: see above"
else
    say "left out: cargo-deny is not installed (cargo install --locked cargo-deny)"
fi
