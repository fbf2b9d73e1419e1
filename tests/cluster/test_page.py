"""The status page: served by real servers, looked at in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.browser import PROGRAM, Browser
from tests.cluster.conftest import MakeCluster
from tests.cluster.page_checks import check_everywhere
from tests.cluster.processes import RunningCluster, Server
from tests.cluster.proxy import Fate, carries, where
from tests.cluster.test_operations import catch, heal

pytestmark = pytest.mark.skipif(not PROGRAM, reason="no Chromium: apt-get install chromium")

HOSTILE = """<img src=x onerror="document.title='taken'"> & `code`"""
"""What an operator may give as a reason: text, and nothing else."""
LONGEST_NAME = "n4-" + "a" * 60
"""63 letters, as many as a name may have."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("browser"))
    yield running
    running.close()


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where pictures of the page go: a folder that was asked for, else one that is thrown away."""
    asked = request.config.getoption("--screenshots")
    folder = Path(asked) if asked else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Three servers with a page each; every test leaves them healthy."""
    cluster = RunningCluster(tmp_path_factory.mktemp("pages"), http=True)
    try:
        cluster.form("n1", "n2", "n3")
        yield cluster
    finally:
        cluster.close()


def text(element: str) -> str:
    """Return the JavaScript expression for the text of the element with this id."""
    return f"document.getElementById('{element}').innerText.trim()"


def texts(selector: str) -> str:
    """Return the JavaScript expression for the texts of all elements that `selector` means."""
    return f"[...document.querySelectorAll({selector!r})].map((each) => each.innerText.trim())"


def open_page(browser: Browser, server: Server, health: str) -> None:
    browser.open(f"http://{server.http}/")
    browser.wait_for(f"{text('health')} === {health!r}")


def row_of(name: str) -> str:
    """Return the JavaScript expression for the row of a server, its cells by their headings."""
    return f"""(() => {{
        const row = [...document.querySelectorAll("#servers tr")]
            .find((each) => each.querySelector(".name").innerText === {name!r});
        return row && Object.fromEntries(
            [...row.cells].map((cell) => [cell.dataset.label, cell.innerText]));
    }})()"""


def test_the_page_follows_the_cluster_from_healthy_to_unavailable_and_back(
    three: RunningCluster, browser: Browser, screenshots: Path
) -> None:
    leader = three.wait_leader()
    viewer, other = three.followers(leader)
    for number in range(5):
        assert three.ctl("put", f"key-{number}", "value").code == 0

    open_page(browser, viewer, "Healthy")
    browser.wait_for(f"{row_of(viewer.name)}?.Role === 'follower'")
    assert browser.run(text("cluster")) == "orders"
    assert browser.run(text("view")) == f"seen by {viewer.name}, follower"
    assert browser.run(text("tolerance")) == "tolerates 1 more failure"
    assert browser.run(text("leader")) == leader.name
    assert browser.run(text("members")) == "3 voters"
    assert browser.run(text("no-problems")) == "Nothing is wrong."
    assert browser.run(row_of(leader.name))["Role"] == "leader"
    assert browser.run(texts("#voters li")) == [
        f"{name} leads" if name == leader.name else name for name in ("n1", "n2", "n3")
    ]
    assert browser.run(texts("#positions .name")) == ["n1", "n2", "n3"]
    browser.wait_for(f"{text('recent')}.includes('leads')")
    browser.run("document.getElementById('commits-plot').focus()")
    browser.press("ArrowLeft")
    browser.wait_for("document.querySelector('#commits-plot .pointed')?.textContent.endsWith('/s')")
    check_everywhere(browser, screenshots, "healthy")

    leader.kill()
    browser.wait_for(f"{[viewer.name, other.name]}.includes({text('leader')})")
    browser.wait_for(f"{text('health')} === 'Degraded' && {row_of(leader.name)}.Role === 'unknown'")
    assert browser.run(text("tolerance")) == "tolerates no more failure"
    assert "unreachable" in browser.run(row_of(leader.name))["State"]
    problems = browser.run(text("problems"))
    assert f"{leader.name} unreachable" in problems
    assert (
        f"the cluster stops if {' or '.join(sorted((viewer.name, other.name)))} fails" in problems
    )
    check_everywhere(browser, screenshots, "degraded")

    other.kill()
    browser.wait_for(f"{text('health')} === 'Unavailable'")
    assert browser.run(text("leader")) == "none"
    assert browser.run(text("tolerance")) == "no leader: nothing can be written"
    assert f"2 of {{n1 n2 n3}} are needed, {viewer.name} answers" in browser.run(text("problems"))
    check_everywhere(browser, screenshots, "unavailable")

    leader.start()
    other.start()
    browser.wait_for(f"{text('health')} === 'Healthy'")
    assert browser.run("document.getElementById('lost').hidden")
    assert browser.complaints == []


