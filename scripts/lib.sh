# shellcheck shell=bash
# What the scripts share: messages, ports, process groups, and starting a real
# ZooKeeper and a real Airflow. Sourced, never run.
#
# What is started here is started in a sandbox, a folder that remembers it: each
# process leads a session of its own and carries FLOWKEEPER_SANDBOX=<folder> in
# its environment. Neither alone finds everything that came of it (a task may
# begin a new session; programs that set their title overwrite their
# environment), so `sandbox_stop` ends whatever has one or the other. Nothing
# outlives a run, and nothing foreign is touched.

# shellcheck disable=SC2034 # used by the scripts that source this file
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# shellcheck disable=SC2034 # used by the scripts that source this file
airflow3_version=3.3.2 airflow2_version=2.11.2

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf 'hint: %s\n' "$line" >&2; done
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# --- ports -------------------------------------------------------------------

# free_port [PREFERRED]: the preferred port of the loopback address if nobody
# listens there, else one that the system chooses.
free_port() {
    python3 - "${1:-0}" <<'PY'
import socket, sys
for port in (int(sys.argv[1]), 0):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(s.getsockname()[1])
        break
PY
}

# wait_for SECONDS WHAT COMMAND…: repeats a command until it succeeds.
wait_for() {
    local seconds=$1 what=$2
    shift 2
    local end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            printf 'error: %s was not ready after %s s\n' "$what" "$seconds" >&2
            return 1
        fi
        sleep 0.3
    done
}

# --- processes ---------------------------------------------------------------

# spawn SANDBOX NAME COMMAND…: starts a command in a session of its own; its
# output goes to SANDBOX/log/NAME.log. SANDBOX/pids/NAME keeps its id with start
# time and boot, so that a number that was given to another process is noticed.
spawn() {
    local sandbox=$1 name=$2 pid
    shift 2
    mkdir -p "$sandbox/log" "$sandbox/pids"
    FLOWKEEPER_SANDBOX=$sandbox setsid "$@" >>"$sandbox/log/$name.log" 2>&1 </dev/null &
    pid=$!
    disown
    echo "$pid $(start_time "$pid") $(</proc/sys/kernel/random/boot_id)" >"$sandbox/pids/$name"
}

# start_time PID: in clock ticks since boot; nothing if there is no such process.
start_time() {
    local stat fields
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    # The name, in brackets, may hold anything; the fields after it are numbers.
    read -ra fields <<<"${stat##*) }"
    echo "${fields[19]}"
}

