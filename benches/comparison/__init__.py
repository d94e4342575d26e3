"""Whole programs, done by fanmap and by its peers, side by side: what `benches/speed.py` is made of.

In order, each file knowing only those before it:

| file | what it is |
|---|---|
| `tasks` | what workers call |
| `peers/` | one pool of each peer behind one small interface, `peers/peer.py` |
| `roster` | the peers by name |
| `plan` | what a workload says of itself, and the tools that measure |
| `workloads/` | the workloads |
| `runner` | the process that takes one measurement |
| `summary` | medians and quartiles of what was taken |
| `targets` | what fanmap has to reach, and whether it does |
| `driver` | rounds of measurements, each in a fresh process, with a time limit |
| `report`, `chart` | the table in Markdown and the picture in SVG, both from the saved figures |
"""
