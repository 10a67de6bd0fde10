"""Draws a comparison's figures as SVG files, for a paper or the documentation: kaleido does it, in an installed Chrome.

pip install kaleido
python scripts/figures.py runs/laptop docs/figures
"""

import re
from argparse import ArgumentParser
from pathlib import Path

from antibody.reports.grid import grid_figures


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path, help="The output of `antibody compare`.")
    parser.add_argument("folder", type=Path, help="Where the files go.")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, figure in grid_figures(given.comparison).items():
        file = given.folder / re.sub(r"[^\w.]+", "-", f"{given.comparison.resolve().name}-{name}.svg")
        figure.write_image(file, width=880)
        print(file)


if __name__ == "__main__":
    main()
