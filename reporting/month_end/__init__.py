"""The month's end: what stands in its way, who let it pass, and the manifest over the pack's files.

The pack is files in a folder and one manifest that names each with its SHA-256. It is refused while a
break or the period is open, unless two people have said why. It closes nothing itself. Verbs:
`obstacles.find_obstacles`, `manifest.manifest_text`,
`waivers.waive`, `waivers.record_month_end`.
"""
