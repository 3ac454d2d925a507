"""Alerts: what somebody has to know now, who is told, and who has taken it on.

What is wrong is found elsewhere and stated as findings; this keeps one alert for each, however often
it is found, tells the people whom the policy names, level by level until one of them acknowledges,
and closes the alert when it is not found any more. Nothing is sent from here: deliveries are rows that
a worker claims.

Verbs: `alerts.observe`, `alerts.acknowledge`, `alerts.escalate`, `policies.set_policy`,
`deliveries.plan`, `deliveries.claim_due`, `deliveries.record`.
"""
