"""The schemas of the output for programs: complete, described, and what `raftctl schema` prints.

Whether the documents obey them is checked wherever a test makes raftctl print one: see
`tests/raftctl/documented.py`, and for real servers `tests/cluster/test_documents.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from raftctl.cli import main
from raftctl.documents import EVERY_COMMAND, bundled, commands_of, schema, schema_names
from raftd.config import load
from raftd.protocol import OperationsReply, OperationView, Request, StatusRequest
from tests.raftctl.documented import closed, problem_of, schemas_of
from tests.raftctl.every_command import every_action, every_command
from tests.raftctl.speaking_servers import (
    Answer,
    SpeakingServer,
    closed_address,
    configuration,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")

WITHOUT_DOCUMENT = {
    "completion": "a script for a shell, whatever is asked for",
}
CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = schema_names()


def objects(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the schema of every object with fields in a schema."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from objects(item, f"{place}/{number}")
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield place, node
        for key, value in node.items():
            yield from objects(value, f"{place}/{key}")


# --- the files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_of_draft_2020_12_that_needs_nothing_else(name: str) -> None:
    whole = bundled(name)
    Draft202012Validator.check_schema(whole)
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert whole["$id"] == f"urn:raftctl:schema:{name}"
    # A reference that leads nowhere would raise.
    list(Draft202012Validator(whole).iter_errors({"error": {}}))


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_describes_each_field_in_a_sentence(name: str) -> None:
    found = schema(name)
    assert found["description"].endswith(".")
    assert not found["title"].endswith(".")
    silent = [
        f"{place}: {field}"
        for place, each in objects(found, name)
        for field, described in each["properties"].items()
        if not described.get("description", "").endswith(".")
    ]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_says_what_is_always_there_and_forbids_nothing(name: str) -> None:
    for place, each in objects(schema(name), name):
        assert set(each.get("required", [])) <= each["properties"].keys(), place
        assert each["required"] or name == "cluster-file", place
        assert each.get("additionalProperties", True) is True, place
        assert "unevaluatedProperties" not in each, place


def test_every_schema_is_used() -> None:
    reachable = {name for name in NAMES if commands_of(schema(name))}
    for name in list(reachable):
        reachable |= bundled(name).get("$defs", {}).keys()
    assert reachable == set(NAMES)


# --- the commands -----------------------------------------------------------------------------


def test_every_command_that_prints_documents_has_a_schema() -> None:
    lacking = [
        words
        for words, _ in every_action()
        if words not in WITHOUT_DOCUMENT and not schemas_of(f"raftctl {words}")
    ]
    assert lacking == []


def test_every_schema_names_commands_that_exist() -> None:
    known = {f"raftctl {words}" for words, _ in every_command()} | {EVERY_COMMAND}
    unknown = {name: set(commands_of(schema(name))) - known for name in NAMES}
    assert {name: commands for name, commands in unknown.items() if commands} == {}


def test_a_field_that_no_schema_describes_is_found() -> None:
    document = {"key": "k", "revision": 3, "applied": True}
    assert problem_of(document, "raftctl put") == ""
    assert "surplus" in problem_of(document | {"surplus": 1}, "raftctl put")
    assert "'revision' is a required property" in problem_of(
        {"key": "k", "applied": True}, "raftctl put"
    )
    assert "not of type" in problem_of(document | {"revision": "3"}, "raftctl put")
    deep = {"schemas": [{"name": "x", "title": "y", "commands": [], "surplus": 1}]}
    assert "surplus" in problem_of(deep, "raftctl schema")


def test_users_may_be_given_more_fields_than_they_know() -> None:
    document = {"key": "k", "revision": 3, "applied": True, "of a later release": 1}
    assert list(Draft202012Validator(bundled("write")).iter_errors(document)) == []


# --- raftctl schema ---------------------------------------------------------------------------


def test_schema_lists_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "-o", "json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["schemas"]}
    assert list(listed) == NAMES
    assert listed["status"]["commands"] == ["raftctl status", "raftctl wait"]
    assert main(["schema"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["NAME", "DESCRIBES", "PRINTED", "BY"]
    assert [line.split()[0] for line in text.splitlines()[1:]] == NAMES


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_schema_prints_one_with_all_that_it_refers_to(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", "operations", "-o", form]) == 0
    printed = capsys.readouterr().out
    found = yaml.safe_load(printed) if form == "yaml" else json.loads(printed)
    assert found == bundled("operations")
    assert {"operation", "phase", "majority", "rolling-record", "rolling-step"} <= set(
        found["$defs"]
    )


def test_an_unknown_schema_is_refused_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["schema", "statsu"]) == 2
    assert "did you mean status?" in capsys.readouterr().err


# --- YAML -------------------------------------------------------------------------------------


def leader(server: SpeakingServer) -> None:
    """Let `server` answer as the leader of a cluster with one operation on record."""

    def answer(request: Request) -> Answer:
        if isinstance(request, StatusRequest):
            return status_of(server, role="leader", view=configuration(server))
        return OperationsReply(operations=(OperationView(record=operation_record("joint")),))

    server.answer = answer


@pytest.mark.parametrize(
    "words", ["operation list", "operation show op-1", "config export", "config validate FILE"]
)
def test_yaml_is_the_same_document(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking_servers("n1/a") as (server,):
        leader(server)
        file = tmp_path / "orders.yaml"
        file.write_text(f"cluster: orders\nservers:\n  n1: {{address: {server.address}}}\n")
        command = ["-c", str(file), *words.replace("FILE", str(file)).split()]
        assert main([*command, "-o", "json"]) == 0
        as_json = capsys.readouterr().out
        assert main([*command, "-o", "yaml"]) == 0
        as_yaml = capsys.readouterr().out
    assert yaml.safe_load(as_yaml) == json.loads(as_json)
    assert problem_of(yaml.safe_load(as_yaml), f"raftctl {' '.join(words.split()[:2])}") == ""


def test_an_error_is_a_document_for_programs_that_asked_for_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["status", "--check", "--watch", "-e", closed_address()]
    assert main([*words, "-o", "json"]) == 2
    assert problem_of(json.loads(capsys.readouterr().err)) == ""
    assert main([*words, "-o", "yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


# --- the cluster file -------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_the_shipped_cluster_files_obey_the_schema_of_cluster_files(file: Path) -> None:
    load(file)
    assert [
        str(error) for error in closed("cluster-file").iter_errors(yaml.safe_load(file.read_text()))
    ] == []


@pytest.mark.parametrize(
    "text",
    [
        "servers: {n1: {address: 127.0.0.1:7101}}",
        "cluster: orders\nservers: {}",
        "cluster: Orders\nservers: {n1: {address: 127.0.0.1:7101}}",
        "cluster: orders\nservers: {n1: {}}",
        "cluster: orders\ndefaults: {heartbeat_interval: 50}\nservers: {n1: {address: h:1}}",
        "cluster: orders\nservers: {n1: {address: 127.0.0.1:7101, role: leader}}",
    ],
)
def test_a_cluster_file_that_is_refused_does_not_obey_it_either(text: str) -> None:
    assert list(Draft202012Validator(bundled("cluster-file")).iter_errors(yaml.safe_load(text)))
