"""The dashboards of the admin: the first page, and the usage page of each patient.

`dashboards` is the data of a page, `live` the part that is polled, `chart` a chart with its table and CSV file. The
charts come from `chart_registry`, which reads usage, and `chart_builders`, which shape it. `permissions` hides every
part whose change list the user may not see. Figures come from `usage.reports.queries`, which read daily sums, so the
number of queries does not depend on the amount of usage. A new figure is a query there, a property in `dashboards`,
and a line in `templates/admin/dashboard/tiles.html`. Part of the composition root, so it may import every app.
"""
