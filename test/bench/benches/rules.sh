# shellcheck shell=bash
# CPU per order with 10,000 active rules against 10: a rule for each merchant, orders over all merchants.

bench_setup() {
	bench_shop rules_10 10 rebate
	bench_shop rules_10000 10000 rebate
}

few_or_many() { load_start "$1" 1 order.pgbench -D merchants="${1#rules_}"; }
bench_load() { few_or_many "$1"; }

bench_measure() {
	note_server rules_10
	turns "$rounds" few_or_many pinned rules_10 rules_10000
	note_orders "1 client" rules_10 rules_10000
	metric_vs cpu_ratio rules_10000 rules_10 cpu
	bench_check rules_10
	bench_check rules_10000
}
