#!/usr/bin/env bash
# `make demo`: one ZooKeeper, one Airflow 3 and flowkeeper, everything under
# .demo/; changes a znode, has ZooKeeper's health checked, waits until real DAG
# runs succeeded, shows the history and where to look next. In a terminal it stays
# and shows runs as they come until Ctrl-C; without one it ends after the show.
# `scripts/demo.sh down` ends a demo from elsewhere. FLOWKEEPER_DEMO_BIN names a
# binary to use instead of building one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

sandbox=$root/.demo
venv=$sandbox/airflow-$airflow3_version
config=$sandbox/flowkeeper.toml
foreground=$sandbox/foreground
zkcli=/usr/share/zookeeper/bin/zkCli.sh

# --- down --------------------------------------------------------------------

if [[ ${1:-} == down ]]; then
    if [[ -e $foreground ]]; then
        read -r pid started <"$foreground"
        # The demo in the other terminal cleans up by itself.
        if [[ $(start_time "$pid") == "$started" ]]; then
            kill -TERM "$pid"
            wait_for 20 "the end of the other demo" test ! -e "$foreground" || true
        fi
        rm -f "$foreground"
    fi
    sandbox_stop "$sandbox"
    echo "The demo is down. Its data stays in .demo/ (delete the folder to begin afresh)."
    exit 0
fi

if [[ -n $(sandbox_alive "$sandbox") ]]; then
    fail "a demo is running already" "end it with: make demo-down"
fi

build=
follow=
finish() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $follow ]]; then kill "$follow" 2>/dev/null || true; fi
    if [[ -n $build ]]; then kill "$build" 2>/dev/null || true; fi
    echo >&2
    say "ending the demo"
    sandbox_stop "$sandbox" || code=1
    rm -f "$foreground"
    exit "$code"
}
trap finish EXIT
trap 'exit 0' INT TERM HUP

# What went wrong, with the end of the log that tells why.
give_up() {
    local log=$sandbox/log/$2.log
    if [[ -e $log ]]; then
        printf -- '--- the end of %s\n' "${log#"$root"/}" >&2
        tail -n 25 "$log" >&2
    fi
    fail "$1" "all logs are in .demo/log"
}

# --- start -------------------------------------------------------------------

mkdir -p "$sandbox"
echo "$$ $(start_time $$)" >"$foreground"
rm -rf "$sandbox/log"
scripts/install.sh packages

# Built meanwhile: without optimisation, since that is the shorter wait.
binary=${FLOWKEEPER_DEMO_BIN:-}
if [[ -z $binary ]]; then
    binary=${CARGO_TARGET_DIR:-$root/target}/debug/flowkeeper
    say "building flowkeeper"
    FLOWKEEPER_SANDBOX=$sandbox cargo build --locked --quiet --bin flowkeeper &
    build=$!
fi

zookeeper_port=$(free_port 2181)
airflow_port=$(free_port 8080)
flowkeeper_port=$(free_port 8787)

say "starting ZooKeeper on 127.0.0.1:$zookeeper_port"
zookeeper_start "$sandbox" "$zookeeper_port"

