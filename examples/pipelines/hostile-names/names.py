"""Makes files with hostile names and reports, in hexadecimal, the names that programs are given."""

import json
import os
import shutil
import sys

NAMES = [
    b"plain.txt",
    b"with space.txt",
    b"  two spaces at the start",
    b"-rf",
    b"--help",
    b"it's.txt",
    b'say "hi".txt',
    b"$HOME.txt",
    b"$(touch pwned).txt",
    b"`touch pwned`.txt",
    b"; touch pwned #",
    b"a && touch pwned",
    b"back\\slash\\n.txt",
    b"new\nline.txt",
    b"tab\there.txt",
    b"star*.txt",
    b"question?.txt",
    b"[a-z].txt",
    b"{a,b}.txt",
    b"~.txt",
    b"${{ item }}.txt",
    b"%s%n.txt",
    b"END",
    b"!!.txt",
    b"caf\xc3\xa9.txt",
    b"not utf-8 \xff\xfe.txt",
]


def prepare(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name in NAMES:
        with open(os.path.join(os.fsencode(folder), name), "wb") as f:
            f.write(name)
    return folder


def seen(path):
    """What a Python function was given; the file must open under that name."""
    with open(path, "rb") as f:
        f.read()
    return [os.fsencode(path).hex()]


def check(folder, *ways):
    """Every way must have given the path of every file, as often as it was handed over."""
    if os.path.exists("pwned"):
        raise ValueError("a name was executed")
    want = sorted(os.path.join(os.fsencode(folder), name).hex() for name in os.listdir(os.fsencode(folder)))
    for way in ways:
        got = sorted(values[0] for values in way)
        if got != want:
            raise ValueError(f"paths differ: {sorted(set(got) ^ set(want))}")
        for values in way:
            if len(set(values)) != 1:
                raise ValueError(f"one task was given different paths: {values}")
    return {"names": len(want), "ways": len(ways)}


def main():
    values = [os.fsencode(a) for a in sys.argv[1:]]
    if "NAME" in os.environ:
        values.append(os.path.join(os.path.dirname(values[0]), os.environb[b"NAME"]))
    else:
        with open(4, "rb") as f:
            values.append(f.read().removesuffix(b"\n"))
    print(json.dumps([v.hex() for v in values]))


if __name__ == "__main__":
    main()
