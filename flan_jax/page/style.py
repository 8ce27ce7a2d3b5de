"""Every page's style sheet: one column, light and dark, prints on paper."""

CSS = """
:root { --ink: #1d2129; --muted: #667085; --line: #e4e7ec; --paper: #ffffff;
  --panel: #f7f8fa; --after: #2563eb; --before: #a36a1f; --up: #15803d;
  --down: #b42318; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec;
  --muted: #98a1b0; --line: #2e343e; --paper: #14171c; --panel: #1b1f26;
  --after: #74a5ff; --before: #d9a35b; --up: #5fc686; --down: #ff8f84; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Liberation Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px;
  letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 52px 0 12px; letter-spacing: -0.01em; }
h3 { font-size: 14px; margin: 24px 0 8px; }
p { margin: 0 0 12px; max-width: 74ch; }
.lead { font-size: 17px; } .muted { color: var(--muted); }
.small { font-size: 13px; }
.tiles { display: grid; gap: 12px; margin: 26px 0 0;
  grid-template-columns: repeat(auto-fit, minmax(205px, 1fr)); }
.tile { background: var(--panel); border: 1px solid var(--line);
  border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 25px; line-height: 1.25;
  font-weight: 650; letter-spacing: -0.02em; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 13px; }
.tile .from { color: var(--muted); font-weight: 450; font-size: 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
p.note { font-size: 13px; color: var(--muted); max-width: none; }
th { font-weight: 600; text-align: right; color: var(--muted); font-size: 12px;
  padding: 6px 7px; border-bottom: 1.5px solid var(--ink);
  vertical-align: bottom; white-space: nowrap; }
td { text-align: right; padding: 7px 7px; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th.text, td.text { text-align: left; }
td.wrap { white-space: normal; overflow-wrap: anywhere; }
tr.cluster td { font-weight: 600; background: var(--panel);
  border-top: 1px solid var(--muted); }
tr.second td { color: var(--muted); }
td.strong { font-weight: 650; }
.up { color: var(--up); } .down { color: var(--down); }
.plots { display: grid; gap: 26px 34px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
svg { display: block; width: 100%; max-width: 100%; height: auto;
  overflow: visible; font-family: inherit; }
figure { margin: 22px 0 0; }
.sample { border: 1px solid var(--line); border-radius: 10px;
  margin: 0 0 16px; overflow: hidden; break-inside: avoid; }
.sample header { background: var(--panel); padding: 8px 16px; font-size: 13px;
  border-bottom: 1px solid var(--line); display: flex; gap: 6px 14px;
  flex-wrap: wrap; justify-content: space-between; }
.sample pre { margin: 0; padding: 14px 16px; max-height: 320px;
  overflow: auto; }
.sample table { border-top: 1px solid var(--line); }
.sample td, .sample th { padding-left: 16px; }
.sample tr:last-child td { border-bottom: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0;
  font: 12.5px/1.55 ui-monospace, "SF Mono", Menlo, Consolas,
  "Liberation Mono", monospace; }
pre.box { background: var(--panel); border: 1px solid var(--line);
  border-radius: 10px; padding: 12px 16px; max-height: 420px; overflow: auto; }
.bar { display: inline-block; height: 8px; border-radius: 2px;
  vertical-align: middle; margin-left: 8px; }
.confusion h3 { margin-top: 0; }
.confusion th { white-space: normal; overflow-wrap: anywhere; }
.warn { border-left: 3px solid var(--before); padding: 8px 16px; margin: 16px 0;
  background: var(--panel); border-radius: 0 8px 8px 0; }
.warn summary { cursor: pointer; }
.warn ul { margin: 4px 0 0; padding-left: 18px; }
footer { margin-top: 60px; padding-top: 14px; font-size: 13px;
  border-top: 1px solid var(--line); color: var(--muted); }
@media print {
  :root { --ink: #000; --muted: #555; --line: #ccc; --paper: #fff;
    --panel: #f6f6f6; --after: #1d4ed8; --before: #8a5a16; --up: #14682f;
    --down: #9d1c12; }
  main { max-width: none; padding: 0; } body { font-size: 10.5pt; }
  .scroll { overflow: visible; } table { font-size: 8.5pt; }
  th, td { padding-left: 4px; padding-right: 4px; }
  .sample pre, pre.box { max-height: none; }
  h2, h2 + p, h3 { break-after: avoid; }
  figure, .plots svg, tr { break-inside: avoid; }
  .plots { grid-template-columns: 1fr 1fr; }
}
"""
