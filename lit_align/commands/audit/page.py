"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lit_align.commands.audit.coloured import Coloured, Run
from lit_align.commands.audit.terminal import cell_text, headings
from lit_align.data.audit.table import Cell, Measured, Table

_LONGEST_RUN = 6_000  # characters of a run; the middle of a longer one is left out

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5c6670; --ground: #fbfbfa; --card: #ffffff; --line: #dfe2e5;
  --prompt: #dceaf8; --answer: #d5f0d9; --scaffold: #fbe6bd; --bar: #4a7fb0; --bad: #b3261e; --good: #1d6b34; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --dim: #9aa4ad; --ground: #15181b; --card: #1d2125;
  --line: #343a40; --prompt: #1d3a55; --answer: #1d4a2a; --scaffold: #56431a; --bar: #6fa5d6; --bad: #ff8a80;
  --good: #7fd196; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 78rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.25rem 0 .25rem; }
p { margin: .25rem 0 .75rem; color: var(--dim); max-width: 62rem; }
nav a { margin-right: 1rem; color: inherit; white-space: nowrap; }
ul.failed { padding-left: 1.25rem; color: var(--bad); }
.good { color: var(--good); } .scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } th { font-weight: 600; color: var(--dim); white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { min-width: 9rem; overflow-wrap: anywhere; }
.bars { display: inline-flex; align-items: flex-end; gap: 1px; height: 1.6rem; }
.bars i { width: 7px; background: var(--bar); min-height: 1px; }
.legend span, .tokens span { padding: .08em .15em; border-radius: 3px; box-decoration-break: clone; }
.prompt { background: var(--prompt); } .answer { background: var(--answer); } .scaffold { background: var(--scaffold); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
  margin: .75rem 0; } article h3 { font-size: .95rem; margin: 0 0 .5rem; font-weight: 600; overflow-wrap: anywhere; }
article small { color: var(--dim); font-weight: 400; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; max-height: 32rem; overflow-y: auto;
  font: .85rem/1.65 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
"""


def page(name: str, measured: Measured, samples: Sequence[Coloured]) -> str:
    """The report as HTML; all texts are escaped.

    Args:
        name: Of the run.
        measured: What was found.
        samples: Examples, with the class of their tokens.

    Example:
        >>> "&lt;b&gt;" in page("<b>", Measured(), [])
        True
    """
    failed = measured.failed
    held = f"{len(measured.checks) - len(failed)} of {len(measured.checks)} limits hold."
    verdict = (
        f"<p>{held}</p><ul class=failed>{''.join(f'<li>{escape(str(one))}</li>' for one in failed)}</ul>"
        if failed
        else f"<p class=good>{held}</p>"
    )
    links = "".join(f"<a href='#{_anchor(table.name)}'>{escape(table.name)}</a>" for table in measured.tables)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>Audit of {escape(name)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Audit of {escape(name)}</h1>{verdict}<nav>{links}<a href='#tokens'>tokens</a></nav>\n"
        f"{''.join(map(_section, measured.tables))}"
        "<h2 id=tokens>tokens</h2><p class=legend>What training sees: <span class=prompt>prompt</span> is given, "
        "<span class=answer>answer</span> is trained, <span class=scaffold>scaffold</span> is written by the template "
        "and not trained.</p>\n"
        f"{''.join(map(_article, samples))}</body></html>\n"
    )


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _section(table: Table) -> str:
    right = [all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(table.columns))]
    names = headings(table)
    used = [i for i in range(len(table.columns)) if any(row[i] not in (None, "") for row in table.rows)]
    head = "".join(f"<th{' class=number' * right[i]}>{escape(names[i])}</th>" for i in used)
    body = "".join(
        "<tr>" + "".join(_cell(row[i], table.columns[i], right[i]) for i in used) + "</tr>\n" for row in table.rows
    )
    return (
        f"<section><h2 id='{_anchor(table.name)}'>{escape(table.name)}</h2><p>{escape(table.about)}</p>"
        f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div></section>\n"
    )


def _cell(cell: Cell, column: str, right: bool) -> str:
    if isinstance(cell, tuple):
        most = max(cell, default=0) or 1
        bars = "".join(f"<i style='height:{100 * count / most:.0f}%' title='{count}'></i>" for count in cell)
        return f"<td><span class=bars>{bars}</span></td>"
    long = isinstance(cell, str) and len(cell) > 24
    return f"<td class={'number' if right else 'text' if long else 'short'}>{escape(cell_text(cell, column))}</td>"


def _article(one: Coloured) -> str:
    counts = ", ".join(
        f"{sum(run.tokens for runs in one.paths for run in runs if run.kind == kind)} {kind}"
        for kind in ("prompt", "answer", "scaffold")
    )
    sides = ("chosen", "rejected") if len(one.paths) == 2 else ("",)
    paths = "".join(
        f"{f'<small>{side}</small>' * bool(side)}<pre class=tokens>{''.join(map(_span, runs))}</pre>"
        for side, runs in zip(sides, one.paths, strict=True)
    )
    return (
        f"<article><h3>{escape(one.part)}: {escape(one.source)}, {escape(one.id)} <small>{counts} tokens</small></h3>"
        f"{paths}</article>\n"
    )


def _span(run: Run) -> str:
    text = run.text
    if len(text) > _LONGEST_RUN:
        half = _LONGEST_RUN // 2
        text = f"{text[:half]}\n… {len(text) - _LONGEST_RUN} characters …\n{text[-half:]}"
    return f"<span class={run.kind} title='{run.tokens} {run.kind} tokens'>{escape(text)}</span>"
