"""Mutation testing of the kernels: each mutant changes one operator, comparison or constant of a module.

    python tests/support/mutants.py kernels/reductions.py [--only 3 17]

The tests run for every mutant, in Python: the CPU's loop nests in the interpreter, those for CUDA in numba's simulator.
Signatures, dtypes and the instructions of loads have no effect there. `--modes compiled ptx` compiles the kernels for
each mutant, without numba's disk cache, since that ignores constants. "ptx" needs numba-cuda with its toolkit. A mutant
that no test fails with is printed; `tests/kernels/MUTANTS.md` lists those that compute the same.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import hashlib
import itertools
import json
import math
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest.mock
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from numba import config

ROOT = Path(__file__).resolve().parents[2]
TEST_SECONDS = 20  # of one test; a mutant may loop for ever
COMPILED_SECONDS = 300
MEMORY = 12 << 30
TESTED = [ROOT / "kernels", ROOT / "numba_fftmatvec" / "layout.py", ROOT / "numba_fftmatvec" / "precision.py"]
JIT, KERNELS, ENCODING, SBGEMV, CPU, TILES, PTX = (
    f"tests/kernels/test_{name}.py" for name in ("jit", "kernels", "encoding", "sbgemv", "sbgemv_cpu", "tiles", "ptx")
)
UNITS = ["tests/unit/test_layout.py", "tests/unit/test_precision.py"]


class Mode(NamedTuple):
    """How tests run: their environment, the arguments of pytest, and whether kernels are compiled."""

    environment: dict[str, str]
    tests: list[str]
    compiles: bool = False


# Two formats reach every line, and so do fewer than 16 vectors.
FEWER = ["-k", "not fixed32 and not complex64", *(f"--deselect={CPU}::test_sizes[{n}" for n in (5, 16, 17))]
MODES = {
    "interpreter": Mode({"FFTMATVEC_INTERPRET": "1"}, [JIT, KERNELS, ENCODING, SBGEMV, CPU, TILES, *UNITS, *FEWER]),
    "simulator": Mode({"NUMBA_ENABLE_CUDASIM": "1"}, [JIT, KERNELS, ENCODING, SBGEMV, *FEWER]),
    "compiled": Mode({}, [JIT, KERNELS, ENCODING, CPU, *FEWER], True),
    "ptx": Mode({"FFTMATVEC_REQUIRE_PTX": "1"}, [PTX, "-k", "not sm_80 and not sm_100"], True),
}
TABLES = {"specialisations", "cases"}  # of kernels for the tests of PTX

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
COMPARISONS: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.NotEq],
    ast.LtE: [ast.Lt, ast.Eq],
    ast.Gt: [ast.GtE, ast.NotEq],
    ast.GtE: [ast.Gt, ast.Eq],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
NAMES = {"min": "max", "max": "min", "floor": "ceil"}


class Mutant(NamedTuple):
    """A change of one node of a module's tree."""

    node: int  # in the order of `ast.walk`
    choice: int
    line: int
    function: str
    text: str


