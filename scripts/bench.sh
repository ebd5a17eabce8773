#!/usr/bin/env bash
# `make bench`: starts a ZooKeeper, a PostgreSQL and an Airflow 3 of its own and runs the
# benchmarks in benches/speed beside their floors and peers. FLOWKEEPER_BENCH_QUICK=1
# makes it shorter and rougher; arguments name the cases to run (change, changes,
# children, cron, reload, pages, pacing).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

sandbox=$root/.test/bench.$$
peers=$root/.test/peers
venv=$root/.test/airflow-$airflow3_version

finish() {
    local code=$?
    trap - EXIT INT TERM HUP
    sandbox_stop "$sandbox" || code=1
    rm -rf "$sandbox"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

cases=${*:-change changes children cron reload pages pacing}

scripts/install.sh packages
scripts/install.sh peers "$peers"
say "building with optimisation"
FLOWKEEPER_SANDBOX=$sandbox cargo bench --locked --bench speed --no-run

zookeeper_port=$(free_port 0)
zookeeper_start "$sandbox" "$zookeeper_port"
wait_for 30 "ZooKeeper" zookeeper_ready "$zookeeper_port"

if [[ $cases == *reload* || $cases == *pages* ]]; then
    postgres_port=$(free_port 0)
    postgres_start "$sandbox" "$postgres_port"
    wait_for 30 "PostgreSQL" postgres_ready "$postgres_port"
    export FLOWKEEPER_BENCH_POSTGRES=127.0.0.1:$postgres_port
fi

# Airflow is started only for the case that needs it: beside the others it would
# take their processor.
export FLOWKEEPER_BENCH_ZOOKEEPER=127.0.0.1:$zookeeper_port
export FLOWKEEPER_BENCH_PYTHON=$peers/bin/python
export FLOWKEEPER_BENCH_DIR=$sandbox
light=${cases//pacing/}
if [[ -n ${light// /} ]]; then
    # shellcheck disable=SC2086 # a list of words
    FLOWKEEPER_SANDBOX=$sandbox cargo bench --locked --quiet --bench speed -- $light
fi
if [[ $cases == *pacing* ]]; then
    scripts/install.sh airflow "$airflow3_version" "$venv"
    mkdir -p "$sandbox/airflow/dags"
    cp tests/airflow/dags/*.py "$sandbox/airflow/dags/"
    say "starting Airflow $airflow3_version"
    airflow_start "$sandbox" airflow "$venv" "$(free_port 0)"
    wait_for 180 "Airflow" airflow_ready "$sandbox/airflow"
    wait_for 120 "its DAGs" airflow_has_dag "$sandbox/airflow" fk_empty
    FLOWKEEPER_SANDBOX=$sandbox FLOWKEEPER_BENCH_AIRFLOW=$sandbox/airflow \
        cargo bench --locked --quiet --bench speed -- pacing
fi
