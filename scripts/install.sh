#!/usr/bin/env bash
# Installs what the demo, the tests and the benchmarks need beside Rust:
#
#   scripts/install.sh packages            Debian packages (ZooKeeper's jars, Java, PostgreSQL …)
#   scripts/install.sh airflow 3.3.2 DIR   one Airflow from PyPI into a venv of its own
#   scripts/install.sh peers DIR           the Python peers of the benchmarks
#   scripts/install.sh kazoo DIR           kazoo, whose locks the tests queue with
#
# Everything is left alone when it is there already.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# --- Debian packages ---------------------------------------------------------

install_packages() {
    local missing=()
    [[ -e /usr/share/java/zookeeper.jar && -x /usr/share/zookeeper/bin/zkCli.sh ]] || missing+=(zookeeper)
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
    have java || missing+=(default-jre-headless)
    have python3 || missing+=(python3)
    { have python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; } || missing+=(python3-venv)
    have cc || missing+=(build-essential)
    have openssl || missing+=(openssl)
    have chromium || missing+=(chromium)
    have setsid || missing+=(util-linux)
    have ps || missing+=(procps)
    ((${#missing[@]} > 0)) || return 0
    have apt-get || fail "these are missing: ${missing[*]}, and this is no Debian or Ubuntu" \
        "install them with your system's package manager; ZooKeeper's jars are looked for in /usr/share/java"
    local as_root=()
    if ((EUID != 0)); then
        have sudo || fail "these Debian packages are missing: ${missing[*]}" \
            "run as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing from Debian: ${missing[*]}"
    # An old list of packages is good enough if it still works.
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
        "${as_root[@]}" apt-get update -qq
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    }
}

# --- Python ------------------------------------------------------------------

# find_python MINOR…: an interpreter of one of these 3.x versions, best first.
find_python() {
    local minor candidate found
    for minor in "$@"; do
        for candidate in "python3.$minor" python3 "$HOME"/.pyenv/versions/3."$minor".*/bin/python3; do
            found=$("$candidate" -c 'import sys; print(sys.version_info[1], sys.executable)' 2>/dev/null) || continue
            if [[ ${found%% *} == "$minor" ]]; then
                echo "${found#* }"
                return
            fi
        done
    done
    fail "no Python 3.$(join_by ', 3.' "$@") was found" \
        "install one, for example: apt-get install python3.11 python3.11-venv"
}

join_by() {
    local separator=$1 text=$2
    shift 2
    printf '%s' "$text" "${@/#/$separator}"
}

# find_uv: the installer; from PyPI into a venv of its own if there is none.
find_uv() {
    local venv=$root/.test/uv
    if uv --version >/dev/null 2>&1; then
        echo uv
        return
    fi
    if [[ ! -x $venv/bin/uv ]]; then
        python3 -m venv "$venv" >&2
        "$venv/bin/pip" install --quiet --disable-pip-version-check uv >&2
    fi
    echo "$venv/bin/uv"
}

# install_venv DIR STAMP PYTHON UV-ARGUMENT…: a venv that is complete or absent.
install_venv() {
    local venv=$1 stamp=$2 python=$3 uv
    shift 3
    if [[ -e $venv/complete && $(<"$venv/complete") == "$stamp" ]] && "$venv/bin/python" --version >/dev/null 2>&1; then
        return
    fi
    uv=$(find_uv)
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$uv" venv --quiet --no-python-downloads --python "$python" "$venv"
    "$uv" pip install --quiet --python "$venv/bin/python" "$@"
    # Compiled once here, not by every component that starts first.
    "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1 || true
    echo "$stamp" >"$venv/complete"
}

install_airflow() {
    local version=$1 venv=$2 python
    local requirements=$root/tests/airflow/requirements-$version.txt
    [[ -e $requirements ]] || fail "there is no list of packages for Airflow $version" \
        "known versions: $airflow3_version, $airflow2_version"
    if [[ $version == 2.* ]]; then
        python=$(find_python 11 12 10)
    else
        python=$(find_python 11 12 13 10)
    fi
    [[ -e $venv/complete ]] || say "installing Airflow $version from PyPI (about 200 MB) into ${venv#"$root"/}"
    install_venv "$venv" "$version $(cksum <"$requirements") $python" "$python" -r "$requirements"
}

# install_listed DIR FILE: a venv with what a list of packages names.
install_listed() {
    local venv=$1 requirements=$2 python
    python=$(find_python 11 12 13 10)
    install_venv "$venv" "$(cksum <"$requirements") $python" "$python" -r "$requirements"
}

case ${1:-} in
packages) install_packages ;;
airflow) install_airflow "$2" "$3" ;;
peers) install_listed "$2" "$root/benches/peers/requirements.txt" ;;
kazoo) install_listed "$2" "$root/tests/kazoo/requirements.txt" ;;
*) fail "unknown part: ${1:-none}" "scripts/install.sh packages | airflow VERSION DIR | peers DIR | kazoo DIR" ;;
esac
