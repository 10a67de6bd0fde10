"""Plotly figures over what a run logged. Each is `None` where there is nothing to draw."""

from html import escape

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from antibody.reports.reading import Fields, Row, number

HARMFUL, BENIGN, NEUTRAL = "#d55e00", "#2f81c7", "#8a8a8a"
# Distinguishable with the common kinds of colour blindness (Okabe and Ito), darkened to carry white digits.
COLOURS = ["#6b6b6b", "#0072b2", "#c44f00", "#9b4f8e", "#00785a", "#8a6d00"]
LOSSES = {
    "loss": "training loss",
    "loss_align": "alignment: refusals to harmful prompts",
    "loss_harmful": "harmful answers",
    "loss_harmful_perturbed": "harmful answers after a simulated attack step",
    "loss_refusal": "refusals after a simulated attack step",
    "loss_anchor": "anchors",
    "anchor_drift": "anchors: drift from the aligned model",
}


def tradeoff_figure(rows: list[Row]) -> go.Figure | None:
    """Harmful score against fine-tuning accuracy, one numbered point a row that has both."""
    placed = [row for row in rows if row.harmful_score is not None and row.task_accuracy is not None]
    if not placed:
        return None
    figure = go.Figure()
    for row in placed:
        name = f"{row.number} {escape(row.name)}"
        figure.add_scatter(
            x=[row.task_accuracy],
            y=[row.harmful_score],
            mode="markers+text",
            name=name,
            text=[str(row.number)],
            textfont={"color": "white", "size": 13},
            marker={"size": 24, "color": COLOURS[(row.number - 1) % len(COLOURS)]},
            hovertemplate=name + "<br>FA %{x:.1f}%, HS %{y:.1f}%<extra></extra>",
        )
    figure.update_xaxes(range=[-4, 104])
    figure.update_yaxes(range=[-6, 106])
    # Without this a single point would have no entry that says what it is.
    figure.update_layout(showlegend=True)
    return styled(figure, "Fine-tuning accuracy (FA), %: right is better", "Harmful score (HS), %: low is better", 460)


def weight_share_figure(metrics: list[Fields]) -> go.Figure | None:
    """The share of a batch's weight that its harmful rows got, against their share of its rows."""
    if all(number(row, "weight_share_harmful") is None for row in metrics):
        return None
    figure = go.Figure()
    for key, name, line in (
        ("data_share_harmful", "share of the rows", {"color": NEUTRAL, "dash": "dash"}),
        ("weight_share_harmful", "share of the weight", {"color": HARMFUL, "width": 3}),
    ):
        shares = [number(row, key) for row in metrics]
        figure.add_scatter(
            x=[number(row, "step") for row in metrics],
            y=[None if value is None else 100 * value for value in shares],
            mode="lines",
            name=f"harmful rows: {name}",
            line=line,
        )
    figure.update_yaxes(rangemode="tozero")
    return styled(figure, "Step", "% of the batch")


def score_figure(audit: list[Fields], bins: int = 40) -> go.Figure | None:
    """Histograms of the scores of benign and of harmful rows, each as a share of its kind.

    The score is the gate's where there is one: what it withholds has no other.
    """
    screened = any(number(row, "screening_score") is not None for row in audit)
    key = "screening_score" if screened else "score_first"
    kinds = {
        name: [score for row in audit if row.get("harmful") is kind and (score := number(row, key)) is not None]
        for name, kind in (("benign rows", False), ("harmful rows", True))
    }
    scores = [score for values in kinds.values() for score in values]
    if not scores:
        return None
    low, high = min(scores), max(scores)
    width = (high - low) / bins or 1.0
    figure = _histogram(kinds, low, width, bins)
    meaning = "Screening score q: low is harmful" if screened else "First score r: low means rather refuse"
    return styled(figure, meaning, "% of the rows of a kind")


def screening_figure(audit: list[Fields], threshold: float | None, bins: int = 20) -> go.Figure | None:
    """Histograms of the probability of being benign, by label, and the threshold below which a row is withheld."""
    kinds = {
        name: [
            value
            for row in audit
            if row.get("harmful") is kind and (value := number(row, "benign_probability")) is not None
        ]
        for name, kind in (("benign rows", False), ("harmful rows", True), ("rows without a label", None))
    }
    if not any(kinds.values()):
        return None
    figure = _histogram(kinds, 0.0, 1 / bins, bins)
    if threshold is not None:
        figure.add_vline(x=threshold, line={"color": NEUTRAL, "dash": "dash"}, annotation_text="threshold")
    figure.update_xaxes(range=[-0.02, 1.02])
    return styled(figure, "Probability of being benign, by the gate's screen", "% of the rows of a kind")


