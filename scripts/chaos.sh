#!/usr/bin/env bash
# `make chaos`: the failover harness at length. Three members, a ZooKeeper
# ensemble of three servers, PostgreSQL and two Airflows (in the test process,
# one of them failing requests) meet faults drawn from a seed; after every 100
# of them, what came due and what changed is compared with the ledger and with
# Airflow. FAULTS (1000), SEED (drawn, and printed) and MINUTES (none: stop
# after so many, however many faults are left) set how long it takes; KINDS (all)
# names the kinds of fault, as tests/it/chaos/faults.rs does: HandOver,KillLeader.
# SESSION_MS (2000) is the members' session timeout, TICK_MS (250) ZooKeeper's tick.
#
# `scripts/chaos.sh outage`: the ensemble is down for SECONDS_DOWN (600) while cron
# is due each second; prints how late cron was before, during and after.
#
# Ends everything that it started, also on Ctrl-C. The logs of the members are kept
# in .test/chaos-logs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

sandbox=$root/.test/chaos.$$
# PostgreSQL does not run as root: its user must be able to go there.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/flowkeeper-chaos.XXXXXX")
chmod 755 "$scratch"

finish() {
    local code=$?
    trap - EXIT INT TERM HUP
    sandbox_stop "$sandbox" || code=1
    rm -rf "$sandbox" "$scratch"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

case ${1:-faults} in
faults) name=chaos::through_many_faults_nothing_is_lost_and_nothing_runs_twice ;;
outage) name=chaos::while_the_ensemble_is_down_cron_is_as_punctual_as_before ;;
*) fail "no such trial: $1" "scripts/chaos.sh, or scripts/chaos.sh outage" ;;
esac

scripts/install.sh packages
say "building"
cargo test --locked --test it --no-run

if [[ -n ${FAULTS:-} ]]; then export FLOWKEEPER_CHAOS_FAULTS=$FAULTS; fi
if [[ -n ${SEED:-} ]]; then export FLOWKEEPER_CHAOS_SEED=$SEED; fi
if [[ -n ${KINDS:-} ]]; then export FLOWKEEPER_CHAOS_KINDS=$KINDS; fi
if [[ -n ${SESSION_MS:-} ]]; then export FLOWKEEPER_CHAOS_SESSION_MS=$SESSION_MS; fi
if [[ -n ${TICK_MS:-} ]]; then export FLOWKEEPER_CHAOS_TICK_MS=$TICK_MS; fi
if [[ -n ${MINUTES:-} ]]; then export FLOWKEEPER_CHAOS_MINUTES=$MINUTES; fi
if [[ -n ${SECONDS_DOWN:-} ]]; then export FLOWKEEPER_CHAOS_OUTAGE_SECONDS=$SECONDS_DOWN; fi
export FLOWKEEPER_CHAOS_LOGS=$root/.test/chaos-logs
FLOWKEEPER_SANDBOX=$sandbox TMPDIR=$scratch \
    cargo test --locked --quiet --test it -- --ignored --exact --nocapture "$name"
