"""The dashboards of the admin: the first page, and the usage page of each patient.

`dashboards` is the data of a page, `live` the part that is polled, `chart` a chart with its table and CSV file. The
charts come from `chart_registry`, which reads usage, and `chart_builders`, which shape it. `permissions` hides every
part whose change list the user may not see. The number of queries does not depend on the amount of usage: figures come
from daily sums. Part of the composition root, so it may import every app.
"""
