"""How the peers of the speed benchmark are asked: what ``*_peer.py`` share, without a framework.

A peer offers named variants of a network; all compute the same function. A name may end in
``@SETTING``: settings hold for a whole process, so each has a worker process of its own, which is
started with the setting's environment variables and builds a variant when it is first asked for it.
A worker reads one JSON object a line, ``{"variant": V, "kind": K, "seconds": S}``, measures calls
of that kind for that long (see ``timed``) and answers ``{"rates": [images a second, ...]}``, or
``{"error": text}``. So whoever asks, here or elsewhere, interleaves what it likes.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

if __package__:
    from experiments.benchmarks.peer_inputs import NETWORKS
else:  # run as a script of an environment that has a framework and nothing else
    from peer_inputs import NETWORKS  # type: ignore[no-redef]

KINDS = ("train", "inference")
# Variants of this setting do not compute in float32: measured, but never the best.
REDUCED = "bf16"
_CHECKED_STEPS = 20
_TOLERANCE = 1e-4
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Peer:
    """One variant, ready to be called.

    Attributes:
        train: trains once and returns the loss (of the last batch, if these are several).
        infer: computes the class lengths; returns when they are there.
        lengths: the same as nested lists, ``[batch][class]``.
        batches: how many batches one call of ``train`` or ``infer`` takes.
    """

    train: Callable[[], float]
    infer: Callable[[], Any]
    lengths: Callable[[], list[list[float]]]
    batches: int = 1


@dataclass(frozen=True)
class Framework:
    """What a peer file offers.

    Attributes:
        name: of the framework.
        version: of the framework.
        script: the file that is run.
        variants: of each network; the first is the one that others are checked against.
        fast: of each network, those that are worth a look where time is short.
        build: ``build(network, variant, batch_size)``.
        multiply: ``multiply(n)`` multiplies two n x n float32 matrices.
        threads: how many it computes with.
        settings: environment variables of each setting.
    """

    name: str
    version: str
    script: str
    variants: dict[str, list[str]]
    fast: dict[str, list[str]]
    build: Callable[[str, str, int], Peer]
    multiply: Callable[[int], Callable[[], Any]]
    threads: Callable[[], int]
    settings: dict[str, dict[str, str]] = field(default_factory=dict)


def keep_freed_memory() -> None:
    """Ask glibc to reuse large freed blocks instead of faulting in fresh pages at each step."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((-3, 1 << 30), (-1, 2**31 - 1), (-2, 1 << 28)):  # mmap, trim, top pad
        mallopt(option, value)


