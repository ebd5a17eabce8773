# The commands of the project; each does what it says on a fresh Debian or
# Ubuntu that has Rust and Python, and installs what else it needs.

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-shell lint bench bench-quick chaos chaos-outage reloads

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## ZooKeeper, Airflow 3 and flowkeeper together: a znode changes, a DAG runs
	@scripts/demo.sh

demo-down: ## end a demo that is still running somewhere
	@scripts/demo.sh down

test: ## every test, with a real ZooKeeper, PostgreSQL, Airflow 3 and Airflow 2
	@scripts/test.sh

test-shell: ## a shell with both Airflows running, for single tests
	@scripts/test.sh --shell

lint: ## format, clippy and the shell scripts; licences where cargo-deny is installed
	@scripts/lint.sh

bench: ## how fast, beside the floor and what people use today (about 15 minutes)
	@scripts/bench.sh

bench-quick: ## the same, smaller and rougher (about 4 minutes)
	@FLOWKEEPER_BENCH_QUICK=1 scripts/bench.sh

chaos: ## members, ensemble and PostgreSQL fail at random: FAULTS=1000 SEED=… KINDS=… MINUTES=…
	@FAULTS=$(FAULTS) SEED=$(SEED) KINDS=$(KINDS) SESSION_MS=$(SESSION_MS) TICK_MS=$(TICK_MS) MINUTES=$(MINUTES) scripts/chaos.sh

reloads: ## definitions change at random in files and a znode, also with a real Airflow: RELOADS=250 of each SEED=…
	@FLOWKEEPER_RELOADS=$(or $(RELOADS),250) FLOWKEEPER_RELOADS_SEED=$(SEED) scripts/test.sh --ignored --nocapture reload_trial::

chaos-outage: ## cron while the home ensemble is down: SECONDS_DOWN=600
	@SECONDS_DOWN=$(SECONDS_DOWN) scripts/chaos.sh outage
