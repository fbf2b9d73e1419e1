"""What holds for the status page in every state: readable, on any screen, and nothing refused."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.browser import Browser

CONTRAST_MIN = 4.5
"""Of text against what is behind it (WCAG 2.1, 1.4.3)."""
TEXTS_MIN = 50
"""On the page in any state; fewer mean that the check has looked at nothing."""
SCREENS = {"desktop": (1280, 900), "tablet": (768, 1024), "phone": (360, 780)}
"""In CSS pixels; the phone is one of the narrow ones."""
LOOK = Path(__file__).with_suffix(".js").read_text().partition("\n")[2]


def check_everywhere(browser: Browser, folder: Path, state: str) -> None:
    """Look at the page on each screen, light and dark; leave a picture of each look in `folder`."""
    for screen, (width, height) in SCREENS.items():
        for scheme in ("light", "dark"):
            browser.look(width=width, height=height, dark=scheme == "dark")
            browser.screenshot(folder / f"{state}-{screen}-{scheme}.png")
            found = browser.run(f"({LOOK})({CONTRAST_MIN})")
            where = f"{state} on a {screen}, {scheme}"
            assert found["faint"] == [], where
            assert found["wider"] == [], where
            assert not found["scrolls"], where
            assert found["seen"] > TEXTS_MIN, where
    browser.look()
