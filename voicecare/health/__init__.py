"""Health of the service, for probes, for Prometheus and for administrators.

`parts` checks every part of the service. `doctor` adds what takes longer or asks other servers: `database`, `stores`,
`provider`, and `public_url` with its counterpart `diagnostics`. `zero_retention` is
the nightly check that the provider keeps nothing. `probes` answers `/healthz`, `/readyz` and `/metrics`.
`configuration` has the versions and the settings without their secrets, which the admin shows together with the parts
on the page System health. Belongs to the composition root and may import everything.
"""
