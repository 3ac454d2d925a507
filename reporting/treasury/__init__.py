"""What treasury looks at: funding by day, how much netting saved, what is late. Pure.

Decisions over plain values, which `app.reports` reads from settlement, custody and ledger: settlement
is a sibling, which this package never imports. Verbs: `forecast.forecast_funding`,
`efficiency.measure_efficiency`, `ageing.age_items`.
"""
