"""The part of coiled-jobs that lives in a warm Python interpreter.

The agent starts one of these per function and slot, with three descriptors:

  3  requests: frames, each a 4-byte length and a JSON document. The first is
     the greeting (what to call and where), every other one a list of calls
     [seq, index, attempt, item, args, kwargs, env].
  4  a pipe: one byte when all calls of a frame are done.
  5  the replies: a file to which one record per call is appended. A file and
     not a pipe, so that nobody is woken for each of many quick calls and
     nothing that was done is forgotten in a crash.

Standard output and error are one file. After each call the reply says how
long it is by then: what lies between two calls belongs to the second.
"""
import sys

if sys.version_info < (3, 8):
    sys.stderr.write("coiled-jobs needs Python 3.8 or newer, this is %s (choose another one with python_bin)\n"
                     % sys.version.split()[0])
    sys.exit(1)

import json
import os
import struct
import time

REQUESTS, NOTIFY, REPLIES = 3, 4, 5
OK, RAISED, EXITED, BAD_RESULT, NO_MEMORY, HELLO = 0, 1, 2, 3, 4, 9
RECORD = struct.Struct("<IIiiqqqqII")
TAIL = 4096
UNTOUCHED = 1000000000 * 10**9  # tmpDir in scratch.go


def default(value):
    """What json does not know but everybody understands."""
    for name in ("tolist", "item"):  # arrays and scalars of numpy and its kin
        method = getattr(value, name, None)
        if callable(method) and not isinstance(value, type):
            return method()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(getattr(value, "isoformat", None)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    kind = type(value)
    if kind.__module__ in ("decimal", "uuid"):
        return str(value)
    if hasattr(value, "value") and any(c.__name__ == "Enum" for c in kind.__mro__):
        return value.value
    advice = ""
    if hasattr(value, "__next__"):
        advice = "; return a list"
    elif isinstance(value, (bytes, bytearray)):
        advice = "; decode it or write it to a file"
    raise TypeError("a %s is not JSON%s" % (kind.__name__, advice))


encode = json.JSONEncoder(allow_nan=False, default=default, separators=(",", ":")).encode


class Tail:
    """Standard error of a call: remembers its end, for retries.when."""

    def __init__(self, stream):
        self.stream = stream
        self.kept = []
        self.size = 0

    def write(self, text):
        n = self.stream.write(text)
        self.kept.append(text)
        self.size += len(text)
        if self.size > 4 * TAIL:
            last = "".join(self.kept)[-TAIL:]
            self.kept, self.size = [last], len(last)
        return n

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def take(self):
        text, self.kept, self.size = "".join(self.kept), [], 0
        return text.encode("utf-8", "backslashreplace")[-TAIL:]

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __iter__(self):
        return iter(self.stream)


def find(hello):
    """The function to call."""
    module, name = hello["module"], hello["func"]
    if module.endswith(".py") or "/" in module:
        import importlib.util
        path = os.path.join(hello["dir"], module)
        stem = os.path.splitext(os.path.basename(path))[0]
        folder = os.path.dirname(os.path.abspath(path))
        if folder not in sys.path:
            sys.path.insert(1, folder)
        spec = importlib.util.spec_from_file_location(stem, path)
        if spec is None:
            raise ImportError("%s is not a Python file" % path)
        found = importlib.util.module_from_spec(spec)
        sys.modules[stem] = found
        try:
            spec.loader.exec_module(found)
        except BaseException:
            sys.modules.pop(stem, None)
            raise
    else:
        import importlib
        found = importlib.import_module(module)
    owner = found
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AttributeError("%s has no function %r" % (hello["module"], name)) from None
    if not callable(found):
        raise TypeError("%s:%s is a %s, not a function" % (hello["module"], name, type(found).__name__))
    flush_c(owner)
    return found


flush_stdio = None  # fflush(NULL) of the C library, if somebody may need it


def flush_c(_module):
    """Extensions may print through C's buffers, which Python does not flush."""
    global flush_stdio
    if flush_stdio is not None:
        return
    stdlib = os.path.dirname(os.__file__)
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None) or ""
        if path.endswith(".so") and not path.startswith(os.path.join(stdlib, "lib-dynload")):
            try:
                import ctypes
                flush_stdio = ctypes.PyDLL(None).fflush
                flush_stdio.argtypes = [ctypes.c_void_p]
            except Exception:
                pass
            return


def children():
    """The processes that this one has started and not waited for."""
    pids = set()
    try:
        for thread in os.listdir("/proc/self/task"):
            with open("/proc/self/task/%s/children" % thread) as f:
                pids.update(int(p) for p in f.read().split())
    except OSError:
        pass
    return pids


