"""Counts words. A change of this file is a change of code: all tasks run again."""


def count(path):
    with open(path) as f:
        return len(f.read().split())


def total(counts):
    words = sum(counts)
    with open("total.txt", "w") as f:
        f.write(f"{words} words in {len(counts)} texts\n")
    return words
