"""The bug museum: bugs that other consensus systems had, and what shows that this one has not.

How to read it
--------------

Each bug is an *exhibit* with a number, its story and the places where it was seen
(`catalogue.Exhibit`). The stories stand in `membership` (1 to 39) and in the modules that
`protocol` joins (40 to 92: elections, replication, reads, storage, sessions). An exhibit is one of
two:

- *shown*: the tests and golden transcripts of `shown_by` play its setup and its events on the real
  core or on real nodes, and assert the right outcome. If the bug is built in, they fail.
- *cannot apply*: the design has no place for the bug; `cannot_apply` says why.

A test of the museum is called `test_NNN_` and the claim that it proves, where NNN is the number of
its exhibit: `pytest tests/museum -k test_014` plays number 14. `test_catalogue.py` keeps the books:
no number is missing or there twice, everything that is named exists, and no test belongs to
nobody.

How to add an exhibit
---------------------

Append an `Exhibit` with the next number to the tuple of its subject, raise `NUMBER_MAX` in
`test_catalogue.py`, and write the script: the cluster of the story with its servers under the names
of the story, the events one by one, then the right outcome. `tests.core.scenario` has single
servers and situations, `tests.core.harness.Cluster` a group of cores whose messages the test
delivers, `tests.node.world.World` real nodes with disks that lose power between any two steps.
Then build the bug in and see the script fail: one that cannot fail shows nothing.
"""
