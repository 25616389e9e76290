"""The embedded store beside what else keeps vectors on this machine's disk.

    python benchmarks/store.py [--records 100000 1000000] [--repeats 5] [--peers mnemos lmdb]

Every peer runs in a process of its own, on one thread of one core, and is asked for one verb at a time, in
turn with the others, so that whatever else the machine does hits all of them alike. A peer that is not
installed, fails or takes too long is reported, and the rest go on. Times include the conversion from and
to NumPy arrays; every write, update and delete is one batch that the peer has acknowledged.
"""

import argparse
import collections
import datetime
import json
import os
import platform
import random
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

ONE = ("OMP", "MKL", "OPENBLAS", "RAYON", "POLARS_MAX", "NUMEXPR", "CHROMA")
ENVIRONMENT = {
    **os.environ,
    **{f"{name}_NUM_THREADS": "1" for name in ONE},
    "LANCE_IO_THREADS": "2",  # one is a deadlock; the worker's single core bounds it all the same
    "LANCE_CPU_THREADS": "2",
    "RUST_LOG": "error",
}
PEERS = {  # name: the distribution whose version is printed
    "mnemos": "mnemos",
    "faiss": "faiss-cpu",
    "sqlite": None,
    "lmdb": "lmdb",
    "lancedb": "lancedb",
    "qdrant-edge": "qdrant-edge-py",
    "chroma": "chromadb",
}
VERBS = {  # name: its column
    "write100": "write 100",
    "gather": "gather 1,000",
    "read1": "read 1",
    "read256": "read 256",
    "update": "update 1,000",
    "delete": "delete 1,000",
    "open": "open, gather 1",
    "open_read": "open, read 1",
}
IN_MEMORY = {"faiss"}  # only its reads are comparable
SILENCE = 300  # seconds
WIDTH, K, BATCH, SMALL, SOME = 128, 32, 10_000, 100, 1_000
SYNCS = "trace=fsync,fdatasync,msync,sync_file_range,syncfs"


class Worker:
    """A peer in its process; `ask` returns its answer or None, and None ever after once it has failed."""

    def __init__(self, name: str, folder: Path, keys: Path, traced: Path | None = None) -> None:
        self.name, self.fault, self._errors = name, "", folder / f"{name}.errors"
        command = [sys.executable, str(Path(__file__).resolve().with_name("store_peers.py"))]
        if traced is not None:
            command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", SYNCS, "-o", str(traced), *command]
        place = folder / name
        place.mkdir()
        self._process = subprocess.Popen(
            [*command, name, str(place), str(keys)],
            env=ENVIRONMENT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors.open("w"),
        )

    def ask(self, verb: str, *arguments: object) -> dict | None:
        """Asks for one verb and waits for its answer."""
        if self.fault:
            return None
        try:
            self._process.stdin.write(json.dumps([verb, *arguments]) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], SILENCE)[0]:
                self.stop(f"no answer to {verb!r} within {SILENCE} s")
                return None
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            lines = self._errors.read_text().strip().splitlines() or ["ended without a word"]
            self.stop(lines[-1][:200])
            return None

    def stop(self, fault: str = "") -> None:
        self.fault = fault or self.fault
        self._process.kill() if fault else self._process.stdin.close()
        self._process.wait()


