"""The main job of the house on one machine: real components, a story, a report, the proofs.

`world` starts the components and ends them; `outsiders` are the people whose keys the desk does not
hold; `story` is what happens; `report` shows it.
"""
