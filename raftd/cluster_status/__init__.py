"""How a cluster is, worked out from what its servers answer when they are asked for their status.

Pure: whoever has the answers, raftctl or a server that shows them to others, comes to the same
view, and prints the same document.

| module | what it is |
|---|---|
| `words` | numbers, lengths of time and commands in sentences |
| `members` | what servers and configurations are called |
| `answers` | what came of asking one address |
| `issues` | what is wrong with a single server |
| `view` | health, tolerance, and a row for every server |
| `operations` | changes of the cluster as JSON has them |
| `notes` | what is worth knowing and wrong with no server |
| `document` | all of it as `raftctl status -o json` prints it |
"""
