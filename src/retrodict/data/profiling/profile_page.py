"""A profile as one page of HTML: what to look at first, then every column, then what goes together."""

from __future__ import annotations

from retrodict.data.profiling._figures import draw_heat, draw_histogram, draw_missing
from retrodict.data.profiling._html import amount, bar, chip, escape, facts, page, percent
from retrodict.data.profiling.findings import Finding, findings
from retrodict.data.profiling.profile import ColumnProfile, Profile

__all__ = ["profile_html"]

_QUANTILES = {
    "0.01": "1 %",
    "0.05": "5 %",
    "0.25": "25 %",
    "0.5": "median",
    "0.75": "75 %",
    "0.95": "95 %",
    "0.99": "99 %",
}
_SHOWN = 30  # findings before they fold


def profile_html(profile: Profile) -> str:
    """Write the page: one self-contained text, light and dark, without script.

    Parameters
    ----------
    profile : Profile

    Returns
    -------
    str
        A whole document.
    """
    found = findings(profile)
    parts = [
        f"<h1>{escape(profile.name)}</h1>",
        f'<p class="quiet">Profile of {escape(profile.origin)}</p>',
        _overview(profile),
        _findings(found),
        _columns(profile, found),
        _together(profile),
        _missing(profile),
    ]
    return page(f"Profile of {profile.name}", "".join(parts))


def _overview(profile: Profile) -> str:
    cells = profile.rows * len(profile.columns)
    missing = sum(column.missing for column in profile.columns)
    key = " or ".join(" + ".join(names) for names in profile.keys[:3])
    said = {
        "rows": profile.rows,
        "columns": len(profile.columns),
        "missing values": percent(missing / cells) if cells else None,
        "repeated rows": "not counted" if profile.duplicated is None else profile.duplicated,
        "candidate key": key or "none found",
    }
    return f'<div class="overview">{facts(said)}</div>'


def _findings(found: list[Finding]) -> str:
    if not found:
        return '<section><h2>To look at</h2><p class="quiet">Nothing stands out.</p></section>'
    lines = [f'<li class="{each.level}">{escape(each.text)}</li>' for each in found]
    shown = f'<ul class="findings">{"".join(lines[:_SHOWN])}</ul>'
    if len(lines) > _SHOWN:
        rest = "".join(lines[_SHOWN:])
        shown += f'<details><summary>{len(lines) - _SHOWN} more</summary><ul class="findings">{rest}</ul></details>'
    return f"<section><h2>To look at</h2>{shown}</section>"


def _columns(profile: Profile, found: list[Finding]) -> str:
    warned = {name for each in found if each.level == "warning" for name in each.columns}
    keys = {name for key in profile.keys for name in key}
    cards = "".join(_card(column, warned=column.name in warned, key=column.name in keys) for column in profile.columns)
    return f'<section><h2>Columns</h2><div class="cards">{cards}</div></section>'


def _card(column: ColumnProfile, *, warned: bool, key: bool) -> str:
    chips = [chip(column.type, "main")]
    chips += [chip("key", "yes")] if key else []
    chips += [chip(column.order)] if column.order else []
    chips += [chip("look", "alert")] if warned else []
    share = column.known / column.rows if column.rows else 0.0
    about = f"{column.known:,} values"
    if column.missing:
        about += f", {percent(1 - share)} missing"
    if column.type in ("bool", "date", "float", "int", "string", "time"):
        about += f", {'' if column.distinct_exact else 'about '}{column.distinct:,} distinct"
    body = [
        f"<header><h3>{escape(column.name)}</h3>{''.join(chips)}</header>",
        f'<div class="fill"><span style="width:{100 * share:.2f}%"></span></div>',
        f'<div class="quiet">{escape(about)}</div>',
    ]
    if column.histogram is not None:
        body.append(draw_histogram(column.histogram, kind=column.type))
    body += [_numbers(column), _texts(column), _top(column)]
    return f'<article class="card">{"".join(body)}</article>'