scripts/install.sh airflow "$airflow3_version" "$venv"
say "starting Airflow $airflow3_version on http://127.0.0.1:$airflow_port"
mkdir -p "$sandbox/airflow/dags"
cp scripts/demo/dags/*.py dags/flowkeeper_{client,operators,health}.py dags/zookeeper_health.py "$sandbox/airflow/dags/"
# How tasks reach flowkeeper; an Airflow connection does as well.
export FLOWKEEPER_URL=http://127.0.0.1:$flowkeeper_port
airflow_start "$sandbox" airflow "$venv" "$airflow_port" || give_up "start Airflow" airflow-migrate

sed -e "s/@FLOWKEEPER_PORT@/$flowkeeper_port/" -e "s/@ZOOKEEPER_PORT@/$zookeeper_port/" \
    -e "s/@AIRFLOW_PORT@/$airflow_port/" scripts/demo/flowkeeper.toml >"$config"
flowkeeper() { "$binary" --config "$config" "$@"; }

if [[ -n $build ]]; then
    wait "$build" || { build= && fail "flowkeeper could not be built"; }
    build=
fi
wait_for 30 "ZooKeeper" zookeeper_ready "$zookeeper_port" || give_up "start ZooKeeper" zookeeper
wait_for 180 "Airflow" airflow_ready "$sandbox/airflow" || give_up "start Airflow" airflow-api-server
for dag in demo_clock demo_ready demo_inbox zookeeper_health; do
    wait_for 60 "the DAG $dag" airflow_has_dag "$sandbox/airflow" "$dag" || give_up "parse the DAGs" airflow-dag-processor
done

# zookeeper_shell COMMAND…: commands for ZooKeeper's own shell, without its chatter.
# Its exit code is that of the last command, and "exists already" is no failure
# here; whether the znodes took effect is seen by what flowkeeper makes of them.
zookeeper_shell() {
    printf '%s\n' "$@" |
        "$zkcli" -server "127.0.0.1:$zookeeper_port" >>"$sandbox/log/zookeeper-shell.log" 2>&1 || true
}
zookeeper_shell 'create /demo' 'create /demo/inbox'

say "checking the configuration, also against Airflow and ZooKeeper"
flowkeeper check --online >&2 || fail "the demo's configuration is not right" "see above, and .demo/flowkeeper.toml"

say "starting flowkeeper on http://127.0.0.1:$flowkeeper_port"
spawn "$sandbox" flowkeeper "$binary" --config "$config" serve
flowkeeper_armed() {
    python3 - "http://127.0.0.1:$flowkeeper_port" <<'PY'
import json, sys, urllib.request
with urllib.request.urlopen(sys.argv[1] + "/api/v1/schedules", timeout=5) as answer:
    schedules = json.load(answer)["items"]
sys.exit(0 if schedules and all(schedule["armed"] for schedule in schedules) else 1)
PY
}
wait_for 30 "flowkeeper" flowkeeper_armed || give_up "start flowkeeper" flowkeeper

# --- the show ----------------------------------------------------------------

since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
say "checking ZooKeeper's health: flowkeeper trigger zookeeper-health"
flowkeeper trigger zookeeper-health >&2
say "in ZooKeeper's shell: set /demo/ready, create /demo/inbox/…"
# Of the first two, the one that fits: the znode may be left from an earlier demo.
zookeeper_shell "create /demo/ready \"ready at $since\"" "set /demo/ready \"ready at $since\"" \
    "create -s /demo/inbox/order- \"two pumps, one valve\""

# succeeded SCHEDULE: it has a DAG run that ended well since the show began.
succeeded() {
    flowkeeper -o json runs --schedule "$1" --state success --since "$since" |
        python3 -c 'import json, sys; sys.exit(0 if json.load(sys.stdin) else 1)'
}
say "waiting until Airflow has run the DAGs"
for schedule in ready inbox every-ten-seconds; do
    wait_for 120 "a successful DAG run of $schedule" succeeded "$schedule" ||
        give_up "see a DAG run of $schedule succeed" flowkeeper
done

# The checks take a while longer. Whatever they find is shown: a machine that is
# busy with all this may be slow enough for one of them to fail.
health_run() {
    flowkeeper -o json runs --schedule zookeeper-health --state success,failed --since "$since" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["dag_run_id"])' 2>/dev/null
}
wait_for 120 "the end of the health checks" health_run >/dev/null || give_up "see the health checks end" flowkeeper

# shown COMMAND…: a command as the user would type it, and what it prints.
shown() {
    printf '\n$ flowkeeper -c .demo/flowkeeper.toml %s\n' "$*"
    flowkeeper "$@"
}
shown schedules
shown runs --since "$since" --limit 12
printf '\nThe tasks of zookeeper_health are the checks of ZooKeeper:\n'
airflow_tasks "$sandbox/airflow" zookeeper_health "$(health_run)"

short=${binary#"$root"/}
cat <<TEXT

Real DAG runs: one by the clock, one by a changed znode, one by a new child, and one
that checked ZooKeeper's health. It took $SECONDS s. Now make your own:

  a znode of yours   $zkcli -server 127.0.0.1:$zookeeper_port
                       set /demo/ready "hello"
                       create /demo/inbox/mine "some text"
  the history        $short -c .demo/flowkeeper.toml runs
  as it happens      $short -c .demo/flowkeeper.toml runs --follow
  why (not)          $short -c .demo/flowkeeper.toml why ready
  ZooKeeper's health $short -c .demo/flowkeeper.toml health
  the HTTP API       http://127.0.0.1:$flowkeeper_port/api/v1/runs   (and /openapi.json, /metrics)
  Airflow            http://127.0.0.1:$airflow_port   user admin, password $(<"$sandbox/airflow/password")
  the configuration  .demo/flowkeeper.toml
  logs               .demo/log
TEXT

if [[ -t 0 && -t 1 ]]; then
    printf '\nRuns as they come; Ctrl-C ends the demo (or make demo-down elsewhere).\n\n'
    # In the background, so that a signal is acted on at once.
    FLOWKEEPER_SANDBOX=$sandbox "$binary" --config "$config" runs --follow &
    follow=$!
    wait "$follow" || true
    follow=
fi