class Worker:
    """A process that measures variants of one setting; leave its ``with`` block to end it.

    Args:
        python: interpreter of the environment.
        script: a peer's file.
        network: whose variants are measured.
        batch_size: of training and inference.
        environment: variables that the setting adds.
    """

    def __init__(
        self,
        python: str,
        script: str | Path,
        network: str,
        batch_size: int,
        environment: dict[str, str] | None = None,
    ):
        self._process = subprocess.Popen(
            [python, str(script), "--serve", "--network", network, "--batch-size", str(batch_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | (environment or {}),
            text=True,
        )
        self.about: dict[str, Any] = self._read()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()  # it has nothing to save
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def ask(self, variant: str, kind: str, seconds: float = 0.5) -> list[float]:
        """Rates of each call, in images a second (GFLOP/s of kind "matrix_product").

        Args:
            variant: without its setting; any of kind "matrix_product".
            kind: "train", "inference" or "matrix_product".
            seconds: for how long; once at least.

        Raises:
            RuntimeError: the variant cannot be built or run, or the process has ended.
        """
        assert self._process.stdin is not None
        request = {"variant": variant, "kind": kind, "seconds": seconds}
        rates: list[float] = self.request(request)["rates"]
        return rates

    def request(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to any request that the process understands.

        Raises:
            RuntimeError: it could not do it, or has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError("the worker has ended") from error
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def serve(framework: Framework, network: str, batch_size: int, lines: Iterable[str]) -> None:
    """Answer requests until there are no more, as the module's docstring says."""
    answers = private_output()
    keep_freed_memory()
    peers: dict[str, Peer] = {}

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    send({"name": framework.name, "version": framework.version, "threads": framework.threads()})
    for line in lines:
        request = json.loads(line)
        try:
            send({"rates": _measured(framework, network, batch_size, request, peers)})
        except Exception as error:  # a variant that one version lacks must not end the others
            send({"error": f"{type(error).__name__}: {str(error)[:300]}"})


def private_output() -> IO[str]:
    """Standard output for answers alone; what anything else prints goes to standard error."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _measured(
    framework: Framework,
    network: str,
    batch_size: int,
    request: dict[str, Any],
    peers: dict[str, Peer],
) -> list[float]:
    if request["kind"] == "matrix_product":
        size = 2048
        call = framework.multiply(size)
        call()
        return [2e-9 * size**3 / s for s in timed(call, request["seconds"])]
    variant = request["variant"]
    if variant not in peers:
        peer = framework.build(network, variant, batch_size)
        peer.train()  # compiles, and warms up
        peer.infer()
        peers[variant] = peer
    peer = peers[variant]
    call = peer.train if request["kind"] == "train" else peer.infer
    return [batch_size * peer.batches / s for s in timed(call, request["seconds"])]


def timed(call: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each call: for so long and three at least, after one that does not count.

    That one brings back what other processes have driven out of the caches and memory. For 0
    seconds there is one call, the first.
    """
    least = 3 if seconds else 1
    if seconds:
        call()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def calls(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of so many calls, which return when they are done."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def check(framework: Framework, network: str, names: list[str], batch_size: int) -> None:
    """All variants start with the same lengths and losses, and their losses fall on real digits."""
    names = [n for n in names if "@" not in n]  # a setting changes how, not what, is computed
    expected: tuple[list[float], float] | None = None
    for name in names:
        peer = framework.build(network, name, batch_size)
        lengths = [x for row in peer.lengths() for x in row]
        losses = [peer.train() for _ in range(-(-_CHECKED_STEPS // peer.batches))]
        print(f"{name}: loss {losses[0]:.6f} -> {losses[-1]:.6f}", flush=True)
        if losses[-1] >= 0.9 * losses[0]:
            raise AssertionError(f"{name}: the loss does not fall")
        if expected is None:
            expected = lengths, losses[0]
        off = max(abs(a - b) for a, b in zip(lengths, expected[0], strict=True))
        if off > _TOLERANCE:
            raise AssertionError(f"{name}: lengths are off by {off}")
        if peer.batches == 1 and abs(losses[0] / expected[1] - 1) > _TOLERANCE:
            raise AssertionError(f"{name}: the first loss is not {expected[1]}")
    print(f"{network}: {len(names)} variants agree, and every loss falls")


def run(
    framework: Framework, network: str, names: list[str], batch_size: int, seconds: float
) -> dict[str, Any]:
    """Measure variants in turn, several times over, and return the report."""
    load = os.getloadavg()[0]  # of other people's work: half-busy cores can cost a factor of 4
    workers: dict[str, Worker] = {}
    rates: dict[str, dict[str, list[float]]] = {n: {k: [] for k in KINDS} for n in names}
    failed: dict[str, str] = {}
    try:
        for name in names:
            setting = name.partition("@")[2]
            if setting not in workers:
                environment = framework.settings[setting] if setting else {}
                workers[setting] = Worker(
                    sys.executable, framework.script, network, batch_size, environment
                )
        about = workers[names[0].partition("@")[2]].about
        limit = statistics.median(next(iter(workers.values())).ask("", "matrix_product", 1))
        left = list(names)

        def ask(name: str, kind: str, seconds: float) -> None:
            variant, _, setting = name.partition("@")
            try:
                rates[name][kind] += workers[setting].ask(variant, kind, seconds)
            except RuntimeError as error:
                failed[name] = str(error)
                left.remove(name)
                print(f"{name} failed: {error}", file=sys.stderr)

        try:
            for name in names:  # builds it and warms it up
                ask(name, "inference", 0)
            end, rounds = time.perf_counter() + seconds * len(left), 0
            while left and (rounds < _LEAST_ROUNDS or time.perf_counter() < end):
                for name, kind in [(n, k) for n in left for k in KINDS]:
                    if name in left:
                        ask(name, kind, min(0.25, seconds))
                rounds += 1
        except KeyboardInterrupt:
            print("interrupted: this is what was measured", file=sys.stderr)
            left = [name for name in left if all(rates[name].values())]
    finally:
        for worker in workers.values():
            worker.close()
    if not left:
        sys.exit(f"{framework.name}: no variant of {network} could be run: {failed}")
    results = [
        _result(name, rates[name])
        | {"environment": framework.settings.get(name.partition("@")[2], {})}
        for name in left
    ]
    return {
        "framework": framework.name,
        "version": framework.version,
        "threads": about["threads"],
        "network": network,
        "batch_size": batch_size,
        "matmul_gflops": limit,
        "load_before": load,
        "variants": results,
        "failed": failed,
        "best": best(results),
    }


def _result(name: str, rates: dict[str, list[float]]) -> dict[str, Any]:
    result: dict[str, Any] = {"name": name, "steps": len(rates["train"])}
    for kind in KINDS:
        result[f"{kind}_images_per_second"] = statistics.median(rates[kind])
        result[f"{kind}_most"] = max(rates[kind])
    return result


def best(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest variant of each kind in float32, or of all where none is in float32."""
    full = [r for r in results if r["name"].partition("@")[2] != REDUCED] or results
    return {kind: max(full, key=lambda r: r[f"{kind}_images_per_second"]) for kind in KINDS}


def table(report: dict[str, Any]) -> str:
    """A report as Markdown: images a second, medians and in brackets the most."""
    lines = [
        f"{report['framework']} {report['version']}, {report['network']}, batch "
        f"{report['batch_size']}, {report['threads']} threads, matrix product "
        f"{report['matmul_gflops']:.0f} GFLOP/s, load before {report['load_before']:.1f}",
        "",
        "| variant | training | inference | steps |",
        "|---|---|---|---|",
    ]
    for r in sorted(report["variants"], key=lambda r: -r["train_images_per_second"]):
        cells = [f"{r[f'{k}_images_per_second']:.1f} ({r[f'{k}_most']:.1f})" for k in KINDS]
        lines.append(f"| {r['name']} | {cells[0]} | {cells[1]} | {r['steps']} |")
    lines += [f"| {name} | failed: {text} | | |" for name, text in report["failed"].items()]
    return "\n".join(lines)


def main(framework: Framework, doc: str) -> None:
    """The command line of a peer."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default=NETWORKS[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8, help="measuring time per variant")
    parser.add_argument("--variants", choices=["best", "all"], default="best")
    parser.add_argument("--only", metavar="NAME", action="append", help="may be given repeatedly")
    parser.add_argument("--list", action="store_true", help="print the names of all variants")
    parser.add_argument("--check", action="store_true", help="compare the variants, and stop")
    parser.add_argument("--table", action="store_true", help="measure all variants, print a table")
    parser.add_argument("--serve", action="store_true", help="measure what standard input asks for")
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch-size is {arguments.batch_size}, expected at least 1")
    known = framework.variants[arguments.network]
    if unknown := [name for name in arguments.only or [] if name not in known]:
        parser.error(f"--only is {unknown[0]!r}, expected a name that --list prints")
    if arguments.list:
        print("\n".join(known))
        return
    if arguments.serve:
        return serve(framework, arguments.network, arguments.batch_size, sys.stdin)
    fast = framework.fast[arguments.network]
    every = arguments.variants == "all" or arguments.table or arguments.check
    names = arguments.only or (known if every else fast)
    if arguments.check:
        return check(framework, arguments.network, names, min(arguments.batch_size, 16))
    report = run(framework, arguments.network, names, arguments.batch_size, arguments.seconds)
    print(table(report))
    if arguments.json:
        print(json.dumps(report))
