"""Runs a command in a sandbox where /kaggle is a given folder, its inputs are read-only and there is no network. Does not know the command.

`unshare` (util-linux) starts this process with its own mounts and network. It assembles a new root from the folders of the machine's root
and /kaggle, and enables the loopback, over which a notebook talks to its kernel; the machine itself does not change. Linux only, where
`find_unshare` finds it allowed.

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


def find_unshare() -> list[str] | None:
    """The command that starts a process with its own mounts and network; None where this machine does not allow it."""
    if not shutil.which("unshare") or not shutil.which("mount"):
        return None
    for flags in (["-m", "-n"], ["-r", "-m", "-n"]):
        command = ["unshare", *flags]
        probe = [*command, "sh", "-c", 'd=$(mktemp -d) && mount -t tmpfs tmpfs "$d" && umount "$d" && rmdir "$d"']
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return None


def main(arguments: list[str]) -> int:
    """Set up the sandbox and run the command; returns its exit code.

    With a `quota` (bytes, null for no limit), working and temp lie in a file system of that size, and working is copied to the given folder
    at the end. Once a file matches `fill_at`, a pattern below /kaggle, the rest of the quota is filled, as another program might.
    disk.json beside the folder then holds the largest number of bytes that were used.
    """
    config = json.loads(arguments[0])
    kaggle, quota, command = Path(config["kaggle"]), config["quota"], config["command"]
    root = kaggle.parent / "root"
    _make_root(root)
    (root / "kaggle").mkdir()
    if quota:
        _mount("-t", "tmpfs", "-o", f"size={quota}", "tmpfs", str(root / "kaggle"))
    for name in ("input", "working", "temp"):
        (root / "kaggle" / name).mkdir()
        if name == "input" or not quota:
            _mount("--bind", str(kaggle / name), str(root / "kaggle" / name))
    _mount("-o", "remount,bind,ro", str(root / "kaggle" / "input"))
    _enable_loopback()
    os.chroot(root)
    os.chdir("/kaggle/working")
    if not quota:
        return subprocess.run(command, check=False).returncode
    command_ended, disk = threading.Event(), {"quota": quota, "most": 0, "filled": False}
    watcher = threading.Thread(target=_watch_disk, args=(config["fill_at"], disk, command_ended))
    watcher.start()
    try:
        code = subprocess.run(command, check=False).returncode
    finally:
        command_ended.set()
        watcher.join()
        (kaggle.parent / "disk.json").write_text(json.dumps(disk), encoding="utf-8")
        shutil.copytree("/kaggle/working", kaggle / "working", dirs_exist_ok=True, symlinks=True)
    return code


def _watch_disk(fill_at: str | None, disk: dict[str, Any], command_ended: threading.Event) -> None:
    """Record the largest use of the quota, and fill it once `fill_at` matches, until the command has ended."""
    while True:
        last = command_ended.is_set()
        disk["most"] = max(disk["most"], shutil.disk_usage("/kaggle").used)
        if fill_at and not disk["filled"] and any(Path("/kaggle").glob(fill_at)):
            disk["filled"] = True
            # Unbuffered and in pages, so that closing the file does not try again to write the rest.
            with contextlib.suppress(OSError), Path("/kaggle/.filled").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            disk["most"] = max(disk["most"], shutil.disk_usage("/kaggle").used)
        if last:
            return
        command_ended.wait(0.02)


def _make_root(root: Path) -> None:
    """Make a root with the folders of the machine's root, except /kaggle."""
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


def _enable_loopback() -> None:
    """Do the work of `ip link set lo up`, which is not installed everywhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.socket(2, 2, 0)  # AF_INET, SOCK_DGRAM
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "no socket to enable the loopback with")
    try:
        fcntl.ioctl(descriptor, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
