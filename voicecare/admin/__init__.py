"""The Django admin of this project.

Public names: `site.VoicecareAdminSite`, whose first page is the dashboard, `readonly.ReadOnlyAdmin`,
`periods.PeriodAdmin`, `titles.TitledAdmin` and the words of `lists` for the admins of other apps, and `login`, `locale`
and `context_processors`, which the settings name. `lists`, `periods`, `readonly` and `titles` import nothing of this
project. The other modules belong to the composition root and may import everything.
"""
