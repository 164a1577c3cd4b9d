"""How report pages look: one style sheet, light and dark, for screens and paper."""

COLORS = ("gray", "blue", "teal", "amber", "rose", "violet")
"""Names of the line colors, in the order in which labels take them; scratch is gray, pretrained blue."""

CSS = """
:root { --ink:#1c2330; --soft:#5d6778; --line:#dfe3ea; --paper:#fff; --wash:#f5f7fa; --bar:#dbe7fb;
  --gray:#7a8496; --blue:#2563eb; --teal:#0f9488; --amber:#c77700; --rose:#d6336c; --violet:#7c3aed; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ef; --soft:#9aa4b5; --line:#2c3442; --paper:#12161d;
  --wash:#1a2029; --bar:#1f3560; --gray:#98a2b3; --blue:#6ea0ff; --teal:#3cc5b6; --amber:#f0a93b; --rose:#ff7aa8;
  --violet:#b08cff; } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif }
main { max-width:1080px; margin:0 auto; padding:40px 24px 80px }
h1 { font-size:28px; line-height:1.2; margin:0 0 6px; letter-spacing:-.01em }
h2 { font-size:19px; margin:44px 0 12px; padding-top:20px; border-top:1px solid var(--line) }
p { margin:8px 0; max-width:75ch } .soft { color:var(--soft) } small { color:var(--soft); font-weight:400 }
.verdict { background:var(--wash); border-left:4px solid var(--blue); padding:12px 16px; border-radius:0 8px 8px 0;
  margin:18px 0; font-size:16px; max-width:none }
.wide { overflow-x:auto; margin:14px 0 }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th,td { padding:7px 12px; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap }
thead th { color:var(--soft); font-weight:600; text-align:center; border-bottom:1px solid var(--line) }
tbody th, .left td { text-align:left } th small, td small { display:block }
.setting th { background:var(--wash); color:var(--soft); font-size:14px !important }
.results tbody th { font-size:16px } .results tbody td { font-size:16px } .results th,.results td { padding:7px 9px }
.results tbody th small { white-space:normal; max-width:210px }
.bar { background:linear-gradient(to right,var(--bar) var(--part),transparent var(--part)) no-repeat 0 100%/100% 4px }
.charts,.pictures { display:grid; grid-template-columns:repeat(auto-fill,minmax(420px,1fr)); gap:16px; margin:12px 0 }
.charts>*, .pictures>* { background:var(--wash); border-radius:10px; margin:0; padding:8px; max-width:540px }
.pictures img { width:100%; display:block; border-radius:6px } figcaption { color:var(--soft); padding:6px 4px 2px }
.chart { width:100%; height:auto; display:block } .chart text { fill:var(--ink); font-size:13px }
.chart .title { font-weight:600; font-size:13.5px } .chart .tick { fill:var(--soft); font-size:11px }
.chart .over { paint-order:stroke; stroke:var(--wash); stroke-width:4px; stroke-linejoin:round }
.chart .grid { stroke:var(--line) } .chart .reference { stroke:var(--soft); stroke-dasharray:4 4 }
.chart polyline { fill:none; stroke-width:1.8; stroke-linejoin:round; stroke:currentColor; stroke-opacity:.8 }
.chart circle { fill:currentColor } .chart circle.run { fill-opacity:.55 }
.chart circle.hollow { fill:var(--wash); stroke:currentColor; stroke-width:1.6 }
.chart .spread { stroke:currentColor; stroke-width:1.4; stroke-opacity:.8 }
.legend { display:flex; flex-wrap:wrap; gap:6px 20px; color:var(--soft) }
.legend i { display:inline-block; width:18px; height:3px; vertical-align:middle; margin-right:7px;
  background:currentColor; border-radius:2px }
.gray{color:var(--gray)} .blue{color:var(--blue)} .teal{color:var(--teal)} .amber{color:var(--amber)}
.rose{color:var(--rose)} .violet{color:var(--violet)}
details { margin:12px 0 } summary { cursor:pointer; color:var(--soft) }
code, .left td { font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace }
.left td, .left tbody th { white-space:normal; overflow-wrap:anywhere; vertical-align:top; text-align:left }
.left tbody th { font-weight:500; width:22% } .differs td { background:var(--wash) }
@media print { details { display:block } main { max-width:none } }
@media (max-width:560px) { .charts,.pictures { grid-template-columns:1fr } }
"""
