"""Runs a command where /kaggle is a folder of ours, its inputs cannot be written, and the network is cut off; the machine stays as it is.

`unshare` (util-linux) gives this process mounts and a network of its own; here a new root is put together from the old one's folders, with
/kaggle beside them, and the loopback is switched on, over which a notebook talks to its kernel. Linux only, and not everywhere allowed:
`available` says. Knows nothing about what is run.

    unshare [-r] -m -n python -m arc_submit.kaggle.sandbox '{"kaggle": folder, "quota": bytes, "fill_at": pattern, "command": [...]}'
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def available() -> list[str] | None:
    """The command that begins a process with mounts and a network of its own, None where this machine does not allow it."""
    if not shutil.which("unshare") or not shutil.which("mount"):
        return None
    for flags in (["-m", "-n"], ["-r", "-m", "-n"]):
        command = ["unshare", *flags]
        probe = [*command, "sh", "-c", 'd=$(mktemp -d) && mount -t tmpfs tmpfs "$d" && umount "$d" && rmdir "$d"']
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return None


def main(arguments: list[str]) -> int:
    """Set everything up, run the command, and copy what it left in a /kaggle/working of limited size; returns its exit code.

    `quota` is what working and temp may hold together, null for no limit. Once `fill_at`, a pattern below /kaggle, finds a file, the rest
    of it is filled, as by another program. What was used of it at most lies in disk.json beside the folder then.
    """
    asked = json.loads(arguments[0])
    kaggle = Path(asked["kaggle"])
    root = kaggle.parent / "root"
    _new_root(root)
    (root / "kaggle").mkdir()
    if asked["quota"]:
        _mount("-t", "tmpfs", "-o", f"size={asked['quota']}", "tmpfs", str(root / "kaggle"))
    for name in ("input", "working", "temp"):
        (root / "kaggle" / name).mkdir()
        if name == "input" or not asked["quota"]:
            _mount("--bind", str(kaggle / name), str(root / "kaggle" / name))
    _mount("-o", "remount,bind,ro", str(root / "kaggle" / "input"))
    loopback_up()
    os.chroot(root)
    os.chdir("/kaggle/working")
    if not asked["quota"]:
        return subprocess.run(asked["command"], check=False).returncode
    ended, disk = threading.Event(), {"quota": asked["quota"], "most": 0, "filled": False}
    watcher = threading.Thread(target=_watch_disk, args=(asked["fill_at"], disk, ended))
    watcher.start()
    try:
        code = subprocess.run(asked["command"], check=False).returncode
    finally:
        ended.set()
        watcher.join()
        (kaggle.parent / "disk.json").write_text(json.dumps(disk), encoding="utf-8")
        shutil.copytree("/kaggle/working", kaggle / "working", dirs_exist_ok=True, symlinks=True)
    return code


def _watch_disk(fill_at: str | None, disk: dict[str, Any], ended: threading.Event) -> None:
    """Note how much of the quota is used at most, and fill it where that is asked for."""
    while True:
        last = ended.is_set()
        disk["most"] = max(disk["most"], shutil.disk_usage("/kaggle").used)
        if fill_at and not disk["filled"] and any(Path("/kaggle").glob(fill_at)):
            disk["filled"] = True
            # Unbuffered and in pages: what does not fit any more is not tried again when the file is closed.
            with contextlib.suppress(OSError), Path("/kaggle/.filled").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            disk["most"] = max(disk["most"], shutil.disk_usage("/kaggle").used)
        if last:
            return
        ended.wait(0.02)


def _new_root(root: Path) -> None:
    """A root whose folders are those of the old one, without its /kaggle."""
    root.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "tmpfs", str(root))
    for entry in sorted(Path("/").iterdir()):
        if entry.name == "kaggle":
            continue
        if entry.is_symlink():
            (root / entry.name).symlink_to(entry.readlink())
        elif entry.is_dir():
            (root / entry.name).mkdir()
            _mount("--rbind", str(entry), str(root / entry.name))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def loopback_up() -> None:
    """Switch on the loopback of a new network, as `ip link set lo up` does where that is installed."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.socket(2, 2, 0)  # AF_INET, SOCK_DGRAM
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "no socket to switch the loopback on with")
    try:
        fcntl.ioctl(descriptor, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