def wanted():
    """Children that outlive a call on purpose: pools of worker processes."""
    pids = set()
    mp = sys.modules.get("multiprocessing.process")
    if mp is not None:
        pids.update(p.pid for p in list(getattr(mp, "_children", ())))
    for name, attr, field in (("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
                              ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid")):
        pids.add(getattr(getattr(sys.modules.get(name), attr, None), field, None))
    return pids


def end_children(spared):
    """Kill what a call left running, so that it neither prints into the output
    of the next nor piles up."""
    import signal
    for pid in children() - wanted() - spared:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except OSError:
            pass


class Worker:
    def __init__(self, hello):
        self.hello = hello
        self.func = None
        self.dir = hello["dir"]
        self.tmp = hello["tmp"]
        self.result = hello["result"]
        self.item_path = hello["item_file"]
        self.item_fd, self.item_size = -1, 0
        self.mapped = hello["mapped"]
        self.pid = os.getpid()
        self.log = os.dup(1)
        st = os.fstat(1)
        self.log_file = (st.st_dev, st.st_ino)
        self.cwd = os.getcwd()
        # Line by line: in order with what others write to the same file, and
        # nothing is lost in a crash.
        sys.stdout.reconfigure(line_buffering=True)
        self.out, self.err = sys.stdout, Tail(sys.stderr)
        sys.stderr = self.err
        self.base = dict(os.environ._data)
        self.spared = set()
        self.keys = [os.fsencode("COILED_JOBS_" + n) for n in ("INDEX", "ATTEMPT", "ITEM")]

    def set_item_file(self, data):
        """Write the item file, through a descriptor that stays open: making a
        file for each of many quick calls would cost more than they do."""
        try:
            if self.item_fd < 0 or os.fstat(self.item_fd).st_nlink == 0:
                if self.item_fd >= 0:
                    os.close(self.item_fd)
                self.item_fd = -1
                self.item_fd = os.open(self.item_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                self.item_size = 0
            os.pwrite(self.item_fd, data, 0)
            if len(data) != self.item_size:
                os.ftruncate(self.item_fd, len(data))
                self.item_size = len(data)
        except OSError as e:
            raise RuntimeError("write the item file: %s" % e)

    def set_env(self, index, attempt, item, extra):
        data = os.environ._data
        expected = self.base
        for key, val in zip(self.keys, (b"%d" % index, b"%d" % attempt, item)):
            if val is None:
                if expected.pop(key, None) is not None:
                    del data[key]
                    os.unsetenv(key)
            elif expected.get(key) != val:
                expected[key] = data[key] = val
                os.putenv(key, val)
        for name, val in (extra or {}).items():
            key, val = os.fsencode(name), os.fsencode(val)
            if expected.get(key) != val:
                expected[key] = data[key] = val
                os.putenv(key, val)

    def restore(self):
        """Undo what a call did to the process."""
        if os.environ._data != self.base:
            data = os.environ._data
            for key in [k for k in data if k not in self.base]:
                del data[key]
                os.unsetenv(key)
            for key, val in self.base.items():
                if data.get(key) != val:
                    data[key] = val
                    os.putenv(key, val)
        try:
            moved = os.getcwd() != self.cwd
        except OSError:
            moved = True
        if moved:
            os.chdir(self.cwd)
        if self.out.closed:
            self.out = self.reopen(1, self.out)
        if sys.stdout is not self.out:
            sys.stdout = self.out
        if self.err.stream.closed:
            self.err.stream = self.reopen(2, self.err.stream)
        if sys.stderr is not self.err:
            sys.stderr = self.err
        try:
            used = os.stat(self.tmp).st_mtime_ns != UNTOUCHED
        except OSError:
            used = True
        if used:
            self.renew_tmp()
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            pass
        else:
            end_children(self.spared)

    def reopen(self, fd, closed):
        """Standard output or error anew: a call has closed it."""
        os.dup2(self.log, fd)
        return open(fd, "w", buffering=1, encoding=closed.encoding, errors=closed.errors, closefd=False)

    def renew_tmp(self):
        import shutil
        import stat

        def again(function, path, _):
            try:
                os.chmod(os.path.dirname(path), stat.S_IRWXU)
                os.chmod(path, stat.S_IRWXU)
                function(path)
            except OSError:
                pass

        shutil.rmtree(self.tmp, onerror=again)
        try:
            os.mkdir(self.tmp, 0o700)
            os.utime(self.tmp, ns=(UNTOUCHED, UNTOUCHED))
        except OSError:
            pass
        tempfile = sys.modules.get("tempfile")
        if tempfile is not None:
            tempfile.tempdir = None
        try:
            os.unlink(self.result)
        except OSError:
            pass

    def flush(self):
        for stream in (sys.stdout, self.out, self.err.stream):
            try:
                stream.flush()
            except Exception:
                pass
        if flush_stdio is not None:
            flush_stdio(None)

    def log_size(self):
        size = -1
        for fd in (2, 1):
            try:
                st = os.fstat(fd)
                if (st.st_dev, st.st_ino) == self.log_file:
                    size = st.st_size
                    continue
            except OSError:
                pass
            os.dup2(self.log, fd)  # a call has closed or redirected it
        return size if size >= 0 else os.fstat(self.log).st_size

    def explain(self, exc):
        """Print the traceback without our own frames, and say in a line what
        happened."""
        import traceback
        tb = exc.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
            tb = tb.tb_next
        try:
            text = "".join(traceback.format_exception(type(exc), exc, tb))
        except Exception:
            text = "%s\n" % type(exc).__name__
        try:
            self.err.write(text)
        except Exception:
            self.err.kept.append(text)
            os.write(self.log, text.encode("utf-8", "backslashreplace"))
        try:
            line = "".join(traceback.format_exception_only(type(exc), exc))
            if isinstance(exc, SyntaxError):
                line = "%s: %s" % (type(exc).__name__, exc)
        except Exception:
            line = type(exc).__name__
        return " ".join(line.split())

    def exit_code(self, exc):
        code = exc.code
        if code is None:
            return 0
        if isinstance(code, int):
            return code & 0xFF
        self.err.write("%s\n" % (code,))
        return 1

    def run(self, call):
        seq, index, attempt, item, args, kwargs, extra = call
        text = item.encode("utf-8", "surrogatepass")
        self.set_env(index, attempt, text if len(text) <= 100 << 10 else None, extra)
        kind, code, result, message = OK, 0, b"", ""
        started = time.time_ns()
        clock = time.perf_counter_ns()
        try:
            self.set_item_file(text)
            if self.func is None:
                self.func = find(self.hello)
                self.spared = children()  # helpers of a library belong to it
            if args is None:
                args = (json.loads(item),) if self.mapped else ()
            if kwargs:
                value = self.func(*args, **kwargs)
            else:
                value = self.func(*args)
            if value is not None:
                if hasattr(value, "__await__"):
                    import asyncio
                    value = asyncio.run(awaited(value))
                try:
                    result = encode(value).encode("ascii")
                except MemoryError:
                    raise
                except Exception as e:
                    kind, message = BAD_RESULT, "the result cannot be JSON: %s" % e
                    self.err.write(message + "\n")
        except SystemExit as e:
            kind, code = EXITED, self.exit_code(e)
        except MemoryError as e:
            kind, code, message = NO_MEMORY, 1, self.explain(e)
        except BaseException as e:
            kind, code, message = RAISED, 1, self.explain(e)
        took = time.perf_counter_ns() - clock
        self.flush()
        if os.getpid() != self.pid:
            os._exit(code)  # a child that the call forked came back too
        self.restore()
        tail = b""
        if self.err.kept:
            tail = self.err.take()
        peak = 0
        if took > 100000000:
            import resource
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        message = message.encode("utf-8", "backslashreplace")[:2000]
        self.reply(kind, seq, code, started, took, self.log_size(), peak, result, message, tail if kind else b"")
        return kind

    def reply(self, kind, seq, code, started, took, log_end, peak, result, message, tail):
        body = result + struct.pack("<I", len(message)) + message + tail
        record = RECORD.pack(RECORD.size + len(body), seq, kind, code, started, took, log_end, peak,
                             len(result), 0) + body
        while record:
            record = record[os.write(REPLIES, record):]


async def awaited(value):
    return await value


def read_exactly(n):
    parts = []
    while n > 0:
        part = os.read(REQUESTS, min(n, 1 << 20))
        if not part:
            os._exit(0)  # the agent wants us to end
        parts.append(part)
        n -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def frame():
    return json.loads(read_exactly(struct.unpack("<I", read_exactly(4))[0]))


def main():
    for fd in (REQUESTS, NOTIFY, REPLIES):
        os.set_inheritable(fd, False)
    hello = frame()
    sys.argv = [hello["target"]]
    sys.path[0:1] = [hello["dir"]]
    try:
        import faulthandler
        faulthandler.enable()
    except Exception:
        pass
    worker = Worker(hello)
    worker.reply(HELLO, 0, 0, time.time_ns(), 0, worker.log_size(), 0, b"", b"", b"")
    while True:
        for call in frame():
            if worker.run(call) == EXITED:
                os.write(NOTIFY, b"x")
                sys.exit(0)
        os.write(NOTIFY, b"x")


if __name__ == "__main__":
    main()
