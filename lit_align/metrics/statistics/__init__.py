"""Intervals, tests and power of means over clustered items, alone and paired.

Each method is chosen by simulation (``python -m benchmarks statistics-coverage``): clusters of 1 to 6 items, as the
questions of a table of TAT-QA, 20 to 280 clusters, 50 items and more, two items of a cluster uncorrelated or with a
correlation of 0.3, means from 0.02 to 0.98, differences of pairs of which 2 to 40 % change. Coverage of 95 % intervals
over such cells from 1,500 draws each, beside the percentile bootstrap's from 120 (standard errors 0.6 and 2.0 %):

======================================  =====  ========  =====  =====  ======  =======
score                                   cells  in 93…97  below  above  lowest  highest
======================================  =====  ========  =====  =====  ======  =======
mean: right or wrong                      117      81 %    0 %   19 %  93.2 %   98.5 %
mean: right or wrong, percentile          117      36 %   38 %   26 %  79.2 %  100.0 %
mean: F1                                   78      99 %    0 %    1 %  94.0 %   97.3 %
mean: F1, percentile                       78      49 %   46 %    5 %  80.0 %   98.3 %
mean: lognormal, bound 0                   13     100 %    0 %    0 %  94.9 %   96.7 %
mean: lognormal, bound 0, percentile       13      54 %   46 %    0 %  89.2 %   96.7 %
mean: normal, no bounds                    13      92 %    0 %    8 %  94.3 %   97.8 %
mean: normal, no bounds, percentile        13      38 %   54 %    8 %  88.3 %   97.5 %
difference: right or wrong                195      43 %    0 %   57 %  94.2 %  100.0 %
difference: right or wrong, percentile    195      45 %   41 %   14 %  81.7 %  100.0 %
difference: F1                            195      46 %    0 %   54 %  93.8 %  100.0 %
difference: F1, percentile                195      37 %   52 %   11 %  81.7 %  100.0 %
======================================  =====  ========  =====  =====  ======  =======

The interval of a share of right answers, by cell, in % (*alike* is the correlation):

========  =====  =====  ====  ====  ====  ====  ====  ====  ====  ====  ====
clusters  items  alike  0.02  0.05  0.1   0.3   0.5   0.7   0.9   0.95  0.98
========  =====  =====  ====  ====  ====  ====  ====  ====  ====  ====  ====
      20     50      0  96.3  96.7  96.5  96.1  95.7  94.3  96.7  97.1  96.7
      20     50    0.3  97.8  97.7  97.7  95.7  95.1  94.9  97.5  97.3  96.7
      20    100      0  96.9  97.7  96.1  96.1  95.7  94.9  96.1  97.3  95.9
      20    100    0.3  97.7  97.1  93.3  94.7  96.5  95.3  93.5  97.0  97.1
      50     50      0  98.0  96.3  97.5  95.8  96.9  95.3  97.0  96.0  98.5
      40     80      0  96.6  96.4  96.3  94.9  94.5  95.0  96.5  96.9  96.7
      40     80    0.3  97.3  97.4  96.5  94.7  94.7  94.2  95.3  97.9  97.0
      80     80      0  98.0  93.9  96.4  96.6  95.9  95.9  96.5  93.7  97.3
      80    280      0  97.9  96.1  95.0  95.1  94.3  95.4  95.9  95.7  96.5
      80    280    0.3  97.5  94.1  94.3  96.5  95.0  95.0  94.1  93.2  97.9
     280    280      0  96.7  95.3  95.1  96.3  95.5  95.7  94.6  96.5  96.9
     280   1680      0  95.7  95.4  95.8  95.6  95.2  95.5  95.3  95.3  95.8
     280   1680    0.3  95.4  94.5  95.6  94.6  95.1  95.0  95.3  94.9  93.9
========  =====  =====  ====  ====  ====  ====  ====  ====  ====  ====  ====

Where it misses: right answers are so discrete that no interval which is not random keeps 93 to 97 % everywhere, and
these err above: 97 to 98.5 % where only a few wrong (or right) answers are expected. Below: where clusters are few and
more alike still, as 92 % at 20 clusters of 100 items with a correlation of 0.5 and a mean of 0.1 or 0.9. Intervals of
differences cover up to 100 % where fewer than some ten pairs change: such data cannot show a difference, and the
interval does not claim one. How hard a cluster is does not depend on its size here. Below 10 clusters none of this was
simulated; the results say so (``too_few``).

The tests raise 2 to 8 % false alarms at 5 % where about ten or more clusters change, and fewer, down to none, below
that. At the minimum detectable effect they find the difference in 79 to 99 % of cases, the more the fewer the items.
"""

from lit_align.metrics.statistics.decisions import Decision, holm, paired_test
from lit_align.metrics.statistics.intervals import Interval, mean_interval
from lit_align.metrics.statistics.paired import PairedSummary, is_better, paired_summary
from lit_align.metrics.statistics.power import minimum_detectable_effect

__all__ = [
    "Decision",
    "Interval",
    "PairedSummary",
    "holm",
    "is_better",
    "mean_interval",
    "minimum_detectable_effect",
    "paired_summary",
    "paired_test",
]
