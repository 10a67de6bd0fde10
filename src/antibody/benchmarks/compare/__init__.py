"""`antibody compare`: alignments x fine-tunings x attacks x poison ratios x tasks x seeds, as a resumable grid.

``config`` is the file that a user writes, ``checking`` reads it, ``rows`` finds the data it names, ``plan`` lists what
there is to do and names each piece by what it depends on, ``alignment``, ``finetuning`` and ``answers`` do it, ``run``
goes through all of it. Tables and figures are `antibody.reports.grid`, which reads what lies in the directory.
"""
