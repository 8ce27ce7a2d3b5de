"""The catalogue as one HTML page: every task, every template on a row.

Nothing is loaded from elsewhere. One small script filters datasets and
templates by words; without it everything can still be read.
"""

from collections.abc import Sequence

from flan_jax.data import entries, spec, splits
from flan_jax.data.entries import Entry, Rendered
from flan_jax.page.markup import document, link, readable, table, text
from flan_jax.tasks import clusters

TITLE = "flan_jax: the catalogue"

STYLE = """
main { max-width: 1320px; display: grid; gap: 0 44px;
  grid-template-columns: 250px minmax(0, 1fr); padding-top: 0; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto;
  padding: 28px 8px 28px 0; font-size: 13.5px; }
nav ul { list-style: none; margin: 2px 0 12px; padding: 0 0 0 12px;
  border-left: 1px solid var(--line); }
nav li { padding: 1px 0; } nav > a { font-weight: 600; }
nav .number { color: var(--muted); font-weight: 450; }
a { color: var(--after); text-decoration: none; }
a:hover { text-decoration: underline; }
nav a { color: var(--ink); overflow-wrap: anywhere; }
article { padding: 36px 0 72px; min-width: 0; }
.search { position: sticky; top: 0; z-index: 1; background: var(--paper);
  padding: 12px 0; display: flex; gap: 8px 12px; align-items: center;
  flex-wrap: wrap; border-bottom: 1px solid var(--line); }
.search input { flex: 1 1 260px; min-width: 0; font: inherit; color: inherit;
  background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 8px 12px; }
.search button { font: inherit; font-size: 13px; color: inherit;
  background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 8px 12px; cursor: pointer; }
section { scroll-margin-top: 70px; }
section.cluster > h2 { font-size: 22px; margin: 48px 0 4px; }
section.dataset { border-top: 1px solid var(--line); padding: 20px 0 4px;
  margin-top: 20px; }
section.dataset > h3 { font-size: 18px; margin: 0 0 10px; }
h3 .name { font: 13px ui-monospace, Menlo, Consolas, "Liberation Mono",
  monospace; color: var(--muted); margin-left: 8px; font-weight: 400; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr);
  gap: 3px 18px; margin: 0 0 12px; font-size: 13.5px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
ul.notes { margin: 12px 0; padding-left: 18px; font-size: 13.5px;
  max-width: 80ch; }
summary { cursor: pointer; font-weight: 600; font-size: 13.5px;
  padding: 8px 0; color: var(--after); }
.tag { border: 1px solid var(--line); border-radius: 999px; padding: 0 9px;
  font-size: 12px; color: var(--muted); white-space: nowrap;
  background: var(--paper); margin-left: 6px; }
.tag.turned { color: var(--before); border-color: var(--before); }
.sample pre.target { border-top: 1px solid var(--line);
  border-left: 4px solid var(--up); padding-left: 12px; max-height: 240px;
  background: var(--panel); }
.label { display: block; font: 600 11px/1.6 system-ui, sans-serif;
  color: var(--muted); letter-spacing: 0.04em; }
.target .label { color: var(--up); }
.field { color: var(--after); } .target .field { color: inherit; }
[hidden] { display: none !important; }
@media (max-width: 900px) { main { display: block; padding: 0 18px 48px; }
  nav { position: static; height: auto; max-height: 40vh;
    border-bottom: 1px solid var(--line); padding: 18px 0; }
  article { padding-top: 20px; } }
@media print { nav, .search { display: none; } main { display: block; } }
"""