def _numbers(column: ColumnProfile) -> str:
    if column.quantiles is None:
        return ""
    said: dict[str, object] = {"smallest": column.minimum}
    for share, name in _QUANTILES.items():
        value = column.quantiles.get(share)
        said[name] = round(value, 4) if isinstance(value, float) and column.type == "int" else value
    said["largest"] = column.maximum
    if column.type in ("time", "date"):
        said = {name: said[name] for name in ("smallest", "median", "largest")}
        said = {"first": said["smallest"], "median": said["median"], "last": said["largest"]}
    said |= {"mean": column.mean, "deviation": column.std, "skew": column.skew, "kurtosis": column.kurtosis}
    said |= {"zeros": column.zeros or None, "negative": column.negatives or None, "infinite": column.infinities or None}
    note = ""
    if column.quantile_error:
        note = f'<p class="quiet">Quantiles within {percent(column.quantile_error / max(column.known, 1))} of rank.</p>'
    return facts(said) + note


def _texts(column: ColumnProfile) -> str:
    lengths, parts = column.lengths, []
    if lengths is not None:
        parts.append(facts({
            "shortest": lengths.least, "mean length": round(lengths.mean, 1), "longest": lengths.most,
            "empty": lengths.empty or None, "blanks around": lengths.padded or None,
        }))  # fmt: skip
    if column.hidden is not None:
        parts.append(f'<p class="quiet">Values not shown: {escape(column.hidden)}.</p>')
    if column.shapes and (column.hidden or column.distinct > 10):
        lines = "".join(
            bar(each.value if isinstance(each.value, str) else "", each.share, percent(each.share))
            for each in column.shapes[:5]
        )
        parts.append(f'<ul class="bars shapes">{lines}</ul>')
    return "".join(parts)


def _top(column: ColumnProfile) -> str:
    if not column.top or (column.histogram is not None and column.distinct > 50):
        return ""
    lines = [bar(amount(each.value), each.share, percent(each.share)) for each in column.top]
    rest = 1 - sum(each.share for each in column.top)
    left = column.distinct - len(column.top)
    if left > 0 and rest > 0:
        lines.append(bar(f"{left:,} others", rest, percent(rest)))
    note = ""
    if column.top_rows < column.known:
        note = f'<p class="quiet">Shares in a sample of {column.top_rows:,} values.</p>'
    return f'<ul class="bars">{"".join(lines)}</ul>{note}'


def _together(profile: Profile) -> str:
    found, parts = profile.correlations, []
    if len(found.numbers) > 1:
        # One map: Spearman above the diagonal, Pearson below it.
        mixed = [
            [found.spearman[i][j] if j > i else found.pearson[i][j] for j in range(len(found.numbers))]
            for i in range(len(found.numbers))
        ]
        parts.append('<p class="quiet">Numbers and times: Pearson below the diagonal, Spearman above it.</p>')
        parts.append(draw_heat(found.numbers, mixed, title="Correlations"))
    if len(found.categories) > 1:
        parts.append("<p class=quiet>Categories: Cramér's V, corrected for chance.</p>")
        parts.append(draw_heat(found.categories, found.cramer, title="Associations of categories"))
    if not parts:
        return ""
    rows = (
        f"{found.rows:,} rows, drawn with seed {found.seed}"
        if found.rows < profile.rows
        else f"all {found.rows:,} rows"
    )
    return f'<section><h2>What goes together</h2>{"".join(parts)}<p class="quiet">From {rows}.</p></section>'


def _missing(profile: Profile) -> str:
    missing = profile.missing
    if not missing.columns:
        return ""
    body = draw_missing(missing, profile.rows)
    if missing.others:
        body += f'<p class="quiet">{missing.others:,} rows of rarer patterns are not drawn.</p>'
    if len(missing.columns) > 1:
        body += '<p class="quiet">Missing together: phi coefficient.</p>'
        body += draw_heat(missing.columns, missing.correlation, title="Missing together")
    return f"<section><h2>Where values are missing</h2>{body}</section>"
