"""Looks at a page of ours in headless Chromium, in light and in dark."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

needed = pytest.mark.skipif(
  shutil.which("chromium") is None, reason="needs chromium to look at the page"
)
SCHEMES = {"dark": 0, "light": 1}
# Runs in a copy of the page, after all of its own scripts. A text's ground is
# the first ancestor with a colour of its own; alpha is blended on the ground.
_LOOK = r"""
<script>window.addEventListener('load', () => {
  const parse = (s) => (s.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a));
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => {
      v /= 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    const layers = [];
    for (let p = e; p; p = p.parentElement) {
      const c = parse(getComputedStyle(p).backgroundColor);
      if (c.length < 4 || c[3] > 0) layers.push(c);
    }
    return layers.reverse().reduce((under, c) => over(c, under), [255, 255, 255]);
  };
  document.querySelectorAll('details').forEach((d) => { d.open = true; });
  let worst = [99, ''], texts = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    const text = walk.currentNode.data.trim();
    const box = e.getBoundingClientRect();
    if (!text || /SCRIPT|STYLE|TITLE/i.test(e.tagName) || !box.width) continue;
    const style = getComputedStyle(e);
    const ink = e instanceof SVGElement ? style.fill : style.color;
    const under = ground(e);
    const pair = [light(over(parse(ink), under)), light(under)].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    texts += 1;
    if (contrast < worst[0]) worst = [contrast, text.slice(0, 60)];
  }
  const plots = [...document.querySelectorAll('svg')].map((s) => {
    const b = s.getBoundingClientRect();
    return [b.width, b.height, s.querySelectorAll('*').length];
  });
  const said = {
    worst, texts, plots,
    ground: light(ground(document.body)),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
  };
  document.body.setAttribute('data-look', JSON.stringify(said));
});</script>
"""


def look(page: pathlib.Path, folder: pathlib.Path, scheme: str) -> dict:
  """What a person would stumble on; fails on anything in the console.

  Args:
    page: an HTML file.
    folder: for the browser's profile and the page's copy.
    scheme: "dark" or "light".

  Returns:
    worst: the smallest contrast of a text with its ground, and the text;
    texts: how many were looked at; plots: width, height and elements of every
    svg; ground: luminance of the page, 0 to 1; overflow: pixels beyond a
    window of 1,200, as a person would have to scroll sideways.
  """
  copy = folder / f"{scheme}.html"
  content = page.read_text(encoding="utf-8")
  copy.write_text(content.replace("</body>", f"{_LOOK}</body>"), "utf-8")
  out = subprocess.run(
    ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
     "--no-first-run", "--disable-background-networking", "--disable-quic",
     "--disable-component-update", "--disable-sync",
     f"--user-data-dir={folder / scheme}", "--window-size=1200,900",
     f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
     "--enable-logging=stderr", "--dump-dom", copy.as_uri()],
    capture_output=True, text=True, timeout=120, check=True,
  )
  assert "CONSOLE" not in out.stderr, out.stderr
  found = re.search(r'data-look="([^"]*)"', out.stdout)
  assert found, "the page's scripts did not end"
  return json.loads(found.group(1).replace("&quot;", '"'))


def check(page: pathlib.Path, folder: pathlib.Path, plots: int) -> None:
  """Readable in both schemes, every plot drawn, nothing to scroll sideways."""
  for scheme in SCHEMES:
    seen = look(page, folder, scheme)
    assert seen["texts"] > 20, scheme
    # WCAG 2.1, level AA, for text of any size.
    assert seen["worst"][0] >= 4.5, (scheme, seen["worst"])
    assert len(seen["plots"]) == plots, scheme
    for width, height, elements in seen["plots"]:
      assert min(width, height) > 10, scheme
      assert elements > 3, scheme
    assert (seen["ground"] < 0.1) == (scheme == "dark"), seen["ground"]
    assert seen["overflow"] <= 0, scheme
