"""`raftctl schema`: what the output for programs is made of."""

from __future__ import annotations

import difflib
import json
import sys
from typing import TYPE_CHECKING

import click

from raftctl.cli import Context, pass_context
from raftctl.errors import UsageProblem

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _names(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from raftctl.documents import schema, schema_names

    del context, parameter
    return [
        CompletionItem(name, help=schema(name)["title"])
        for name in schema_names()
        if name.startswith(incomplete)
    ]


@click.command()
@click.argument("name", required=False, metavar="[NAME]", shell_complete=_names)
@pass_context
def schema(context: Context, name: str | None) -> None:
    """List the schemas of the output for programs, or print one.

    Each document that a command prints with `-o json` or `-o yaml` obeys a JSON Schema (draft
    2020-12), which describes every field. A printed schema refers to nothing outside of itself.
    Fields are added in later releases; none is renamed or removed.

    \b
    Examples:
      raftctl schema
      raftctl schema status
      raftctl schema status > status.schema.json
    """
    from raftctl.documents import bundled, commands_of, schema_names
    from raftctl.documents import schema as schema_of

    names = schema_names()
    if name is None:
        found = {each: schema_of(each) for each in names}
        rows = [(each, found[each]["title"], commands_of(found[each])) for each in names]
        _print_list(context, rows)
    elif name not in names:
        raise _unknown(context, name, names)
    elif context.output == "yaml":
        context.print_document(bundled(name))
    else:
        click.echo(json.dumps(bundled(name), ensure_ascii=False, indent=2))


def _print_list(context: Context, rows: list[tuple[str, str, list[str]]]) -> None:
    if context.structured:
        schemas = [
            {"name": name, "title": title, "commands": commands} for name, title, commands in rows
        ]
        context.print_document({"schemas": schemas})
        return
    from raftctl.render import table, terminal_width

    width = None if context.output == "wide" else terminal_width(sys.stdout)
    cells = [(name, title, _printed_by(commands)) for name, title, commands in rows]
    click.echo(table(("NAME", "DESCRIBES", "PRINTED BY"), cells, width=width))


def _printed_by(commands: list[str]) -> str:
    from raftctl.documents import EVERY_COMMAND

    if commands == [EVERY_COMMAND]:
        return "every command that fails"
    return ", ".join(command.removeprefix("raftctl ") for command in commands)


def _unknown(context: Context, name: str, names: list[str]) -> UsageProblem:
    from raftctl.render import printable

    close = difflib.get_close_matches(name, names, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return UsageProblem(
        f"there is no schema {printable(name)}",
        code="unknown-name",
        cause=f"raftctl has {len(names)} of them{meant}",
        hint=context.command(f"schema {close[0]}" if close else "schema"),
    )