def alternatives(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the changed copies of a node."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        yield changed(node, op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node.operand
    elif isinstance(node, ast.Compare):
        for i, each in enumerate(node.ops):
            for other in COMPARISONS[type(each)]:
                yield changed(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield changed(node, value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield changed(node, value=node.value + 1)
        if isinstance(node.value, int) and node.value:
            yield changed(node, value=node.value - 1)
    elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield changed(node, id=NAMES[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield changed(node, attr=NAMES[node.attr])
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        yield changed(node, test=ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test))


def changed(node: Any, **fields: Any) -> ast.AST:
    """Return a shallow copy of a node with other fields."""
    result = copy.copy(node)
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def values(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield the nodes whose changes are mutants, with the name of their function; types and decorators are none."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
        if isinstance(node, ast.FunctionDef):
            function = f"{function}.{node.name}".lstrip(".")
            if node.name in TABLES:
                return
        yield node, function
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params") or isinstance(node, ast.Import):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, function)

    yield from visit(tree, "")


def mutants(source: str) -> list[Mutant]:
    """Return the mutants of a module."""
    found = []
    for i, (node, function) in enumerate(values(ast.parse(source))):
        for choice, other in enumerate(alternatives(node)):
            text = f"{ast.unparse(node)}  ->  {ast.unparse(other)}"
            if isinstance(node, ast.If | ast.IfExp | ast.While):
                text = f"{ast.unparse(node.test)}  ->  {ast.unparse(other.test)}"  # type: ignore[attr-defined]
            found.append(Mutant(i, choice, node.lineno, function, text))  # type: ignore[attr-defined]
    return found


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the tree of a mutant. Lines stay, since numba's simulator tells shared arrays apart by them."""
    tree = ast.parse(source)
    node, _ = list(values(tree))[mutant.node]
    other = list(alternatives(node))[mutant.choice]
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is node:
                setattr(parent, name, other)
            elif isinstance(value, list):
                setattr(parent, name, [other if each is node else each for each in value])
    return ast.fix_missing_locations(tree)


def statement(source: str, mutant: Mutant) -> range:
    """Return the lines of a mutant's statement; of a loop or a condition the head alone."""
    tree = ast.parse(source)
    node, _ = list(values(tree))[mutant.node]
    lines = range(0)
    for each in ast.walk(tree):
        if isinstance(each, ast.stmt) and any(inner is node for inner in ast.walk(each)):
            body = getattr(each, "body", [])
            end = each.end_lineno or each.lineno
            if body and not any(inner is node for child in body for inner in ast.walk(child)):
                end = max(each.lineno, body[0].lineno - 1)
            start = min([each.lineno, *(d.lineno for d in getattr(each, "decorator_list", []))])
            lines = range(start, end + 1)  # the walk goes inwards
    return lines


def replace_code(name: str, path: Path, tree: ast.Module) -> None:
    """Give the functions of an imported module the code of a mutant."""
    module = sys.modules[name]
    new = types.ModuleType(name)
    new.__dict__.update(__package__=module.__package__, __file__=str(path), __spec__=module.__spec__)
    with unittest.mock.patch.dict(sys.modules, {name: new}):  # dataclasses look their module up
        exec(compile(tree, str(path), "exec"), new.__dict__)

    def swap(old: Any, other: Any) -> None:
        if isinstance(old, type) and isinstance(other, type):
            for key, value in vars(other).items():
                swap(vars(old).get(key), value)
            return
        for part in ("__func__", "fget", "__wrapped__"):
            if hasattr(old, part) and hasattr(other, part):
                swap(getattr(old, part), getattr(other, part))
        if isinstance(old, types.FunctionType) and old.__module__ == name:
            for part in ("__code__", "__defaults__", "__kwdefaults__"):
                setattr(old, part, getattr(other, part))

    for key, value in vars(new).items():
        old = vars(module).get(key)
        swap(old, value)
        if isinstance(old, int | float | dict | tuple) and repr(old) != repr(value):
            for other in list(sys.modules.values()):
                if vars(other).get(key) is old and getattr(other, "__name__", "").startswith("numba_fftmatvec"):
                    setattr(other, key, value)


class Server:
    """A plugin of pytest that runs the collected tests for each mutant, each time in a fork of the process."""

    def __init__(self, path: Path, mode: Mode, wanted: list[int], jobs: int, limit: float) -> None:
        self.path, self.mode, self.wanted, self.jobs, self.limit = path, mode, wanted, jobs, limit
        self.source = path.read_text()
        self.found = mutants(self.source)
        self.pipe = -1
        self.of: dict[str, Any] = {}  # the seconds of each test, and the lines of each module that it runs
        self.killers: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """End the process at the first failure."""
        if report.failed:
            self.end(report.nodeid)

    def end(self, text: str) -> None:
        """Send a text, the name of a failed test, and end the process."""
        os.write(self.pipe, text.encode())
        os._exit(1)

    def run(self, session: Any, items: list[Any]) -> None:
        """Run tests until one fails; each has its time."""
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for item, following in itertools.zip_longest(items, items[1:]):
            signal.signal(signal.SIGALRM, lambda *_, name=item.nodeid: self.end(f"{name} (time)"))
            signal.alarm((COMPILED_SECONDS if self.mode.compiles else TEST_SECONDS) if self.of else 0)
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        signal.alarm(0)

    def fork(self, job: Any) -> tuple[int, int]:
        """Run a function in a fork; return the process and the pipe on which it writes."""
        read, write = os.pipe()
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            os.close(read)
            self.pipe = write
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            try:
                job()
            except BaseException as error:
                self.end(repr(error)[:200])
            os._exit(0)
        os.close(write)
        return child, read

    def test(self, session: Any, name: str, tree: ast.Module, items: list[Any]) -> None:
        """Run tests on a mutant."""
        config.CACHE_DIR = tempfile.mkdtemp()  # numba's disk cache ignores a mutant's constants
        replace_code(name, self.path, tree)
        self.run(session, items)

    def measure(self, session: Any) -> dict[str, Any]:
        """Run every test on the modules as they are: its time, and the lines of each module that it runs."""
        real = functools.cache(os.path.realpath)
        names = tuple(map(str, TESTED))
        found: dict[str, Any] = {}
        seen: dict[str, set[int]] = defaultdict(set)

        def trace(frame: Any, event: str, argument: Any) -> Any:
            name = real(frame.f_code.co_filename)
            if not name.startswith(names):
                return None
            seen[name].add(frame.f_lineno)
            return trace

        class Record:
            def pytest_runtest_logstart(self, nodeid: str) -> None:
                seen.clear()
                found[nodeid] = time.monotonic()

            def pytest_runtest_logfinish(self, nodeid: str) -> None:
                found[nodeid] = time.monotonic() - found[nodeid], {k: sorted(v) for k, v in seen.items()}

        def job() -> None:
            threading.settrace(trace)
            sys.settrace(trace)
            self.run(session, session.items)
            sys.settrace(None)
            with os.fdopen(self.pipe, "w") as out:
                out.write("\n" + json.dumps(found))
            os._exit(0)

        session.config.pluginmanager.register(Record())
        child, read = self.fork(job)
        with os.fdopen(read) as results:
            failed, _, text = results.read().partition("\n")
        os.waitpid(child, 0)
        if failed or not text:
            print(f"expected tests that pass, found a failure of {failed}", file=sys.__stderr__, flush=True)
            os._exit(1)
        return json.loads(text)  # type: ignore[no-any-return]

    def measured(self, session: Any) -> dict[str, Any]:
        """Return what `measure` returns, from a file if the sources are those of its last call."""
        digest = hashlib.sha256(repr(self.mode).encode())
        for file in sorted([*(ROOT / "kernels").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]):
            digest.update(file.read_bytes() if file != Path(__file__).resolve() else b"")
        cache = Path(tempfile.gettempdir()) / f"mutants-{digest.hexdigest()[:16]}.json"
        if not cache.exists():
            cache.write_text(json.dumps(self.measure(session)))
        return json.loads(cache.read_text())  # type: ignore[no-any-return]

    def tests_of(self, mutant: Mutant, items: list[Any]) -> list[Any]:
        """Return the tests that run the statement of a mutant, the most promising first."""
        wanted = set(statement(self.source, mutant))
        chosen = [item for item in items if wanted.intersection(self.of[item.nodeid][1].get(str(self.path), ()))]
        if not mutant.function:  # imports run these lines
            chosen = items[:]
        function = mutant.function

        def key(item: Any) -> tuple[int, bool, int]:
            name = item.nodeid
            others = f"test_{self.path.stem}" not in name
            return -self.killers[function, name], others, -self.killers["", name]

        random.Random(mutant.node).shuffle(chosen)
        chosen.sort(key=key)
        times = itertools.accumulate(self.of[item.nodeid][0] for item in chosen)
        return [item for item, time in zip(chosen, times, strict=True) if time <= self.limit or item is chosen[0]]

    def pytest_runtestloop(self, session: Any) -> bool:
        """Test every mutant; print its number, the test that fails and the seconds."""
        self.of = self.measured(session)
        name = next(n for n, m in list(sys.modules.items()) if self.is_module(n, m))
        waiting, running = list(self.wanted), {}
        while waiting or running:
            while waiting and len(running) < self.jobs:
                index = waiting.pop(0)
                tree = mutated(self.source, self.found[index])
                items = self.tests_of(self.found[index], session.items)
                child, read = self.fork(functools.partial(self.test, session, name, tree, items))
                running[read] = child, index, time.monotonic()
            for read in select.select(list(running), [], [])[0]:
                child, index, start = running.pop(read)
                killer = os.read(read, 1000).decode()
                os.close(read)
                _, status = os.waitpid(child, 0)
                killer = killer or (f"status {status}" if status else "")
                for function in {"", self.found[index].function}:
                    self.killers[function, killer.partition(" (")[0]] += 1
                print(json.dumps([index, killer, round(time.monotonic() - start, 1)]), file=sys.__stderr__, flush=True)
        return True

    def is_module(self, name: str, module: Any) -> bool:
        """Whether an imported module is the one that is changed."""
        file = getattr(module, "__file__", None)
        return name.startswith("numba_fftmatvec") and file is not None and os.path.realpath(file) == str(self.path)


def serve(path: Path, mode: Mode, *options: Any) -> None:
    """Run tests for mutants."""
    import pytest

    pytest.main(["-q", "-p", "no:cacheprovider", "-s", *mode.tests], plugins=[Server(path, mode, *options)])


def modes_of(path: Path, mutant: Mutant) -> list[str]:
    """Return the modes whose tests may reach a mutant."""
    if "kernels" not in path.parts:
        return ["interpreter"]
    outer = mutant.function.split(".")[0]
    for mode, modules, prefix, suffix in (
        ("interpreter", ["cpu"], "-", "_cpu"),
        ("simulator", ["cuda", "gemm", "gemv", "pairs"], "_launch_", "_cuda"),
    ):
        if path.stem in modules or outer.startswith(prefix) or outer.endswith(suffix):
            return [mode, *(each for each in MODES if MODES[each].compiles)]
    return list(MODES)


def main() -> None:
    """Print the mutants of a module that survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", type=Path)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutants")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=math.inf, help="of the tests of one mutant")
    parser.add_argument("--modes", choices=MODES, nargs="*", default=["interpreter", "simulator"])
    parser.add_argument("--tests", nargs="*", help="files, instead of those of the mode")
    parser.add_argument("--serve", choices=MODES)
    options = parser.parse_args()
    path = options.module.resolve()
    if options.serve:
        mode = MODES[options.serve]
        mode = mode._replace(tests=[*options.tests, *FEWER] if options.tests else mode.tests)
        serve(path, mode, options.only, options.jobs, options.seconds)
        return
    found = mutants(path.read_text())
    alive = list(range(len(found))) if options.only is None else options.only
    total = len(alive)
    for mode in options.modes:
        wanted = [i for i in alive if mode in modes_of(path, found[i])]
        command = [sys.executable, __file__, str(path), "--serve", mode, "--jobs", str(options.jobs)]
        if not wanted:
            continue
        environment = os.environ | MODES[mode].environment
        command += [*(["--tests", *options.tests] if options.tests else [])]
        command += ["--seconds", str(options.seconds), "--only", *map(str, wanted)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        ) as server:
            for line in server.stderr or []:
                if not line.startswith("["):
                    sys.exit(line)
                index, killer, seconds = json.loads(line)
                if killer:
                    alive.remove(index)
                print(f"{mode} {index} {killer or 'ALIVE'} {seconds} s", file=sys.stderr, flush=True)
    for i in alive:
        print(f"{options.module}:{found[i].line} [{i}] {found[i].function}: {found[i].text}")
    print(f"{options.module}: {total} mutants, {len(alive)} alive")


if __name__ == "__main__":
    main()
