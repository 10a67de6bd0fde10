"""Golden text of what is printed and pasted."""

import io
from typing import Any

from rich.console import Console

from antibody.benchmarks.speed.tables import markdown, print_speed


def case(stage: str, contender: str, seconds: float, peak: float | None) -> dict[str, Any]:
    return {
        "stage": stage,
        "rows": "short",
        "contender": contender,
        "seconds": seconds,
        "seconds_min": seconds - 0.1,
        "seconds_max": seconds + 0.1,
        "tokens_per_second": 900 / seconds,
        "seconds_over_trl": seconds / 2,
        "seconds_over_hf_trainer": seconds / 3,
        "seconds_over_textbook": seconds / 4,
        "floor_seconds": 0.5,
        "peak_mb": peak,
        "peak_over_trl": None if peak is None else peak / 2000,
    }


RESULT = {
    "model": "smollm2-135m", "dtype": "float32", "device": "cpu", "device_name": "A CPU", "threads": 2,
    "batch_size": 16,
    "cases": [case("finetune", "trl", 2.0, 2000.0), case("align", "antibody", 5.0, None)],
    "scaling": [
        {
            "axis": "align: batch", "rows": "medium", "batch_size": 4, "micro_batch_size": None,
            "trainable_parameters": 1000, "seconds": 1.25, "tokens_per_step": 400, "tokens_per_second": 320.0,
            "peak_mb": 1500.4,
        }
    ],
    "end_to_end": [{"rows": "short", "steps": 100, "trl_seconds": 200.0, "antibody_seconds": 190.0, "ratio": 0.95}],
}  # fmt: skip

PAGE = """\
finetune: smollm2-135m, float32 on cpu (A CPU), 2 threads, batch 16

| rows | trainer | s/step | min-max | tokens/s | x trl | x hf | x textbook | x floor | peak MB | MB x trl |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| short | trl | 2.000 | 1.900-2.100 | 450 | 1.00 | 0.67 | 0.50 | 4.0 | 2000 | 1.00 |

align: smollm2-135m, float32 on cpu (A CPU), 2 threads, batch 16

| rows | trainer | s/step | min-max | tokens/s | x trl | x hf | x textbook | x floor | peak MB | MB x trl |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| short | antibody | 5.000 | 4.900-5.100 | 180 | 2.50 | 1.67 | 1.25 | 10.0 | n/a | n/a |

How Antibody's cost grows

| axis | rows | batch | micro-batch | parameters | s/step | tokens/step | tokens/s | peak MB |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| align: batch | medium | 4 | whole | 1000 | 1.250 | 400 | 320 | 1500 |

Whole processes, start-up and saving included

| rows | steps | TRL script s | antibody finetune s | ratio |
| --- | ---: | ---: | ---: | ---: |
| short | 100 | 200.0 | 190.0 | 0.95 |

Seconds are medians of interleaved steps, optimiser included. The floor is the arithmetic that the step needs, what \
rows share counted once, over the matmul rate measured beside it.
"""


def test_page() -> None:
    assert markdown(RESULT) == PAGE


def test_terminal_shows_the_same_cells() -> None:
    stream = io.StringIO()
    print_speed(RESULT, Console(file=stream, width=160, color_system=None))
    printed = stream.getvalue()
    for line in PAGE.splitlines():
        if line.startswith("|") and "---" not in line:
            assert all(cell.strip() in printed for cell in line.strip("|").split("|"))


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    stream = io.StringIO()
    print_speed(RESULT, Console(file=stream, width=80, color_system=None))
    printed = stream.getvalue()
    assert "min-max" not in printed
    assert "x textbook" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
