"""The direction of dependencies, and sizes that a reader can take in."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 80
SOURCES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in ("raftd", "raftctl")
    for file in sorted((ROOT / package).rglob("*.py"))
}
MODULES = sorted(SOURCES)
CORE_STANDARD_LIBRARY_BANNED = {"time", "os", "socket", "asyncio", "threading"}
CONFIGURATION = (
    *("raftd.config", "raftd.config_rules", "raftd.config_values", "raftd.config_yaml"),
    *("raftd.certificate_files",),
)
ALLOWED = {
    "raftd.core": ("raftd.core",),
    "raftd.storage": (
        *("raftd.core", "raftd.records", "raftd.commands", "raftd.transactions", "raftd.storage"),
        *("raftd.config_values",),  # what a name is
    ),
    "raftd.network": (
        *("raftd.core", "raftd.records", "raftd.commands", "raftd.transactions"),
        "raftd.event_log",  # how something is told
        *("raftd.protocol", "raftd.codec", "raftd.inputs", "raftd.network"),
        *("raftd.tls", "raftd.roles", "raftd.passwords"),
    ),
    "raftd.roles": ("raftd.protocol", "raftd.tls"),
    "raftd.cluster_status": (
        *("raftd.cluster_status", "raftd.protocol", "raftd.commands", "raftd.certificate_files"),
        *("raftd.core.availability", "raftd.core.quorum", "raftd.core.types"),
    ),
    "raftd.codec": ("raftd.core", "raftd.records", "raftd.commands", "raftd.protocol"),
    "raftd.config": CONFIGURATION,
    "raftd.config_rules": ("raftd.config_values",),
    "raftd.certificate_files": (),
    "raftd.tls": ("raftd.certificate_files",),
    "raftd.passwords": ("raftd.tls",),
    "raftd.config_values": (),
    "raftd.config_yaml": CONFIGURATION,
    "raftd.client": (
        *("raftd.client", "raftd.protocol", "raftd.codec", "raftd.commands"),
        *("raftd.config_values", "raftd.core.types", "raftd.records", "raftd.transactions"),
        *("raftd.tls", "raftd.certificate_files"),
    ),
    "raftd": ("raftd",),
    "raftctl": (
        *("raftctl", "raftd.client", "raftd.protocol", "raftd.codec", "raftd.commands"),
        *("raftd.transactions",),
        *CONFIGURATION,
        *("raftd.cluster_status",),  # what the answers of the servers say, for raftd as well
        *("raftd.core.availability", "raftd.core.quorum", "raftd.core.types"),
        *("raftd.offline",),  # a data directory or a backup, read and never written
        *("raftd.tls",),  # how servers show who they are, and raftctl itself
        *("raftd.salvage", "raftd.storage.files"),  # what a recovery does with directories
    ),
}
"""What each part may import of ours; the most specific line holds."""


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def imports(module: str, *, at_load: bool = False) -> set[str]:
    """Return what `module` imports; `at_load`: only what is imported when it is loaded."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(SOURCES[module].read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            source = node.module or ""
            # `from raftd import codec` imports a module, `from raftd import __version__` does not.
            members = {f"{source}.{alias.name}" for alias in node.names} & SOURCES.keys()
            found |= members or {source}
        is_lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (at_load and (is_lazy or is_for_types)):
            nodes += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module):
    part = max((part for part in ALLOWED if is_within(module, part)), key=len)
    for imported in imports(module):
        if imported.split(".")[0] not in ("raftd", "raftctl"):
            continue
        version_only = part in ("raftctl", "raftd.network") and imported == "raftd"
        allowed = any(is_within(imported, package) for package in ALLOWED[part])
        assert allowed or version_only, f"{module} imports {imported}"


@pytest.mark.parametrize("module", [name for name in MODULES if is_within(name, "raftd.core")])
def test_the_core_knows_no_clock_disk_network_or_runtime(module):
    for imported in imports(module):
        top = imported.split(".")[0]
        assert top not in CORE_STANDARD_LIBRARY_BANNED, f"{module} imports {imported}"
        assert top in {*sys.stdlib_module_names, "attrs", "raftd"}, f"{module} imports {imported}"


def test_the_modules_import_each_other_without_a_cycle():
    # A package's own imports happen before those of its modules, so it is a node like any other.
    graph = {module: imports(module, at_load=True) & SOURCES.keys() for module in MODULES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short_enough_to_read(module):
    text = SOURCES[module].read_text()
    assert text.count("\n") <= FILE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def test_nothing_is_left_for_later():
    word = r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"
    for file in [*SOURCES.values(), *(ROOT / "configs").rglob("*.yaml")]:
        assert not re.search(word, file.read_text()), file
    for file in (ROOT / "tests").rglob("*.py"):
        # What a test puts into quotes may be anything.
        assert not re.search(f"# .*{word}", file.read_text()), file


def test_every_part_with_a_rule_exists():
    assert [part for part in ALLOWED if part not in SOURCES] == []
