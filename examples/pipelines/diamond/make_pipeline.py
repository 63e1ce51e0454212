"""Writes pipeline.yaml: 13 diamonds in a row, 40 functions.

There are 2^13 ways from the first function to the last one. Every left and
right passes its number on, every join adds the two: the last result is the
number of ways. A scheduler that walks the ways instead of the functions does
not get there in time.
"""

import os
import sys

DIAMONDS = 13

HEAD = """\
# 40 functions: 13 diamonds in a row. Written by make_pipeline.py; change that.
#
#              left_1           left_2
#            /        \\\\       /        \\\\
#   join_0 -            join_1            join_2 ...
#            \\\\        /       \\\\        /
#              right_1          right_2
#
# left and right pass their number on and join adds them, so that the last
# result is the number of ways through the graph: 8192.
name: diamond
description: A graph of 40 functions with 8192 ways through it

defaults: {result: json}

functions:
  join_0:
    command: [echo, "1"]
""".replace("\\\\", "\\")

DIAMOND = """\
  left_{n}:
    needs: join_{m}
    command: [echo, "${{{{ needs.join_{m}.result }}}}"]
  right_{n}:
    needs: join_{m}
    command: [echo, "${{{{ needs.join_{m}.result }}}}"]
  join_{n}:
    needs: [left_{n}, right_{n}]
    command: [expr, "${{{{ needs.left_{n}.result }}}}", +, "${{{{ needs.right_{n}.result }}}}"]
"""


def main(path):
    with open(path, "w") as f:
        f.write(HEAD)
        for n in range(1, DIAMONDS + 1):
            f.write(DIAMOND.format(n=n, m=n - 1))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "pipeline.yaml"))
