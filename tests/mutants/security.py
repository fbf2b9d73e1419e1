"""Mutants of certificates, roles and passwords: who gets in, as whom, and what they may do."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

LISTENER = "raftd/network/listener.py"
SECURED_TESTS = "tests/network/test_secured.py"
REDIS_TESTS = "tests/network/test_redis_security.py"
TLS_TESTS = "tests/test_tls.py"
UNENCRYPTED = "the simulator has neither sockets nor certificates"

MUTANTS = (
    Mutant(
        name="any-certificate-speaks-for-any-server",
        why="An application takes part in elections, or one server votes as another.",
        file=LISTENER,
        old="    return holder == Holder(SERVER, server_name(hello.source))\n",
        new="    return True\n",
        test=f"{SECURED_TESTS}::test_only_the_certificate_of_a_server_speaks_for_it",
        unreachable=UNENCRYPTED,
    ),
    Mutant(
        name="requests-are-not-held-against-the-role",
        why="An application changes the membership.",
        file=LISTENER,
        old="            if type(request) in self._allowed:\n",
        new="            if True:\n",
        test=f"{SECURED_TESTS}::test_a_role_is_served_what_it_may_ask_and_told_what_it_may_not",
        unreachable=UNENCRYPTED,
    ),
    Mutant(
        name="whoever-answers-is-the-server",
        why="An application that listens where a server was is told everything and believed.",
        file="raftd/tls.py",
        old="    if holder.role != SERVER:\n",
        new="    if False:\n",
        test=f"{TLS_TESTS}::test_only_a_server_of_the_name_is_the_server",
        unreachable=UNENCRYPTED,
    ),
    Mutant(
        name="a-member-may-be-any-server",
        why="A server that took the address of another is fed as that one.",
        file="raftd/network/network.py",
        old="        return dial_tls(self._credentials, server_name(server))\n",
        new="        return dial_tls(self._credentials)\n",
        test=f"{SECURED_TESTS}::test_a_server_does_not_talk_to_one_whose_certificate_names_another",
        unreachable=UNENCRYPTED,
    ),
    Mutant(
        name="a-role-of-several-is-taken",
        why="Whoever signs for an application is talked into a second name, that of a server.",
        file="raftd/tls.py",
        old="    if len(names) > 1:\n",
        new="    if False:\n",
        test=f"{TLS_TESTS}::test_a_certificate_that_does_not_say_one_role_has_none",
        unreachable=UNENCRYPTED,
    ),
    Mutant(
        name="commands-before-the-password",
        why="Who does not know the password reads and writes.",
        file="raftd/network/redis_auth.py",
        old="    if name not in _ALLOWED:\n",
        new="    if False:\n",
        test=f"{REDIS_TESTS}::test_before_the_password_nothing_is_carried_out",
        unreachable=UNENCRYPTED,
    ),
    Mutant(
        name="any-user-with-the-password",
        why="A name that an operator believes to be locked out gets in.",
        file="raftd/network/redis_auth.py",
        old="    if user != USER or (",
        new="    if False or (",
        test=f"{REDIS_TESTS}::test_before_the_password_nothing_is_carried_out",
        unreachable=UNENCRYPTED,
    ),
    Mutant(
        name="silence-before-the-password",
        why="Who says nothing keeps a connection for ever.",
        file="raftd/network/redis_doorstep.py",
        old="            if now - since < AUTH_TIMEOUT_SECONDS:\n",
        new="            if True:\n",
        test=f"{REDIS_TESTS}"
        "::test_who_does_not_say_the_password_is_closed_and_who_has_said_it_stays",
        unreachable=UNENCRYPTED,
    ),
)