# Every word has to be in a template's text or in its dataset's facts; words
# that are all in the facts show all ten. What was open stays open.
SCRIPT = """
(function () {
  const box = document.getElementById('words');
  const count = document.getElementById('count');
  const toggle = document.getElementById('toggle');
  const all = (parent, what) => Array.from(parent.querySelectorAll(what));
  const sets = all(document, 'section.dataset').map((node) => ({
    node: node,
    fold: node.querySelector('details'),
    facts: node.dataset.cluster.toLowerCase() + ' ' + all(node,
      ':scope > :not(details)').map((e) => e.textContent.toLowerCase())
      .join(' '),
    entry: document.getElementById('to-' + node.id),
    templates: all(node, '.sample').map((e) => ({
      node: e, text: e.textContent.toLowerCase() })),
  }));
  const groups = all(document, 'section.cluster').map((node) => ({
    node: node,
    sets: sets.filter((s) => node.contains(s.node)),
    entries: all(document, '[data-of="' + node.id + '"]'),
  }));
  let before = null;
  function filter() {
    const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
    const has = (text) => words.every((w) => text.includes(w));
    if (words.length && !before) before = sets.map((s) => s.fold.open);
    let datasets = 0, templates = 0;
    sets.forEach((s, i) => {
      const whole = has(s.facts);
      let found = 0;
      s.templates.forEach((t) => {
        const shown = whole || has(s.facts + ' ' + t.text);
        t.node.hidden = !shown;
        found += shown;
      });
      s.node.hidden = s.entry.hidden = !(whole || found);
      if (words.length) s.fold.open = !whole && found > 0;
      else if (before) s.fold.open = before[i];
      if (!s.node.hidden) { datasets += 1; templates += found; }
    });
    if (!words.length) before = null;
    groups.forEach((g) => {
      const gone = g.sets.every((s) => s.node.hidden);
      g.node.hidden = gone;
      g.entries.forEach((e) => { e.hidden = gone; });
    });
    document.getElementById('mixtures').hidden = words.length > 0;
    const some = (n, what) => n + ' ' + what + (n === 1 ? '' : 's');
    count.textContent = some(datasets, 'task') + ', ' + some(templates,
      'template');
  }
  toggle.addEventListener('click', () => {
    const shown = sets.filter((s) => !s.node.hidden);
    const open = !shown.every((s) => s.fold.open);
    shown.forEach((s) => { s.fold.open = open; });
  });
  box.addEventListener('input', filter);
  filter();
})();
"""


def render(found: Sequence[Entry]) -> str:
  """The page of some entries, a section for each cluster in their order.

  >>> render([rte]).count("class='sample'")  # doctest: +SKIP
  10
  """
  groups = {}
  for entry in found:
    groups.setdefault(entry.cluster, []).append(entry)
  parts = [
    _contents(groups),
    "<article>",
    f"<h1>{text(TITLE)}</h1>",
    _lead(found, groups),
    _search(),
    _mixtures({e.task.name: e for e in found}),
    *(_cluster(name, group) for name, group in groups.items()),
    "</article>",
  ]
  return document(TITLE, parts, style=STYLE, script=SCRIPT)


def _contents(groups) -> str:
  parts = []
  for name, group in groups.items():
    items = "".join(
      f"<li id='to-{text(e.task.name)}'><a href='#{text(e.task.name)}'>"
      f"{text(e.task.paper_name)}</a></li>"
      for e in group
    )
    at = _anchor(name)
    parts.append(
      f"<a href='#{at}' data-of='{at}'>{text(readable(name))}"
      f" <span class='number'>{len(group)}</span></a>"
      f"<ul data-of='{at}'>{items}</ul>"
    )
  return f"<nav aria-label='Clusters and datasets'>{''.join(parts)}</nav>"


def _anchor(cluster: str) -> str:
  return f"cluster-{text(cluster)}"


def _lead(found: Sequence[Entry], groups) -> str:
  extras = sum(e.extra for e in found)
  outside = f" ({extras} of them extras, in no mixture)" if extras else ""
  return (
    f"<p class='lead'>{len(found)} tasks{outside} in {len(groups)} clusters,"
    f" {len(found) * spec.NUM_TEMPLATES} templates.</p>"
    "<p>Every template stands on a row of the embedded sample: what the model"
    " reads, and <span class='target'>the target</span> it is trained to"
    " write. Texts of the row are"
    " <span class='field'>in colour</span>, the template's own words are not."
    f" A dataset has {spec.MAX_TRAIN_EXAMPLES:,} training rows at most, and"
    f" its rate in a mixture is that number, {spec.MAX_RATE:,} at most (Wei et"
    " al., 2022, arXiv 2109.01652, sections 2.1 and 2.4).</p>"
  )


def _search() -> str:
  return (
    "<div class='search'><input id='words' type='search' placeholder='Filter"
    " datasets and templates by words' aria-label='Filter datasets and"
    " templates by words' autocomplete='off' /><button id='toggle'"
    " type='button'>Open or close all</button><span id='count'"
    " class='small muted' aria-live='polite'></span></div>"
  )