# sandbox_sessions SANDBOX: the sessions that were started in it and are not
# proven to be somebody else's by now.
sandbox_sessions() {
    local file pid started boot now
    for file in "$1"/pids/*; do
        [[ -e $file ]] || continue
        read -r pid started boot <"$file"
        now=$(start_time "$pid")
        if [[ $boot == "$(</proc/sys/kernel/random/boot_id)" && ${now:-$started} == "$started" ]]; then
            echo "$pid"
        fi
    done
}

# sandbox_alive SANDBOX: the ids of all its processes.
sandbox_alive() {
    local sessions stat pid fields
    sessions=" $(sandbox_sessions "$1" | tr '\n' ' ') "
    for stat in /proc/[0-9]*/stat; do
        pid=${stat//[!0-9]/}
        { read -r stat <"$stat"; } 2>/dev/null || continue
        read -ra fields <<<"${stat##*) }"
        # Ended, and only waits for its parent to notice.
        [[ ${fields[0]} != Z ]] || continue
        if [[ $sessions == *" ${fields[3]} "* ]] ||
            grep -qzxF "FLOWKEEPER_SANDBOX=$1" "/proc/$pid/environ" 2>/dev/null; then
            echo "$pid"
        fi
    done
}

# sandbox_stop SANDBOX: ends everything in it; whoever does not listen is killed
# after eight seconds. Fails if a process is left.
sandbox_stop() {
    local sandbox=$1 pid tick left
    for pid in $(sandbox_sessions "$sandbox"); do
        kill -TERM -- "-$pid" 2>/dev/null || true
    done
    for ((tick = 0; tick < 60; tick++)); do
        left=$(sandbox_alive "$sandbox")
        [[ -n $left ]] || break
        if ((tick >= 40)); then
            for pid in $left; do kill -KILL "$pid" 2>/dev/null || true; done
        fi
        sleep 0.2
    done
    if [[ -n $left ]]; then
        printf 'error: still running in %s: %s\n' "$sandbox" "${left//$'\n'/ }" >&2
        return 1
    fi
    rm -rf "$sandbox/pids"
}

# --- ZooKeeper ---------------------------------------------------------------

zookeeper_classpath="/etc/zookeeper/conf:/usr/share/java/*"

# zookeeper_start SANDBOX PORT: one server with its data under SANDBOX/zookeeper.
zookeeper_start() {
    local sandbox=$1 port=$2 home=$1/zookeeper
    mkdir -p "$home/data"
    cat >"$home/zoo.cfg" <<CFG
tickTime=2000
dataDir=$home/data
clientPort=$port
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=*
maxClientCnxns=0
autopurge.purgeInterval=1
CFG
    spawn "$sandbox" zookeeper java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -Dzookeeper.root.logger=WARN,CONSOLE -cp "$zookeeper_classpath" \
        org.apache.zookeeper.server.quorum.QuorumPeerMain "$home/zoo.cfg"
    echo "127.0.0.1:$port" >"$home/connect"
}

zookeeper_ready() { [[ $(four_letter "$1" ruok) == imok ]]; }

# four_letter PORT WORD: what a server answers to a four-letter word.
four_letter() {
    local answer
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf '%s' "$2" >&3
    answer=$(timeout 2 cat <&3 || true)
    exec 3>&-
    printf '%s\n' "$answer"
}

# --- PostgreSQL --------------------------------------------------------------

# postgres_start SANDBOX PORT: one server with its data under SANDBOX/postgres, and a
# superuser `flowkeeper` who needs no password. It refuses to run as root.
postgres_start() {
    local sandbox=$1 port=$2 home=$1/postgres programs as_user=()
    programs=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
    mkdir -p "$home"
    if ((EUID == 0)); then
        chown nobody "$home"
        chmod a+x "$sandbox"
        as_user=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    fi
    "${as_user[@]}" "$programs/initdb" --pgdata "$home/data" --username flowkeeper --auth trust \
        --encoding UTF8 --no-locale >/dev/null
    spawn "$sandbox" postgres "${as_user[@]}" "$programs/postgres" -D "$home/data" -p "$port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories="$home" -c max_connections=100
}

postgres_ready() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# --- Airflow -----------------------------------------------------------------

# airflow_environment VENV HOME PORT: sets what every component and every
# command of that Airflow needs. Call it in a subshell.
airflow_environment() {
    local venv=$1 home=$2 port=$3
    export PATH=$venv/bin:$PATH AIRFLOW_HOME=$home
    export AIRFLOW__CORE__DAGS_FOLDER=$home/dags
    export AIRFLOW__CORE__LOAD_EXAMPLES=False
    export AIRFLOW__CORE__PARALLELISM=4
    export AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG=64
    export AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False
    export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
    # Few runs a loop is the default; a burst should not wait for the scheduler.
    export AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP=200
    export AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE=200
    export AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME=0.5
    # A new file is seen within two seconds, a changed one within five.
    export AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=2
    export AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL=5
    export AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES=1
    export AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL=2
    export AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL=5
    export AIRFLOW__SCHEDULER__PARSING_PROCESSES=1
    export AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL=1
    export AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL=1
    export AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING
    # Airflow 3
    export AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT=$port AIRFLOW__API__WORKERS=1
    export AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:$port/execution/
    export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=admin:admin
    export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=$home/passwords.json
    # Airflow 2
    export AIRFLOW__WEBSERVER__WEB_SERVER_HOST=127.0.0.1 AIRFLOW__WEBSERVER__WEB_SERVER_PORT=$port
    export AIRFLOW__WEBSERVER__WORKERS=1
    export AIRFLOW__API__AUTH_BACKENDS=airflow.api.auth.backend.basic_auth
    AIRFLOW__WEBSERVER__SECRET_KEY=$(<"$home/secret")
    export AIRFLOW__WEBSERVER__SECRET_KEY
    # One secret for all components, kept: tokens stay valid over a restart.
    export AIRFLOW__API_AUTH__JWT_SECRET=$AIRFLOW__WEBSERVER__SECRET_KEY
    export AIRFLOW__API__SECRET_KEY=$AIRFLOW__WEBSERVER__SECRET_KEY
}

# airflow_start SANDBOX NAME VENV PORT: migrates the metadata database (SQLite)
# when it is new and starts the components, without waiting for them. The files
# `url`, `username`, `password`, `python` and the folder `dags` in SANDBOX/NAME
# tell how to reach it, which Python it runs with, and where its DAGs belong.
airflow_start() {
    local sandbox=$1 name=$2 venv=$3 port=$4 home=$1/$2 major
    mkdir -p "$home/dags"
    (
        umask 077
        [[ -s $home/secret ]] || random_word 64 >"$home/secret"
        [[ -s $home/password ]] || random_word 20 >"$home/password"
        printf '{"admin": "%s"}\n' "$(<"$home/password")" >"$home/passwords.json"
    )
    printf 'admin\n' >"$home/username"
    printf 'http://127.0.0.1:%s\n' "$port" >"$home/url"
    printf '%s\n' "$venv/bin/python" >"$home/python"
    major=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("apache-airflow").split(".")[0])')
    (
        airflow_environment "$venv" "$home" "$port"
        # The mark is set here too: a migration that is cut short leaves no process.
        export FLOWKEEPER_SANDBOX=$sandbox
        mkdir -p "$sandbox/log"
        if [[ ! -e $home/migrated ]]; then
            rm -f "$home/airflow.db"
            airflow db migrate >>"$sandbox/log/$name-migrate.log" 2>&1
            if [[ $major == 2 ]]; then
                airflow users create --role Admin --username admin --password "$(<"$home/password")" \
                    --firstname a --lastname b --email admin@example.org >>"$sandbox/log/$name-migrate.log" 2>&1
            fi
            touch "$home/migrated"
        fi
        rm -f "$home"/*.pid
        if [[ $major == 2 ]]; then
            spawn "$sandbox" "$name-webserver" bash -c "$forever" -- airflow webserver
            spawn "$sandbox" "$name-scheduler" bash -c "$forever" -- airflow scheduler --skip-serve-logs
        else
            spawn "$sandbox" "$name-api-server" bash -c "$forever" -- airflow api-server
            spawn "$sandbox" "$name-scheduler" bash -c "$forever" -- airflow scheduler --skip-serve-logs
            spawn "$sandbox" "$name-dag-processor" bash -c "$forever" -- airflow dag-processor
        fi
    )
}

# Airflow's components end when SQLite says "database is locked" to them, which
# they do not wait out; whoever operates them lets a supervisor start them again.
# shellcheck disable=SC2016 # expanded by the shell that runs it
forever='while true; do "$@" || true; rm -f "$AIRFLOW_HOME"/*.pid; sleep 1; done'

# airflow_ready HOME: its API answers and its scheduler has beaten.
airflow_ready() {
    python3 - "$1" <<'PY'
import json, pathlib, sys, urllib.error, urllib.request
base = pathlib.Path(sys.argv[1], "url").read_text().strip()
for path in ("/api/v2/monitor/health", "/health"):
    try:
        with urllib.request.urlopen(base + path, timeout=5) as answer:
            health = json.load(answer)
    except (OSError, ValueError):
        continue
    sys.exit(0 if health["scheduler"]["status"] == "healthy" else 1)
sys.exit(1)
PY
}

# airflow_has_dag HOME DAG: the DAG is parsed and known to the API.
airflow_has_dag() { airflow_get "$1" "dags/$2" >/dev/null; }

# airflow_tasks HOME DAG RUN: the tasks of a DAG run by state, a line a state.
airflow_tasks() {
    airflow_get "$1" "dags/$2/dagRuns/$3/taskInstances?limit=100" | python3 -c '
import json, sys, textwrap
states = {}
for task in json.load(sys.stdin)["task_instances"]:
    states.setdefault(task["state"] or "none", []).append(task["task_id"])
for state, tasks in sorted(states.items()):
    print(textwrap.fill(", ".join(tasks), 100, initial_indent=f"  {state:8} ", subsequent_indent=" " * 11))
'
}

# airflow_get HOME PATH: what the API of that Airflow answers, as JSON; fails if
# it refuses.
airflow_get() {
    python3 - "$1" "$2" <<'PY'
import base64, json, pathlib, sys, urllib.error, urllib.request
home, path = pathlib.Path(sys.argv[1]), sys.argv[2]
base, user, password = ((home / f).read_text().strip() for f in ("url", "username", "password"))
def call(path, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    headers["Content-Type"] = "application/json"
    return json.load(urllib.request.urlopen(urllib.request.Request(base + path, data, headers), timeout=10))
try:
    token = call("/auth/token", {"username": user, "password": password})["access_token"]
    answer = call(f"/api/v2/{path}", Authorization=f"Bearer {token}")
except urllib.error.HTTPError:
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    answer = call(f"/api/v1/{path}", Authorization=f"Basic {basic}")
json.dump(answer, sys.stdout)
PY
}

random_word() { python3 -c 'import secrets, sys; print(secrets.token_hex(int(sys.argv[1]) // 2))' "$1"; }
