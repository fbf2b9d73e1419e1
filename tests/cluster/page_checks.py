"""What holds for the status page in every state: readable, on any screen, and nothing refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.browser import Browser

CONTRAST_MIN = 4.5
"""Of text against what is behind it (WCAG 2.1, 1.4.3)."""
PHONE_WIDTH = 360
"""CSS pixels: the narrow ones."""
SIZES = {"desktop": (1280, 900), "tablet": (768, 1024), "phone": (PHONE_WIDTH, 780)}

FAINT_TEXTS = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  // Whatever a style calls a colour: red, green, blue of 0 to 255, and the opacity of 0 to 1.
  const colour = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => {
    const mixed = [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3]));
    return [...mixed, 1];
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.push(colour(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const faint = [];
  const look = (element, style, text) => {
    const ground = behind(element);
    const ink = colour(element instanceof SVGElement ? style.fill : style.color);
    for (let at = element; at; at = at.parentElement) ink[3] *= Number(getComputedStyle(at).opacity);
    const found = contrast(over(ink, ground), ground);
    if (found < LEAST) faint.push(`${text.trim()}: ${found.toFixed(2)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("noscript, script, title")) continue;
    look(element, getComputedStyle(element), texts.currentNode.data);
    seen += 1;
  }
  for (const element of document.querySelectorAll("body *")) {
    const before = getComputedStyle(element, "::before");
    if (!/^"/.test(before.content) || before.content === '""' || !element.checkVisibility()) continue;
    look(element, before, before.content);
  }
  return {faint, seen};
})()
"""

WIDER_THAN_THE_SCREEN = """
[...document.querySelectorAll("body *")]
  .filter((element) => element.checkVisibility() && !element.closest(".unseen, thead, svg"))
  .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((element) => `${element.tagName} ${element.className} ${element.textContent.slice(0, 60)}`)
"""

SCROLLS_SIDEWAYS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def check_everywhere(browser: Browser, folder: Path, state: str) -> None:
    """Look at the page on each screen, light and dark; leave a picture of each look in `folder`."""
    for device, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            browser.look(width=width, height=height, dark=scheme == "dark")
            where = f"{state} on a {device}, {scheme}"
            browser.screenshot(folder / f"{state}-{device}-{scheme}.png")
            assert not browser.run(SCROLLS_SIDEWAYS), where
            assert browser.run(WIDER_THAN_THE_SCREEN) == [], where
            read: Any = browser.run(FAINT_TEXTS.replace("LEAST", str(CONTRAST_MIN)))
            assert read["faint"] == [], where
            assert read["seen"] > 50, where
    browser.look()
