"""`raftctl completion`: the script with which a shell completes commands, options and names."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_RAFTCTL_COMPLETE"
"""The environment variable by which the script asks raftctl; click's own name for it."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options, the names of the cluster's servers and the ids of operations;
    for these the servers are asked, at most half a second.

    \b
    Examples:
      source <(raftctl completion bash)
      raftctl completion zsh > ~/.zfunc/_raftctl
      raftctl completion fish > ~/.config/fish/completions/raftctl.fish
    """
    from click.shell_completion import get_completion_class

    from raftctl.cli import cli

    made_by = get_completion_class(shell)
    assert made_by is not None, f"click knows no {shell}"
    # `func_name`, `source_vars` and the template are click's; only the check of the shell's
    # version, which would run that shell here, is left out.
    script = made_by(cli, {}, "raftctl", VARIABLE)
    click.echo(script.source_template % script.source_vars())
