"""A comparison's figures, each over one grid. None where there is nothing to draw."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean

from plotly import graph_objects as go

from antibody.reports.figures import COLOURS, styled
from antibody.reports.grid.reading import GridCell
from antibody.reports.grid.summary import Flaws, Line, Worst, flaws_of, frontier

DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "diamond", "square")
HS, FA = "Harmful score (HS), %: low is better", "Fine-tuning accuracy (FA), %: right is better"


def frontier_figure(worst: Sequence[Worst], flaws: Mapping[str, Flaws]) -> go.Figure | None:
    """Mean HS against mean FA, a point a method, over its tasks; the line joins those that none beats.

    Args:
        worst: Of one grid.
        flaws: Of its methods. One that has some is a hollow point, and neither on the line nor compared.
    """
    methods = list(dict.fromkeys(each.method for each in worst))
    points = {}
    for method in methods:
        own = [each for each in worst if each.method == method and each.accuracy is not None]
        if own:
            accuracy = mean(each.accuracy for each in own if each.accuracy is not None)
            points[method] = (accuracy, mean(each.mean for each in own))
    if not points:
        return None
    figure = go.Figure()
    best = frontier([point for method, point in points.items() if flaws[method].whole])
    figure.add_scatter(
        x=[x for x, _ in best],
        y=[y for _, y in best],
        mode="lines",
        line={"shape": "vh", "color": "#8a8a8a", "dash": "dot"},
        name="frontier",
        hoverinfo="skip",
    )
    for index, (method, (x, y)) in enumerate(points.items()):
        colour, _, symbol = _look(index)
        highest = max(each.worst for each in worst if each.method == method)
        mark = "" if flaws[method].whole else f" ({flaws[method].text})"
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            name=escape(method) + mark,
            marker={"size": 14, "color": colour, "symbol": symbol if not mark else f"{symbol}-open"},
            # Up to the worst case of the sweep.
            error_y={"type": "data", "symmetric": False, "array": [highest - y], "arrayminus": [0], "color": colour},
            hovertemplate=f"{escape(method)}{mark}<br>FA %{{x:.1f}}%, HS %{{y:.1f}}%, "
            f"worst {highest:.1f}%<extra></extra>",
        )
    figure.update_layout(showlegend=True)
    return styled(figure, FA, HS, 460)


def heat_map(lines: Sequence[Line]) -> go.Figure | None:
    """Mean HS over tasks and seeds: a row a method, a column a setting, of which there are at least two."""
    scores = _scores(lines)
    methods = list(dict.fromkeys(method for method, _ in scores))
    settings = list(dict.fromkeys(what for _, what in scores))
    if len(settings) < 2:
        return None
    values = [
        [mean(scores[method, what]) if (method, what) in scores else None for what in settings] for method in methods
    ]
    marks = {key: "" if flaws.whole else "*" for key, flaws in _flaws(lines).items()}
    figure = go.Figure(
        go.Heatmap(
            x=[escape(what) for what in settings],
            y=[escape(method) for method in methods],
            z=values,
            zmin=0,
            zmax=100,
            colorscale="Cividis",
            text=[
                [
                    "" if value is None else f"{value:.0f}{marks[method, what]}"
                    for what, value in zip(settings, row, strict=True)
                ]
                for method, row in zip(methods, values, strict=True)
            ],
            texttemplate="%{text}",
            hovertemplate="%{y}<br>%{x}: HS %{z:.1f}%<extra></extra>",
            colorbar={"title": "HS, %"},
        )
    )
    figure.update_yaxes(autorange="reversed")
    return styled(figure, height=140 + 36 * len(methods))


def ratio_figure(lines: Sequence[Line]) -> go.Figure | None:
    """HS against the share of harmful rows, a line a method, attack and variant that has several shares."""
    found: dict[tuple[str, str, str], dict[float, list[float]]] = {}
    flawed: set[tuple[tuple[str, str, str], float]] = set()
    for line in lines:
        setting, score = line.setting, line.figure("harmful_score")
        if setting.ratio is None:
            continue
        key = setting.method, setting.attack, setting.variant
        if not line.flaws.whole:
            flawed.add((key, setting.ratio))
        if score is not None:
            found.setdefault(key, {}).setdefault(setting.ratio, []).append(score.mean)
    drawn = {key: by_ratio for key, by_ratio in found.items() if len(by_ratio) > 1}
    if not drawn:
        return None
    figure = go.Figure()
    several = len({key[1:] for key in drawn}) > 1
    for index, (key, by_ratio) in enumerate(drawn.items()):
        method, attack, variant = key
        colour, dash, symbol = _look(index)
        name = ", ".join(part for part in ((method, attack, variant) if several else (method,)) if part)
        ratios = sorted(by_ratio)
        figure.add_scatter(
            x=[100 * ratio for ratio in ratios],
            y=[mean(by_ratio[ratio]) for ratio in ratios],
            mode="lines+markers",
            name=escape(name),
            line={"color": colour, "dash": dash},
            marker={"symbol": [f"{symbol}-open" if (key, ratio) in flawed else symbol for ratio in ratios], "size": 8},
        )
    figure.update_layout(showlegend=True)
    return styled(figure, "Harmful rows of the upload, %", HS, 420)


def _scores(lines: Sequence[Line]) -> dict[tuple[str, str], list[float]]:
    scores: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        score = line.figure("harmful_score")
        if score is not None:
            scores.setdefault((line.setting.method, line.setting.what), []).append(score.mean)
    return scores


def _flaws(lines: Sequence[Line]) -> dict[tuple[str, str], Flaws]:
    cells: dict[tuple[str, str], list[GridCell]] = {}
    for line in lines:
        cells.setdefault((line.setting.method, line.setting.what), []).extend(line.cells)
    return {key: flaws_of(of) for key, of in cells.items()}


def _look(index: int) -> tuple[str, str, str]:
    """A colour, a dash and a symbol; the colours come again with other dashes and symbols."""
    turn = index // len(COLOURS) % len(DASHES)
    return COLOURS[index % len(COLOURS)], DASHES[turn], SYMBOLS[turn]