def gate_figure(metrics: list[Fields]) -> go.Figure | None:
    """The rows that the gate withheld of each batch, where there are any, and below the anchors' share of the step."""
    withheld = [number(row, "rows_withheld") for row in metrics]
    anchored = any(number(row, "anchor_share") is not None for row in metrics)
    # Mostly there are none: what is withheld leaves the order before the first step, while other rows fill its places.
    parts = [name for name, there in (("rows", any(withheld)), ("anchors", anchored)) if there]
    if not parts:
        return None
    figure = make_subplots(rows=len(parts), cols=1, shared_xaxes=True, vertical_spacing=0.1)
    steps = [number(row, "step") for row in metrics]
    if "rows" in parts:
        figure.add_bar(x=steps, y=withheld, marker={"color": HARMFUL, "line": {"width": 0}}, row=1, col=1)
        figure.update_yaxes(title_text="Rows withheld", rangemode="tozero", row=1, col=1)
    if anchored:
        shares = [None if (value := number(row, "anchor_share")) is None else 100 * value for row in metrics]
        figure.add_scatter(
            x=steps, y=shares, mode="lines", line={"color": COLOURS[4], "width": 3}, row=len(parts), col=1
        )
        figure.update_yaxes(title_text="Anchors, % of the step", range=[0, 104], row=len(parts), col=1)
    figure.update_xaxes(title_text="Step", row=len(parts), col=1)
    figure.update_layout(showlegend=False)
    return styled(figure, height=120 + 140 * len(parts))


def reliability_figure(bins: list[Fields]) -> go.Figure | None:
    """The share of held-out rows that are benign against the probability they were given; larger points, more rows."""
    values = [[number(each, key) for key in ("predicted", "observed", "rows")] for each in bins]
    placed = [
        (predicted, observed, rows)
        for predicted, observed, rows in values
        if None not in (predicted, observed) and rows
    ]
    if not placed:
        return None
    predicted, observed, rows = (list(column) for column in zip(*placed, strict=True))
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": NEUTRAL, "dash": "dash"}, hoverinfo="skip")
    figure.add_scatter(
        x=predicted,
        y=observed,
        customdata=rows,
        mode="markers",
        # The area of a point is as its rows.
        marker={"color": BENIGN, "opacity": 0.8, "size": [8 + 24 * (count / max(rows)) ** 0.5 for count in rows]},
        hovertemplate="given %{x:.2f}, benign %{y:.2f}, %{customdata} rows<extra></extra>",
    )
    figure.update_xaxes(range=[-0.05, 1.05])
    figure.update_yaxes(range=[-0.08, 1.08])
    figure.update_layout(showlegend=False)
    return styled(figure, "Probability of being benign that the screen gave", "Share that is benign")


def training_figure(metrics: list[Fields]) -> go.Figure | None:
    """The losses over training and, for an alignment run, λ_t above them."""
    losses = [key for key in LOSSES if any(number(row, key) is not None for row in metrics)]
    weighed = any(number(row, "lambda_t") is not None for row in metrics)
    if not losses and not weighed:
        return None
    heights = [0.35, 0.65] if weighed else [1.0]
    figure = make_subplots(rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.08)
    steps = [number(row, "step") for row in metrics]
    if weighed:
        values = [number(row, "lambda_t") for row in metrics]
        figure.add_scatter(
            x=steps, y=values, mode="lines", name="λ_t", line={"color": COLOURS[4], "width": 3}, row=1, col=1
        )
        figure.update_yaxes(title_text="λ_t", row=1, col=1)
    for key, colour in zip(
        LOSSES, (COLOURS[0], BENIGN, HARMFUL, "#d99a00", "#9b4f8e", COLOURS[4], COLOURS[4]), strict=True
    ):
        if key in losses:
            values = [number(row, key) for row in metrics]
            line = {"color": colour, "width": 2, "dash": "dot" if key == "loss_harmful_perturbed" else "solid"}
            figure.add_scatter(x=steps, y=values, mode="lines", name=LOSSES[key], line=line, row=len(heights), col=1)
    figure.update_yaxes(title_text="Nats per token", row=len(heights), col=1)
    figure.update_xaxes(title_text="Step", row=len(heights), col=1)
    figure.update_layout(showlegend=True)
    return styled(figure, height=520 if weighed else 360)


def _histogram(kinds: dict[str, list[float]], low: float, width: float, bins: int) -> go.Figure:
    """Each kind's values as shares of the kind. The last bin holds what lies above it."""
    figure = go.Figure()
    # Counted here and not in the browser, so that the page's size does not grow with the upload.
    for (name, values), colour in zip(kinds.items(), (BENIGN, HARMFUL, NEUTRAL), strict=False):
        if values:
            counts = [0] * bins
            for value in values:
                counts[min(bins - 1, int((value - low) / width))] += 1
            figure.add_bar(
                x=[low + (position + 0.5) * width for position in range(bins)],
                y=[100 * count / len(values) for count in counts],
                width=width,
                name=f"{name} ({len(values)})",
                marker={"color": colour, "opacity": 0.65, "line": {"width": 0}},
            )
    figure.update_layout(barmode="overlay", bargap=0, showlegend=True)
    return figure


def styled(figure: go.Figure, x: str | None = None, y: str | None = None, height: int = 360) -> go.Figure:
    """Transparent, so that one figure reads on a light and on a dark page."""
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#767676"},
        margin={"l": 64, "r": 16, "t": 16, "b": 56},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    # A standoff, because the text of the tick labels is otherwise overprinted by the title of the axis.
    grid = {
        "title_standoff": 12,
        "automargin": True,
        "gridcolor": "rgba(128,128,128,0.25)",
        "zerolinecolor": "rgba(128,128,128,0.5)",
    }
    figure.update_xaxes(**grid, **({"title_text": x} if x else {}))
    figure.update_yaxes(**grid, **({"title_text": y} if y else {}))
    return figure