def load(workers: list[Worker], records: int, limit: float) -> dict[str, list[float]]:
    """Writes all records in batches, every peer a tenth of them in turn; seconds per tenth."""
    seconds = collections.defaultdict(list)
    for start in range(0, records, records // 10):
        for worker in workers:
            answer = worker.ask("load", start, start + records // 10, BATCH)
            if answer is None:
                continue
            if worker.name in IN_MEMORY:
                continue
            seconds[worker.name].append(answer["seconds"])
            if sum(seconds[worker.name]) > limit:
                done = start + records // 10
                worker.stop(f"stopped: {limit:.0f} s were not enough to write {done:,} records")
    return seconds


def measure(workers: list[Worker], records: int, repeats: int, limit: float) -> dict:
    """Every verb by every peer in turn; the seconds of each call."""
    taken = collections.defaultdict(list)
    draw = random.Random(0)
    for turn in range(repeats):
        arguments = {
            "write100": (records + turn * SOME, records + (turn + 1) * SOME, SMALL),
            "gather": [draw.sample(range(records // 2), SOME) for _ in range(5)],
            "read1": (turn * 10, 10),
            "read256": (0, 256),
            "update": [draw.sample(range(records // 2), SOME)],
            "delete": [list(range(records - (turn + 1) * SOME, records - turn * SOME))],
            "open": [],
            "open_read": [],
        }
        for verb in VERBS:
            for worker in [*workers[turn % len(workers) :], *workers[: turn % len(workers)]]:
                times = taken[worker.name, verb]
                if worker.name in IN_MEMORY and not verb.startswith("read"):
                    continue
                if sum(times) < limit and (answer := worker.ask(verb, *arguments[verb])):
                    times.extend(answer["times"])
    return taken


def recalls(workers: list[Worker], records: int) -> dict[str, str]:
    """The share of the true 32 nearest that each peer finds, over 256 queries, after the load."""
    truth = workers[0].ask("truth", 256, records)["ids"]
    found = {}
    for worker in workers:
        if answer := worker.ask("found", 256):
            hits = sum(len(set(a) & set(b)) for a, b in zip(truth, answer["ids"], strict=True))
            found[worker.name] = f"{hits / (256 * K):.3f}"
    return found


def count_syncs(names: list[str], folder: Path, keys: Path) -> dict[str, str]:
    """How often a peer calls fsync or its like before it acknowledges a batch of 100: the mean over ten."""
    counted = {}
    for name in [name for name in names if name not in IN_MEMORY]:
        log = folder / f"{name}.syncs"
        place = folder / "syncs"
        place.mkdir(exist_ok=True)
        worker = Worker(name, place, keys, traced=log)
        worker.ask("load", 0, BATCH, BATCH)
        before = log.read_bytes().count(b"sync") if log.exists() else 0
        if worker.ask("write100", BATCH, BATCH + SOME, SMALL):
            counted[name] = f"{(log.read_bytes().count(b'sync') - before) / (SOME // SMALL):.1f}"
        worker.stop()
    return counted


def table(workers: list[Worker], records: int, loads: dict, taken: dict, found: dict, syncs: dict) -> str:
    """Medians in milliseconds, and in brackets how many times mnemos's."""
    head = ["", "load, 1,000/s", *VERBS.values(), "recall@32", "syncs a write"]
    rows = [head, ["---"] * len(head)]
    for worker in workers:
        name = worker.name
        row = [name, cell(loads[name], loads["mnemos"], lambda seconds: records / 1e4 / seconds)]
        row += [
            cell(taken[name, verb], taken["mnemos", verb], lambda seconds: 1e3 * seconds) for verb in VERBS
        ]
        rows.append([*row, found.get(name, "-"), syncs.get(name, "-")])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(times: list[float], own: list[float], shown: Callable[[float], float]) -> str:
    if not times:
        return "-"
    median = statistics.median(times)
    ratio = f" ({median / statistics.median(own):.2f})" if own else ""
    return f"{shown(median):.3g}{ratio}"


def header(names: list[str]) -> str:
    cpu = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0].strip("\t :")
    versions = [f"{name} {version(kept)}" for name in names if (kept := PEERS[name]) and installed(kept)]
    now = datetime.datetime.now(datetime.UTC)
    return (
        f"{now:%Y-%m-%d %H:%M} UTC; {cpu}, {os.cpu_count()} cores, load average "
        f"{', '.join(f'{part:.1f}' for part in os.getloadavg())}; {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; {', '.join(versions)}"
    )


def installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except ImportError:
        return False


def compare(names: list[str], records: int, options: argparse.Namespace, syncs: dict[str, str]) -> None:
    """One size: loads, checks, measures and prints."""
    with tempfile.TemporaryDirectory(dir=options.folder) as text:
        folder = Path(text)
        keys = make_keys(folder, records + options.repeats * SOME, options.seed)
        workers = [Worker(name, folder, keys) for name in names]
        loads = load(workers, records, options.load_seconds)
        found = recalls(workers, records)
        taken = measure(workers, records, options.repeats, options.verb_seconds)
        print(f"\n### {records:,} records\n\n{table(workers, records, loads, taken, found, syncs)}\n")
        for worker in workers:
            worker.stop()
            if worker.fault:
                print(f"- {worker.name}: {worker.fault}")
        print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}", flush=True)


def make_keys(folder: Path, records: int, seed: int) -> Path:
    """Standard normal keys as a file that every worker maps, with 256 queries before them."""
    import numpy as np

    path = folder / "keys.npy"
    keys = np.random.default_rng(seed).standard_normal((256 + records, WIDTH), np.float32)
    np.save(path, keys)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--folder", help="where the stores are made; the default is the temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load-seconds", type=float, default=120.0, help="most that a peer may load for")
    parser.add_argument("--verb-seconds", type=float, default=10.0, help="a verb is not repeated after that")
    options = parser.parse_args()
    names = ["mnemos", *(name for name in options.peers if name != "mnemos")]
    print(header(names), flush=True)
    syncs: dict[str, str] = {}
    if shutil.which("strace"):
        with tempfile.TemporaryDirectory(dir=options.folder) as text:
            folder = Path(text)
            syncs = count_syncs(names, folder, make_keys(folder, BATCH + SOME, options.seed))
    for records in options.records:
        compare(names, records, options, syncs)


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"\n{time.monotonic() - start:.0f} s in all")