def _mixtures(known: dict[str, Entry]) -> str:
  """Which tasks each split trains and evaluates on, and their rates' sum."""
  rows = []
  for split in splits.all_splits():
    rates = [known[t].rate if t in known else None for t in split.train]
    unknown = sum(r is None for r in rates)
    total = f"{sum(r or 0 for r in rates):,}"
    total += f" and {unknown} unknown" if unknown else ""
    out = ", ".join(readable(c) for c in split.left_out) or "\u2013"
    rows.append(
      f"<tr><td class='text'>{text(split.mixture('train'))}</td>"
      f"<td>{len(split.train)}</td><td>{text(total)}</td>"
      f"<td>{len(split.evaluation)}</td>"
      f"<td class='text wrap'>{text(out)}</td></tr>"
    )
  header = ["mixture", "trains on", "rates", "evaluates on", "left out too"]
  return (
    "<section id='mixtures'><h2>Mixtures</h2>"
    + table(
      header,
      rows,
      1,
      "Numbers of tasks, and the sum of their rates. A held-out cluster is"
      " evaluated by the mixture of the same name that ends in _eval; clusters"
      " too near to it are left out of training too.",
    ).replace("<th>left out", "<th class=text>left out")
    + "</section>"
  )


def _cluster(name: str, group: Sequence[Entry]) -> str:
  out = splits.excluded(name) - {name}
  together = ""
  if out and name in clusters.CLUSTERS:
    near = ", ".join(readable(c) for c in sorted(out))
    together = (
      f"<p class='muted small'>Held out, it takes {text(near)} out of training"
      " with it.</p>"
    )
  return (
    f"<section class='cluster' id='{_anchor(name)}'>"
    f"<h2>{text(readable(name))}</h2>{together}"
    + "\n".join(_dataset(e) for e in group)
    + "</section>"
  )


def _dataset(entry: Entry) -> str:
  task = entry.task
  extra = "<span class='tag'>extra</span>" if entry.extra else ""
  notes = "".join(f"<li>{text(n)}</li>" for n in task.notes)
  notes = f"<ul class='notes'>{notes}</ul>" if notes else ""
  missing = (
    f"<p class='warn small'>Templates are on no row: {text(entry.unrendered)}."
    "</p>"
    if entry.unrendered
    else ""
  )
  turned = sum(t.kind == "turned around" for t in entry.templates)
  said = f", {turned} turned around" if turned else ""
  return (
    f"<section class='dataset' id='{text(task.name)}'"
    f" data-cluster='{text(readable(entry.cluster))}'>"
    f"<h3>{text(task.paper_name)}<span class='name'>{text(task.name)}</span>"
    f"{extra}</h3>{_facts(entry)}{_splits(entry)}{notes}{missing}"
    f"<details><summary>{len(entry.templates)} templates{said}</summary>"
    + "".join(_template(t) for t in entry.templates)
    + _row(entry)
    + "</details></section>"
  )


def _facts(entry: Entry) -> str:
  pairs = [(name, text(value)) for name, value in entries.facts(entry)]
  links = entries.links(entry)
  if links:
    pairs.append(
      ("links", " \u00b7 ".join(link(address, name) for name, address in links))
    )
  items = "".join(f"<dt>{text(n)}</dt><dd>{v}</dd>" for n, v in pairs)
  return f"<dl>{items}</dl>"


def _splits(entry: Entry) -> str:
  rows = [
    f"<tr><td class='text'>{ours}</td><td class='text wrap'>"
    f"{text(entries.split_line(entry.task, ours))}</td><td class='text wrap'>"
    f"{text(entries.split_rows(entry, ours) or chr(0x2013))}</td></tr>"
    for ours in entries.SPLITS
  ]
  return table(["split", "rows of the source", "how many"], rows, 3)


def _template(one: Rendered) -> str:
  turned = " turned" if one.kind == "turned around" else ""
  tags = f"<span class='tag{turned}'>{text(one.kind)}</span>"
  if one.shows_options:
    tags += "<span class='tag'>options shown</span>"
  return (
    f"<div class='sample'><header><b>Template {one.number}</b>"
    f"<span>{tags}</span></header>"
    f"<pre class='input'><span class='label'>input</span>"
    f"{_pieces(one.inputs)}</pre>"
    f"<pre class='target'><span class='label'>target</span>"
    f"{_pieces(one.targets)}</pre></div>"
  )


def _pieces(pieces) -> str:
  return "".join(
    f"<span class='field'>{text(value)}</span>" if field else text(value)
    for value, field in pieces
  )


def _row(entry: Entry) -> str:
  """What the sample row has beside the templates' texts."""
  lines = []
  if entry.choices and not isinstance(entry.task.choices, tuple):
    lines.append(("Choices of this row", entry.choices))
  if len(entry.references) > 1:
    lines.append(("Accepted answers of this row", entry.references))
  return "".join(
    f"<p class='small'>{name}: {text(' | '.join(values))}</p>"
    for name, values in lines
  )