def test_a_page_whose_server_is_gone_says_so_and_comes_back(
    three: RunningCluster, browser: Browser, screenshots: Path
) -> None:
    viewer = three.wait_leader()
    others = three.followers(viewer)
    open_page(browser, viewer, "Healthy")
    viewer.kill()
    browser.wait_for("!document.getElementById('lost').hidden")
    # Nothing may look as if it were so now.
    assert browser.run(text("health")) == "Unknown"
    assert browser.run(text("tolerance")) == "was healthy when last seen"
    assert "Connection lost" in browser.run("document.title")
    assert browser.run(text("no-problems")) == "Nothing was wrong then."
    assert browser.run("[...document.querySelectorAll('#others a')].map((each) => each.href)") == [
        f"http://{other.http}/" for other in others
    ]
    assert browser.run(text("lost")).startswith("Connection lost.")
    check_everywhere(browser, screenshots, "lost")
    shown = browser.run(text("lost-age"))
    assert shown.startswith("last seen ")
    browser.wait_for(f"{text('lost-age')} !== {shown!r}")

    viewer.start()
    browser.wait_for("document.getElementById('lost').hidden")
    browser.wait_for(f"{text('health')} === 'Healthy'")
    assert browser.run(text("link-word")) == "live"
    # That there is nobody to connect to is all that the console has to say.
    assert [said for said in browser.complaints if not said.startswith("network: ")] == []


def test_both_halves_are_seen_while_a_change_is_joint(
    make_cluster: MakeCluster, browser: Browser, screenshots: Path
) -> None:
    cluster = make_cluster("n1", "n2", "n3", proxied=True, http=True, settings="joint_timeout: 1m")
    old, new = ("n1", "n2", "n3"), ("n4", "n5", "n6")
    cluster.start_blank(*new)
    leader = cluster.wait_leader()
    open_page(browser, leader, "Healthy")
    # n4 stores the entry, the two others of its half do not: C_old has a majority, C_new has none.
    holding = where(
        lambda passing: passing.dest in new[1:] and carries("joint", "op-2")(passing), Fate.DROP
    )
    wait = catch(cluster, holding)
    pairs = [
        word for a, b in zip(old, new, strict=True) for word in (a, f"{b}={cluster[b].address}")
    ]
    command = cluster.start_ctl("replace", *pairs, "--yes", "-o", "json", "--reason", HOSTILE)
    wait()

    browser.wait_for("!document.getElementById('joint').hidden")
    assert "majority of {n1 n2 n3} and of {n4 n5 n6}" in browser.run(text("needs"))
    browser.wait_for(f"{text('old')}.includes('3 of 3 acknowledged, 2 needed: ✓ majority')")
    browser.wait_for(f"{text('new')}.includes('1 of 3 acknowledged, 2 needed: needs 1 more')")
    marks = f"{texts('#new li')}.map((each) => each.split(/\\s+/).slice(0, 3).join(' '))"
    assert browser.run(marks) == ["✓ n4 acknowledged", "… n5 not", "… n6 not"]
    assert browser.run(texts("#steps [aria-current]")) == ["C_old,new"]
    assert browser.run(text("operation-summary")) == "replace n1 n2 n3 by n4 n5 n6"
    assert f"“{HOSTILE}”" in browser.run(text("operation-who"))
    assert browser.run(text("health")) == "Degraded"
    assert browser.run(row_of("n1"))["Vote"] == "old half"
    assert browser.run(row_of("n6"))["Vote"] == "new half"
    check_everywhere(browser, screenshots, "joint")

    # Whoever does not lead shows the same.
    follower = cluster.followers(leader)[0]
    open_page(browser, follower, "Degraded")
    browser.wait_for(f"{text('new')}.includes('1 of 3 acknowledged, 2 needed: needs 1 more')")

    open_page(browser, cluster["n4"], "Degraded")
    heal(cluster)
    assert cluster.finish(command).code == 0
    browser.wait_for(f"{text('health')} === 'Healthy'")
    assert browser.run("document.getElementById('joint').hidden")
    assert browser.run("document.getElementById('operation').hidden")
    stable = f"{texts('#voters li')}.map((each) => each.split(' ')[0]).join(' ')"
    browser.wait_for(f"{stable} === 'n4 n5 n6'")
    assert browser.complaints == []


def test_the_longest_names_fit_a_phone(
    three: RunningCluster, browser: Browser, screenshots: Path
) -> None:
    three.start_blank(LONGEST_NAME)
    added = three.ctl("add", f"{LONGEST_NAME}={three[LONGEST_NAME].address}", "--learner")
    assert added.code == 0, added.stderr
    open_page(browser, three["n1"], "Healthy")
    browser.wait_for(f"{text('members')} === '3 voters, 1 learner'")
    assert browser.run(texts("#learners li")) == [LONGEST_NAME]
    check_everywhere(browser, screenshots, "long-names")
    assert browser.complaints == []
