#!/usr/bin/env python3
"""Runs upstream's [sig-network] end-to-end tests against the cluster that cluster.py made.

    run.py                        everything in [sig-network] that skip.txt does not leave out
    run.py --quick                the same without [Slow], [Serial], [Disruptive]
    run.py 'session affinity'     only tests whose full name matches (several may be given)
    run.py --list [REGEX ...]     names only

Results go to $KUBE_PROXY_CONFORMANCE_CACHE/results/TIME/: results.tsv (state, seconds, name, note), and of each pass junit-PASS.xml,
report-PASS.json, output-PASS.log. There are two passes: `parallel`, then `alone` for [Serial] and [Disruptive].
The last line is `N passed, M failed, K skipped`; the exit status is 1 when something failed.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time

from cluster import BIN, CACHE, HERE, KUBECONFIG, RUN, State, in_netns

QUICK = r"\[Slow\]|\[Serial\]|\[Disruptive\]"


def skip_list():
    with open(f"{HERE}/skip.txt") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                if line.startswith("@"):
                    family, line = line[1:].split(" ", 1)
                    if family != State().data["family"]:
                        continue
                regex, reason = line.rstrip("\n").split(" # ", 1)
                yield re.compile(regex), reason


def all_tests():
    listed = subprocess.run([f"{BIN}/e2e.test", "--list-tests"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s+\S+:\d+: (.*\[sig-network\].*)$", listed, re.M)
    return sorted({name.strip() for name in found})


def choose(args):
    """All [sig-network] tests that match, as (tests to run, {test left out: reason})."""
    chosen, left_out = [], {}
    skips = [] if args.no_skip_list else list(skip_list())
    if args.quick:
        skips.append((re.compile(QUICK), "not in --quick"))
    skips += [(re.compile(regex), "--skip") for regex in args.skip]
    for name in all_tests():
        if args.focus and not any(re.search(f, name) for f in args.focus):
            continue
        reason = next((reason for regex, reason in skips if regex.search(name)), None)
        if reason is None:
            chosen.append(name)
        else:
            left_out[name] = reason
    return chosen, left_out


def run(chosen, args, results, tag, procs):
    focus = "|".join(re.escape(name).replace(r"\ ", " ") + "$" for name in chosen)
    nodes = len(State().data["nodes"])
    command = [
        *in_netns("kp-cp"), "env", f"PATH={BIN}:{os.environ['PATH']}",
        f"{BIN}/ginkgo", "run", f"--procs={procs}", "--no-color", "--silence-skips", "--timeout=4h",
        f"--focus={focus}", f"--flake-attempts={args.attempts}", f"--output-dir={results}",
        f"--json-report=report-{tag}.json", f"--junit-report=junit-{tag}.xml", f"{BIN}/e2e.test", "--",
        f"--kubeconfig={KUBECONFIG}", f"--kubectl-path={BIN}/kubectl", "--provider=skeleton",
        f"--num-nodes={nodes}", "--disable-log-dump", *(["--dump-logs-on-failure=false"] if not args.dump else []),
    ]
    with open(f"{results}/output-{tag}.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=results, start_new_session=True)

        def stop(*_):
            os.killpg(process.pid, signal.SIGKILL)  # ginkgo would leave its workers behind
            raise SystemExit(f"stopped; namespaces of the tests stay behind; output in {results}")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        process.wait()


def read_report(results, chosen, tag):
    """{test: (state, seconds, note)} from ginkgo's JSON report."""
    found = {}
    with open(f"{results}/report-{tag}.json") as f:
        suites = json.load(f)
    for spec in (s for suite in suites for s in suite["SpecReports"] or []):
        name = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]]).strip()
        if name not in chosen or spec["LeafNodeType"] != "It":
            if spec["State"] not in ("passed", "skipped"):
                found[f"{spec['LeafNodeType']} {name}"] = ("failed", 0, first_line(spec))
            continue
        state = spec["State"] if spec["State"] in ("passed", "skipped") else "failed"
        note = "" if state == "passed" else first_line(spec)
        if spec["NumAttempts"] > 1:
            note = f"passed on attempt {spec['NumAttempts']} {note}"
        found[name] = (state, spec["RunTime"] / 1e9, note)
    for name in chosen:
        found.setdefault(name, ("failed", 0, "did not run"))
    return found


def first_line(spec):
    return (spec.get("Failure", {}).get("Message", "").strip() or spec["State"]).split("\n")[0][:200]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("focus", nargs="*", metavar="REGEX")
    parser.add_argument("--skip", action="append", default=[], metavar="REGEX")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-skip-list", action="store_true")
    parser.add_argument("--procs", type=int, default=4, help="tests at a time (default 4)")
    parser.add_argument("--attempts", type=int, default=1, help="try a failed test this often (default 1)")
    parser.add_argument("--dump", action="store_true", help="write pods and events of failed tests to the log")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()

    chosen, left_out = choose(args)
    if args.list:
        print("\n".join(chosen + [f"{name}   (left out: {reason})" for name, reason in left_out.items()]))
        return
    if not chosen:
        raise SystemExit("no test matches")
    if not os.path.exists(f"{RUN}/state.json"):
        raise SystemExit("no cluster: cluster.py up first")
    results = f"{CACHE}/results/{time.strftime('%Y%m%d-%H%M%S')}"
    os.makedirs(results)
    print(f"{len(chosen)} tests, results in {results}", flush=True)
    start = time.monotonic()
    found = {}
    alone = [name for name in chosen if re.search(r"\[Serial\]|\[Disruptive\]", name)]
    for tag, names, procs in (("parallel", [n for n in chosen if n not in alone], args.procs), ("alone", alone, 1)):
        if names:
            run(names, args, results, tag, procs)
            found.update(read_report(results, set(names), tag))
    found.update({name: ("skipped", 0, reason) for name, reason in left_out.items()})
    with open(f"{results}/results.tsv", "w") as f:
        for name, (state, seconds, note) in sorted(found.items()):
            f.write(f"{state}\t{seconds:.0f}\t{name}\t{note}\n")
    for name, (state, seconds, note) in sorted(found.items()):
        if state == "failed":
            print(f"FAILED {name} ({seconds:.0f} s): {note}")
        elif "attempt" in note:
            print(f"FLAKY  {name}: {note}")
    states = [state for state, _, _ in found.values()]
    count = {state: states.count(state) for state in ("passed", "failed", "skipped")}
    print(f"{time.monotonic() - start:.0f} s")
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    sys.exit(1 if count["failed"] else 0)


if __name__ == "__main__":
    main()
