"""The dashboards of the admin: the first page, and the usage page of each patient.

`dashboards` has the data of a page, `checklist` what an installation needs, `live` the part that is updated regularly,
and `chart` a chart with its table and CSV file. `statement_page` is the statement of a month. `ranges` reads the range
of days from the URL. `chart_registry` reads the usage for each chart, and `chart_builders` makes the chart.
`permissions` hides the parts whose rows the user may not see. Figures come from `usage.reports.queries`, which read
daily sums, so the number of queries does not depend on the amount of usage. To add a figure, add a query there, a
property in `dashboards`, and a line in `templates/admin/dashboard/tiles.html`. This package is part of the composition
root, so it may import every app.
"""
