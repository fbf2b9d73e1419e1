"""`raftctl certs`: a small certificate authority for clusters whose owners have none."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftctl.cli import CommandGroup, Context, NumberParameter, pass_context
from raftctl.errors import CliError, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raftctl.certificates import Shown
    from raftd.tls import Holder

FOLDER = Path("certs")
ADMIN_NAME = "admin"
"""Of the certificate that raftctl shows by itself where it finds it beside the CA."""
CA_DAYS = 3650
DAYS = 365
DAYS_MAX = 36_500
PEM_SUFFIX, KEY_SUFFIX = ".pem", ".key"

_folder_option = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=FOLDER,
    show_default=True,
    metavar="DIR",
    help="Where the CA is, and what it signs.",
)


def _days_option(days: int) -> Callable[[Any], Any]:
    return click.option(
        "--days",
        type=NumberParameter(1, DAYS_MAX),
        default=days,
        show_default=True,
        metavar="N",
        help="For how long it is valid.",
    )


_replace_option = click.option(
    "--replace", is_flag=True, help="Replace the files that are there: a renewal."
)


@click.group(cls=CommandGroup)
def certs() -> None:
    """Make and show certificates, by which servers know each other and who asks them.

    \b
    Examples:
      raftctl certs init
      raftctl -c cluster.yaml certs issue server n1
      raftctl certs issue admin
      raftctl certs issue application shop
    """


@certs.command()
@_folder_option
@click.option("--name", default="raftd CA", show_default=True, help="What the CA is called.")
@_days_option(CA_DAYS)
@pass_context
def init(context: Context, folder: Path, name: str, days: int) -> None:
    """Make a CA: a key that signs certificates, and its own certificate.

    Whoever has the key can issue certificates for any role: keep it away from the servers. An
    existing CA is never replaced.

    \b
    Example:
      raftctl certs init --dir certs
    """
    _require_cryptography(context)
    from raftctl.certificates import (
        CA_CERTIFICATE,
        CA_KEY,
        CertificateError,
        make_authority,
        write_pair,
    )

    certificate, key = folder / CA_CERTIFICATE, folder / CA_KEY
    try:
        if not 1 <= len(name) <= 64:
            raise CertificateError("the name of a CA has 1 to 64 characters")
        issued = make_authority(name, valid=datetime.timedelta(days=days))
        write_pair(certificate, key, issued, replace=False)
    except CertificateError as error:
        raise CliError(
            "no CA was made",
            code="not-issued",
            cause=str(error),
            hint="raftctl certs init --dir DIR",
        ) from None
    _print_written(context, certificate, key)
    context.message(f"keep {key} secret and away from the servers; they need {certificate}")


@certs.group(cls=CommandGroup)
def issue() -> None:
    """Issue a certificate: for a server, an administrator, or an application.

    \b
    Examples:
      raftctl certs issue server n1 --host n1.example.org --host 10.0.0.1
      raftctl certs issue admin
      raftctl certs issue application shop
    """


@issue.command()
@click.argument("server", metavar="ID")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="A name or address under which it is dialled; again for each. Default: those that the "
    "cluster file has for it.",
)
@_folder_option
@_days_option(DAYS)
@_replace_option
@pass_context
def server(
    context: Context, server: str, hosts: tuple[str, ...], folder: Path, days: int, replace: bool
) -> None:
    """Issue the certificate of a server.

    Only with the certificate of its own name can a server speak for itself. The hosts have to be
    those under which the other servers, raftctl and clients dial it.

    \b
    Examples:
      raftctl certs issue server n1 --host n1.example.org --host 10.0.0.1
      raftctl -c cluster.yaml certs issue server n1
      raftctl certs issue server n1 --host 10.0.0.1 --replace
    """
    from raftd.config_values import check_name, normalise_host
    from raftd.tls import SERVER, Holder

    try:
        check_name(server)
        named = [normalise_host(_host(host)) for host in hosts]
    except ValueError as error:
        raise UsageProblem(
            "this cannot be a server", cause=str(error), hint=context.again("--host", "HOST")
        ) from None
    if not named:
        named = _hosts_in_file(context, server)
    _issue(context, Holder(SERVER, server), named, folder, days, replace)
    context.message(
        f"copy {folder / server}{PEM_SUFFIX} and {KEY_SUFFIX} to {server}, with the ca.pem; "
        "SIGHUP lets a server that runs read them"
    )


@issue.command()
@click.argument("name", default=ADMIN_NAME)
@_folder_option
@_days_option(DAYS)
@_replace_option
@pass_context
def admin(context: Context, name: str, folder: Path, days: int, replace: bool) -> None:
    """Issue the certificate of an administrator, who may do everything.

    The one called admin is shown by raftctl by itself if it stands beside the CA that the cluster
    file names.

    \b
    Examples:
      raftctl certs issue admin
      raftctl certs issue admin alice
    """
    from raftd.tls import ADMIN, Holder

    _issue(context, Holder(ADMIN, name), (), folder, days, replace)


@issue.command()
@click.argument("name")
@_folder_option
@_days_option(DAYS)
@_replace_option
@pass_context
def application(context: Context, name: str, folder: Path, days: int, replace: bool) -> None:
    """Issue the certificate of an application, which may read and write keys and no more.

    \b
    Example:
      raftctl certs issue application shop
    """
    from raftd.tls import APPLICATION, Holder

    _issue(context, Holder(APPLICATION, name), (), folder, days, replace)


def _issue(
    context: Context,
    holder: Holder,
    hosts: Sequence[str],
    folder: Path,
    days: int,
    replace: bool,
) -> None:
    _require_cryptography(context)
    from raftctl.certificates import CertificateError, issue, load_authority, write_pair

    certificate = folder / f"{holder.name}{PEM_SUFFIX}"
    key = folder / f"{holder.name}{KEY_SUFFIX}"
    try:
        if replace:
            _check_holder(certificate, holder)
        if holder.name == "ca":
            raise CertificateError("ca.pem and ca.key are the files of the CA itself")
        issued = issue(
            load_authority(folder), holder, hosts=hosts, valid=datetime.timedelta(days=days)
        )
        write_pair(certificate, key, issued, replace=replace)
    except CertificateError as error:
        is_there = certificate.exists() or key.exists()
        again = context.again("--replace")
        raise CliError(
            f"no certificate of {holder} was made",
            code="not-issued",
            cause=str(error),
            hint=again if is_there and not replace else _hint(folder),
        ) from None
    _print_written(context, certificate, key)


def _hint(folder: Path) -> str:
    shown = shlex.quote(str(folder))
    if (folder / "ca.pem").exists():
        return f"raftctl certs show {shown}"
    return f"raftctl certs init --dir {shown}"


def _check_holder(certificate: Path, holder: Holder) -> None:
    """Check that what would be replaced is a certificate of `holder`, if it is there.

    Raises:
        CertificateError: it is something else.
    """
    from raftctl.certificates import CertificateError, show

    if certificate.exists():
        there = show(certificate)[0]
        if (there.role, there.name) != (holder.role, holder.name):
            raise CertificateError(
                f"{certificate} is the certificate of {there.role or 'somebody'} {there.name}; "
                "move it away first"
            )


def _host(text: str) -> str:
    from raftd.config_values import parse_dialled_address

    bare = f"[{text}]" if ":" in text and not text.startswith("[") else text
    parse_dialled_address(f"{bare}:1")
    return text.removeprefix("[").removesuffix("]")


def _hosts_in_file(context: Context, server: str) -> list[str]:
    """Return the hosts under which the cluster file has `server`.

    Raises:
        UsageProblem: there is no cluster file, or none of it.
    """
    from raftctl.endpoints import CLUSTER_FILE_DEFAULT, load_cluster_file
    from raftd.config_values import parse_address

    path = context.config_path
    if path is None and CLUSTER_FILE_DEFAULT.exists():
        path = CLUSTER_FILE_DEFAULT
    found = load_cluster_file(path).servers.get(server) if path is not None else None
    if found is None:
        raise UsageProblem(
            f"nothing says where {server} is dialled",
            cause="there is no --host, "
            + (f"and {path} has no such server" if path else "and no cluster file"),
            hint=context.again("--host", "HOST"),
        )
    addresses = (found.address, found.redis, found.http)
    return list(dict.fromkeys(parse_address(each)[0] for each in addresses if each))


@certs.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@pass_context
def show(context: Context, files: tuple[Path, ...]) -> None:
    """Show whose certificates there are, for which hosts, and until when.

    A folder stands for all its *.pem files. Without FILE it is the folder certs.

    \b
    Examples:
      raftctl certs show
      raftctl certs show /etc/raftd/n1.pem
    """
    _require_cryptography(context)
    from raftctl.certificates import CertificateError
    from raftctl.certificates import show as shown_at

    paths: list[Path] = []
    for each in files or (FOLDER,):
        paths += sorted(each.glob(f"*{PEM_SUFFIX}")) if each.is_dir() or not files else [each]
    try:
        found = [(path, certificate) for path in paths for certificate in shown_at(path)]
    except CertificateError as error:
        raise CliError(
            "a certificate cannot be shown",
            code="unreadable",
            cause=str(error),
            hint="raftctl certs show FILE",
        ) from None
    now = datetime.datetime.now(datetime.UTC)
    if context.structured:
        rows = [_document(path, certificate, now) for path, certificate in found]
        context.print_document({"certificates": rows})
        return
    from raftctl.render import table

    if not found:
        raise UsageProblem(
            "there is no certificate to show",
            cause=f"no {PEM_SUFFIX} file in {', '.join(map(str, files or (FOLDER,)))}",
            hint="raftctl certs init",
        )
    header = ("FILE", "ROLE", "NAME", "HOSTS", "ENDS", "DAYS")
    lines = [
        (
            str(path),
            certificate.role or "-",
            certificate.name or "-",
            ",".join(certificate.hosts) or "-",
            f"{certificate.not_after:%Y-%m-%d}",
            str((certificate.not_after - now).days),
        )
        for path, certificate in found
    ]
    click.echo(table(header, lines))


def _document(path: Path, certificate: Shown, now: datetime.datetime) -> dict[str, Any]:
    return {
        "file": str(path),
        "role": certificate.role or None,
        "name": certificate.name or None,
        "hosts": list(certificate.hosts),
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "days_left": (certificate.not_after - now).days,
    }


def _print_written(context: Context, certificate: Path, key: Path) -> None:
    if context.structured:
        context.print_document({"certificate": str(certificate), "key": str(key)})
    else:
        click.echo(f"{certificate}\n{key}")


def _require_cryptography(context: Context) -> None:
    """Check that certificates can be made here.

    Raises:
        CliError: a package is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise CliError(
            "the package cryptography is not installed here",
            code="not-installed",
            cause="raftd and raftctl use certificates without it, and need it to make or show them",
            hint="pip install 'raftd[certs]', and then\n" + context.again(),
        ) from None
