"""recover inspect, plan, apply, verify: a cluster goes on after it has lost a majority for good.

Two steps change something, and both leave everything that was there: `apply` writes a backup of the
most complete log and sets the data directories aside, `restore` makes a new cluster of it.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
from pathlib import Path

import click

from raftctl.byte_progress import ByteProgress
from raftctl.cli import CommandGroup, Context, pass_context
from raftctl.errors import EXIT_DONE, EXIT_FAILED, CliError, Interrupted, Refused, UsageProblem
from raftctl.recovering import (
    Assessment,
    assess,
    consequence_lines,
    document,
    named,
    obstacle,
    quorum_lines,
    table_text,
)
from raftctl.render import number, terminal_width
from raftd.cluster_status.words import size
from raftd.core.types import server_name

LABEL_COLUMNS = 19
TEXT_COLUMNS = 100
"""Where there is no terminal to fill."""

_directories = click.argument(
    "directories",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="DATA_DIR...",
)


@click.group(cls=CommandGroup)
def recover() -> None:
    """Go on after the loss of a majority, from the data directories that are left.

    Only when the lost servers are gone for good: with a majority that can be started nothing is
    lost at all. In this order: inspect what is left, plan, apply, restore, verify.

    \b
    Examples:
      raftctl recover inspect data/n1 data/n4
      raftctl recover plan data/n1 data/n4
      raftctl recover apply data/n1 data/n4 --backup orders-recovered.backup
      raftctl recover verify orders-recovered.backup
    """


@recover.command()
@_directories
@pass_context
def inspect(context: Context, directories: tuple[Path, ...]) -> None:
    """Show what the data directories hold, and which of them has the most complete log.

    Changes nothing. The servers that the directories and the cluster file know are asked whether
    they are alive.

    \b
    Example:
      raftctl recover inspect data/n1 data/n4
    """
    assessment = _assess(context, directories)
    if context.structured:
        context.print_document(document(assessment))
        return
    click.echo(_head(assessment))
    click.echo(table_text(assessment, width=_width(context)))
    for line in (*quorum_lines(assessment), *assessment.alive):
        click.echo(line)


@recover.command()
@_directories
@pass_context
def plan(context: Context, directories: tuple[Path, ...]) -> int:
    """Show what a recovery from these data directories would keep, decide and lose.

    Changes nothing. Name every data directory that is left: what is not named is lost. Exits with 1
    if nothing may be recovered: a majority is left, a server of the cluster answers, or no
    directory can be used.

    \b
    Example:
      raftctl recover plan data/n1 data/n4
    """
    assessment = _assess(context, directories)
    problem = obstacle(assessment)
    if context.structured:
        context.print_document(document(assessment))
        return EXIT_FAILED if problem else EXIT_DONE
    click.echo(_plan_text(context, assessment))
    if problem:
        raise _refusal(context, assessment, problem)
    click.echo(f"\nto do it: {_apply_command(context, directories)}")
    return EXIT_DONE


@recover.command()
@_directories
@click.option(
    "--backup",
    "backup_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The backup to write. Default: CLUSTER-recovered.backup in this folder.",
)
@pass_context
def apply(context: Context, directories: tuple[Path, ...], backup_file: Path | None) -> None:
    """Write a backup of the most complete log, and set the data directories aside.

    Asks for the name of the cluster first. Nothing is deleted: a directory is renamed to
    NAME.before-recovery-1, and a server that is started for its old name is blank. `raftctl
    restore` then makes a new cluster of the backup, under an id of its own, so that no server of
    the old cluster can ever take part in it. Refuses while a server of the old cluster answers.
    An interrupted apply is finished by repeating it.

    \b
    Example:
      raftctl recover apply data/n1 data/n4 --backup orders-recovered.backup
    """
    look = context.command(shlex.join(["recover", "plan", *map(str, directories)]))
    context.require_answerable(f"{look}\n{context.again('--yes')}")
    assessment = _assess(context, directories)
    problem = obstacle(assessment)
    if problem:
        raise _refusal(context, assessment, problem)
    target = backup_file or Path(f"{assessment.cluster_name}-recovered.backup")
    if not target.absolute().parent.is_dir():
        raise UsageProblem(
            f"there is no folder for {target}",
            cause="the backup is written beside the other files there; nothing was changed",
            hint=f"`mkdir -p {shlex.quote(str(target.absolute().parent))}`, then repeat\n"
            f"{context.again()}",
        )
    if not context.yes:
        click.echo(_plan_text(context, assessment), err=True)
        _confirm_name(assessment)
    _do(context, assessment, target.absolute())


def _confirm_name(assessment: Assessment) -> None:
    """Let the operator type the name of the cluster; a yes is typed too quickly."""
    name = assessment.cluster_name
    typed = click.prompt(
        f"What is lost is lost for good. Type the name of the cluster ({name}) to go on",
        default="",
        show_default=False,
        err=True,
    )
    if typed.strip() != name:
        raise Refused(
            "not done: that is not the name of the cluster",
            code="declined",
            cause=f"it is {name}; nothing was changed",
            hint="raftctl recover plan DATA_DIR... shows again what it would mean",
        )


def _refuse_target(context: Context, assessment: Assessment, target: Path) -> bool:
    """Return whether the backup is there already, made by an apply that was interrupted.

    Raises:
        UsageProblem: something else is there, or it would be set aside with a directory.
    """
    assert assessment.chosen is not None, "nothing stands in the way"
    for survivor in assessment.survivors:
        if target.resolve().is_relative_to(survivor.path.resolve()):
            raise UsageProblem(
                f"{target} lies in a data directory",
                cause=f"{survivor.path} is set aside with all that is in it; nothing was changed",
                hint=context.command("recover apply DATA_DIR... --backup FILE"),
            )
    if not target.exists():
        return False
    from raftd.offline import UnusableBackup, verify_backup

    try:
        found = verify_backup(target)
    except UnusableBackup:
        found = None
    end = (found.id.last_included_term, found.id.last_included_index) if found else None
    if found and found.cluster_id == assessment.cluster_id and end == assessment.chosen.end:
        return True
    raise UsageProblem(
        f"{target} is there already",
        code="exists",
        cause="it is not the backup that this would write, and is not replaced; nothing was "
        "changed",
        hint=context.command("recover apply DATA_DIR... --backup FILE"),
    )


def _do(context: Context, assessment: Assessment, target: Path) -> None:
    from raftd.salvage import DirectoryInUse, discard, locked, salvage, set_aside
    from raftd.storage.files import StorageFault

    assert assessment.chosen is not None, "nothing stands in the way"
    is_there = _refuse_target(context, assessment, target)
    progress = ByteProgress(context)
    chosen = assessment.chosen
    usable = [s for s in assessment.survivors if s.found is not None and not s.problem]
    aside: list[tuple[str, Path]] = []
    try:
        with locked(survivor.path for survivor in usable):
            discard(target)
            if not is_there:
                salvage(chosen.path, target, _shown_by(progress))
            progress.close()
            # The chosen one last: as long as it is there, an apply that is repeated finds it.
            for survivor in sorted(usable, key=lambda survivor: survivor is chosen):
                aside.append((server_name(survivor.server), set_aside(survivor.path)))
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; to go on: {context.again()}") from None
    except DirectoryInUse as error:
        raise Refused(
            "a data directory is in use",
            code="in-use",
            cause=f"{error}; {_done_until_now(aside)}",
            hint=f"stop that raftd, then:\n{context.again()}",
        ) from None
    except (StorageFault, OSError) as error:
        raise CliError(
            "the recovery could not be finished",
            code="disk",
            cause=f"{error}; {_done_until_now(aside)}",
            hint="when the disks work and have room (copy a directory that can only be read), or "
            f"with another --backup FILE:\n{context.again()}",
        ) from None
    finally:
        progress.close()
    _tell(context, assessment, target, aside)


def _tell(
    context: Context, assessment: Assessment, target: Path, aside: list[tuple[str, Path]]
) -> None:
    from raftd.offline import verify_backup

    assert assessment.chosen is not None, "it was done"
    backup = verify_backup(target)
    restore = f"raftctl -c FILE restore {shlex.quote(str(target))}"
    verify = f"raftctl -c FILE recover verify {shlex.quote(str(target))}"
    result = {
        "result": "done",
        "backup": str(target),
        "checksum": backup.id.checksum,
        "index": backup.id.last_included_index,
        "term": backup.id.last_included_term,
        "size_bytes": backup.id.size_bytes,
        "old_cluster_id": assessment.cluster_id,
        "set_aside": [{"id": name, "path": str(path)} for name, path in aside],
        "next": [restore, verify],
    }
    if context.structured:
        context.print_document(result, one_line=True)
        return
    click.echo(
        f"{target.name}: {size(backup.id.size_bytes)}, all entries up to "
        f"{number(backup.id.last_included_index)} (term {backup.id.last_included_term}) of "
        f"{server_name(assessment.chosen.server)}"
    )
    for name, path in aside:
        click.echo(f"{name}: its old data is {path}")
    click.echo(
        "\nnext:\n"
        "  1. let FILE, the cluster file, name only servers that are there\n"
        "  2. start each of them: raftd --config FILE --id ID (they are blank)\n"
        f"  3. {restore}\n"
        f"  4. {verify}"
    )


def _shown_by(progress: ByteProgress):  # type: ignore[no-untyped-def]
    def show(phase: str, done: int, total: int) -> None:
        if phase.startswith("applying"):
            progress.show(f"{phase}, {number(done)} of {number(total)} entries")
        else:
            progress.show(phase, done, total)

    return show


def _done_until_now(aside: list[tuple[str, Path]]) -> str:
    if not aside:
        return "no data directory was touched"
    return "; ".join(f"{name} was set aside as {path.name}" for name, path in aside)


@recover.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@pass_context
def verify(context: Context, file: Path) -> int:
    """Show whether the cluster that runs is the one that was recovered from FILE, and is well.

    Exits with 1 if anything is not as it should be.

    \b
    Example:
      raftctl recover verify orders-recovered.backup
    """
    from raftctl.recovered import checks_of

    checks = checks_of(context, file)
    failed = [check for check in checks if not check.passed]
    if context.structured:
        context.print_document(
            {
                "result": "fail" if failed else "pass",
                "checks": [
                    {
                        "name": check.name,
                        "result": "pass" if check.passed else "fail",
                        "finding": check.finding,
                        "remedy": check.remedy or None,
                    }
                    for check in checks
                ],
            }
        )
        return EXIT_FAILED if failed else EXIT_DONE
    for check in checks:
        click.echo(f"{'ok  ' if check.passed else 'FAIL'}  {check.finding}")
        if check.remedy:
            click.echo(f"      {check.remedy}")
    return EXIT_FAILED if failed else EXIT_DONE


# --- texts -----------------------------------------------------------------------------------


def _assess(context: Context, directories: tuple[Path, ...]) -> Assessment:
    try:
        endpoints = context.dialled()
    except UsageProblem as problem:
        if problem.code != "no-endpoints":
            raise
        endpoints = None
    unique = tuple(dict.fromkeys(path.absolute() for path in directories))
    shown = {path.absolute(): path for path in directories}
    return assess([shown[path] for path in unique], endpoints)


def _head(assessment: Assessment) -> str:
    if not assessment.cluster_id:
        return "no cluster can be told from these directories"
    return f"CLUSTER  {assessment.cluster_name} (id {assessment.cluster_id})"


def _width(context: Context) -> int | None:
    return None if context.output == "wide" else terminal_width(sys.stdout)


def _plan_text(context: Context, assessment: Assessment) -> str:
    lines = [_head(assessment), table_text(assessment, width=_width(context)), ""]
    labelled = [("voters", line) for line in quorum_lines(assessment)]
    labelled += consequence_lines(assessment)
    if assessment.chosen is not None and not obstacle(assessment):
        labelled += [
            (
                "new cluster",
                f"all that {server_name(assessment.chosen.server)} has, under a new id",
            ),
            ("old directories", "stay as they are, under another name"),
        ]
    columns = _width(context) or TEXT_COLUMNS
    for label, sentence in labelled:
        lines += textwrap.wrap(
            sentence,
            columns,
            initial_indent=f"{label:<{LABEL_COLUMNS}}",
            subsequent_indent=" " * LABEL_COLUMNS,
        )
    return "\n".join(lines)


def _refusal(context: Context, assessment: Assessment, problem: str) -> Refused:
    cause = f"{problem}; nothing was changed"
    if assessment.chosen is None:
        directory = shlex.quote(str(assessment.survivors[0].path))
        return Refused(
            "not recovered: none of the directories can be used",
            code="no-directory",
            cause=cause,
            hint=f"`raftctl inspect {directory}` says what it holds; name the directories of "
            "servers that are stopped and whole: `raftctl recover plan DATA_DIR...`",
        )
    if assessment.alive:
        return Refused(
            "not recovered: the cluster is not dead",
            code="alive",
            cause=cause,
            hint="if those that answer are enough, `raftctl status` says what to do; else stop "
            "every server of the old cluster, name the data directory of each that has one, then:\n"
            f"{context.again()}",
        )
    return Refused(
        "there is nothing to recover",
        code="not-needed",
        cause=cause,
        hint=f"start {named(assessment.left)} with the data directories that are left, then:\n"
        f"{context.command('wait --for leader')}",
    )


def _apply_command(context: Context, directories: tuple[Path, ...]) -> str:
    words = " ".join(shlex.quote(str(path)) for path in directories)
    return context.command(f"recover apply {words}")
