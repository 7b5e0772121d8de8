"""Looks into a file of a model, in a process of its own: what is hostile may crash or eat that process, and no other.

    python -m flip_files.inspection FRAMEWORK PATH FILE

prints what was found as JSON. PATH is the file's path in its app, FILE where it lies. Nothing of a file is run.
"""

import ast
import asyncio
import resource
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from flip_contracts.apps import CONFIG, PYPROJECT, AppConfigInvalid, FileName, read_app_config, read_pyproject
from flip_contracts.files import AppConfiguration, ConfigurationProblem, Finding
from flip_contracts.projects import Framework
from picklescan.scanner import SafetyLevel, scan_file_path

from flip_files.findings import Inspection

_LONGEST_TEXT_BYTES = 1 << 20
_MOST_MEMORY_BYTES, _MOST_CPU_S, _PATIENCE_S = 2 << 30, 120, 300
_MOST_FINDINGS, _MOST_PROBLEMS, _LONGEST_DETAIL = 100, 50, 300

_PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".npy"})
_ZIPPED_PICKLES = frozenset({".pt", ".pth", ".ckpt", ".bin"})
_PROTOCOL = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ZIP = b"PK\x03\x04"
_ARCHIVES = (
    *(_ZIP, b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"),
    *(b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd"),
)
_TAR_AT, _TAR = 257, b"ustar"

_CALLS = frozenset(
    {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.fork", "os.kill", "shutil.rmtree"}
    | {f"os.{kind}{how}" for kind in ("exec", "spawn") for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
    | {f"{module}.{name}" for module in ("pickle", "marshal", "dill", "joblib") for name in ("load", "loads")}
)
_MODULES = frozenset({"subprocess", "socket", "ctypes", "pty", "requests", "urllib.request", "http.client", "ftplib"})


async def inspect_apart(framework: Framework, path: FileName, file: Path) -> Inspection:
    """Inspect in a process of its own. A file that brings that process down is refused."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, framework, path, str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            told, _ = await process.communicate()
    except TimeoutError:
        return Inspection(refused="inspection-failed", detail="It took too long.")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        return Inspection(refused="inspection-failed", detail="It could not be read.")
    return Inspection.model_validate_json(told)


def inspect(framework: Framework, path: FileName, file: Path) -> Inspection:
    """What `file`, whose path in the app is `path`, is found to be."""
    with file.open("rb") as stream:
        start = stream.read(_TAR_AT + len(_TAR))
    ending = PurePosixPath(path).suffix.lower()
    is_zip = start.startswith(_ZIP)
    if _is_archive(start) and not (is_zip and ending in _ZIPPED_PICKLES):
        return Inspection(refused="archive-not-allowed", detail="Upload the files that are in it.")
    if ending in _PICKLES or start.startswith(_PROTOCOL):
        return _inspect_pickle(file)
    if ending != ".py" and path not in {CONFIG, PYPROJECT}:
        return Inspection()
    if file.stat().st_size > _LONGEST_TEXT_BYTES:
        return Inspection(refused="text-too-large", detail="At most 1 MiB of source or configuration.")
    content = file.read_bytes()
    if ending == ".py":
        return _inspect_python(content)
    return Inspection(configuration=_configuration(framework, path, content))


def _is_archive(start: bytes) -> bool:
    return start.startswith(_ARCHIVES) or start[_TAR_AT:] == _TAR


# --- pickles ------------------------------------------------------------------------------------------------------


def _inspect_pickle(file: Path) -> Inspection:
    """A pickle may name what tensors are made of, and nothing else."""
    scanned = scan_file_path(str(file))
    if scanned.scan_err:
        return Inspection(refused="pickle-not-readable", detail="It is not a pickle that can be checked.")
    unsafe = sorted({f"{each.module}.{each.name}" for each in scanned.globals if each.safety != SafetyLevel.Innocuous})
    if unsafe:
        return Inspection(refused="pickle-unsafe", detail=_short(f"It calls for {', '.join(unsafe)}."))
    return Inspection()


# --- Python -------------------------------------------------------------------------------------------------------


def _inspect_python(source: bytes) -> Inspection:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except SyntaxError as error:
        return Inspection(refused="python-syntax-error", detail=f"Line {error.lineno or 1}.")
    except (RecursionError, MemoryError, ValueError):
        return Inspection(refused="python-not-readable", detail="It is nested too deep, or no text.")
    findings = sorted(set(_findings(tree)))
    return Inspection(findings=[Finding(line=line, name=name) for line, name in findings[:_MOST_FINDINGS]])


def _findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        for module, line in _imported(node, known):
            if found := next((each for each in _MODULES if f"{module}.".startswith(f"{each}.")), None):
                yield line, found
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _called(node.func, known)) in _CALLS:
            yield node.lineno, name


def _imported(node: ast.AST, known: dict[str, str]) -> Iterator[tuple[str, int]]:
    """The modules that a statement imports; `known` learns what each name then stands for."""
    match node:
        case ast.Import(names=names):
            for each in names:
                package = each.name.partition(".")[0]
                known[each.asname or package] = each.name if each.asname else package
                yield each.name, node.lineno
        case ast.ImportFrom(module=str(module), names=names, level=0):
            for each in names:
                known[each.asname or each.name] = f"{module}.{each.name}"
                yield f"{module}.{each.name}", node.lineno
        case _:
            return


def _called(function: ast.expr, known: dict[str, str]) -> str:
    """What a call calls, by its full name, as far as that stands there."""
    match function:
        case ast.Name(id=name):
            return known.get(name, name).removeprefix("builtins.")
        case ast.Attribute(value=value, attr=name):
            return f"{_called(value, known)}.{name}".removeprefix("builtins.")
        case _:
            return ""


# --- configuration ------------------------------------------------------------------------------------------------


def _configuration(framework: Framework, path: FileName, content: bytes) -> AppConfiguration | None:
    """What the file configures; None for one that the framework does not read."""
    try:
        if framework == "nvflare" and path == CONFIG:
            return AppConfiguration(aggregation_weights=dict(read_app_config(content).aggregation_weights))
        if framework == "flower" and path == PYPROJECT:
            app = read_pyproject(content)
            rounds = app.config  # raises where they are wrong
            return AppConfiguration(
                aggregation_weights=dict(rounds.aggregation_weights),
                client_file=app.client_file,
                server_file=app.server_file,
            )
    except AppConfigInvalid as invalid:
        return AppConfiguration(
            problems=[
                ConfigurationProblem(field=_short(each.field), detail=_short(each.detail))
                for each in invalid.problems[:_MOST_PROBLEMS]
            ]
        )
    return None


def _short(text: str) -> str:
    return text[:_LONGEST_DETAIL]


def main() -> None:
    """Inspect one file, with limits on what it may cost."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_S, _MOST_CPU_S))
    framework, path, file = sys.argv[1:]
    told = inspect("flower" if framework == "flower" else "nvflare", path, Path(file))
    sys.stdout.write(told.model_dump_json())


if __name__ == "__main__":
    main()
