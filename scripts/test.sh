#!/usr/bin/env bash
# `make test`: installs what is missing, starts a real Airflow 3 and a real
# Airflow 2 while cargo builds, runs every test, and leaves no process behind.
# The tests start the ZooKeepers and PostgreSQLs that they need themselves.
#
# Arguments are given to the tests: `scripts/test.sh config::` runs those only.
# FLOWKEEPER_TEST_AIRFLOW3 and FLOWKEEPER_TEST_AIRFLOW2 tell the tests where the
# Airflows are: folders with the files `url`, `username`, `password`, `python` and
# the folder `dags`. FLOWKEEPER_TEST_PYTHON is a Python that has kazoo. With
# `scripts/test.sh --shell` a shell is opened beside them
# instead, in which single tests can be run again and again.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

sandbox=$root/.test/run.$$
build=

finish() {
    local code=$?
    trap - EXIT INT TERM HUP
    if [[ -n $build ]]; then kill "$build" 2>/dev/null || true; fi
    if ((code != 0)) && [[ -d $sandbox/log ]]; then
        rm -rf "$root/.test/last-failure"
        cp -r "$sandbox/log" "$root/.test/last-failure"
        say "Airflow's logs are kept in .test/last-failure"
    fi
    sandbox_stop "$sandbox/tests" || code=1
    sandbox_stop "$sandbox" || code=1
    rm -rf "$sandbox"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

scripts/install.sh packages

# The build needs no Airflow, and the Airflows need a while to be ready.
FLOWKEEPER_SANDBOX=$sandbox cargo test --no-run --locked &
build=$!

scripts/install.sh airflow "$airflow3_version" "$root/.test/airflow-$airflow3_version"
scripts/install.sh airflow "$airflow2_version" "$root/.test/airflow-$airflow2_version"
scripts/install.sh kazoo "$root/.test/kazoo"
for airflow in "airflow3 $airflow3_version" "airflow2 $airflow2_version"; do
    read -r name version <<<"$airflow"
    mkdir -p "$sandbox/$name/dags"
    cp tests/airflow/dags/*.py "$sandbox/$name/dags/"
    say "starting Airflow $version"
    airflow_start "$sandbox" "$name" "$root/.test/airflow-$version" "$(free_port 0)"
done

wait "$build"
build=
for name in airflow3 airflow2; do
    wait_for 180 "$name" airflow_ready "$sandbox/$name"
    wait_for 120 "the test DAGs of $name" airflow_has_dag "$sandbox/$name" fk_paused
done
say "both Airflows are ready"

export FLOWKEEPER_TEST_AIRFLOW3=$sandbox/airflow3 FLOWKEEPER_TEST_AIRFLOW2=$sandbox/airflow2
export FLOWKEEPER_TEST_PYTHON=$root/.test/kazoo/bin/python
if [[ ${1:-} == --shell ]]; then
    "${SHELL:-bash}"
else
    FLOWKEEPER_SANDBOX=$sandbox/tests cargo test --locked -- "$@"
    # A server that outlives its test sees that only now, and clears up.
    for ((tick = 0; tick < 50; tick++)); do
        left=$(sandbox_alive "$sandbox/tests")
        [[ -n $left ]] || break
        sleep 0.2
    done
    if [[ -n $left ]]; then
        ps -o pid=,args= -p "${left//$'\n'/,}" >&2 || true
        fail "the tests left these processes behind" "a test must end every server that it starts, also when it fails"
    fi
fi
