"""How much memory a process may still take: of the machine and its control group, or of a device."""

import re
from pathlib import Path

ROOT = Path("/")
# (the controller's mount, limit, use, the line of memory.stat that says how much of the use is given back when asked)
_VERSION_2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def of_machine(root: Path = ROOT) -> int | None:
    """Bytes that this process may still take of the main memory; None where nobody says, as outside Linux.

    Args:
        root: where /proc and /sys are; another one in tests.
    """
    free = _field(root / "proc" / "meminfo", "MemAvailable:")
    if free is None:
        return None
    return max(0, min([free * 1024, *_of_groups(root)]))


def of_gpu() -> int | None:
    """Bytes that TensorFlow may still take of the first GPU; None where it cannot be known."""
    import tensorflow as tf

    try:
        with tf.compat.v1.Session() as session:  # the one public call that names the allocator's limit
            limits = [device.memory_limit_bytes for device in session.list_devices() if device.device_type == "GPU"]
        used = tf.config.experimental.get_memory_info("GPU:0")["current"]
    except (tf.errors.OpError, ValueError):
        return None
    return limits[0] - used if limits and limits[0] > 0 else None


def of_jax_device() -> int | None:
    """Bytes that JAX may still take of its first device; None where the device does not say, as a CPU."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def _of_groups(root: Path) -> list[int]:
    """What the control group of this process, and those around it, still allow; nothing where there is no limit."""
    groups = _text(root / "proc" / "self" / "cgroup").splitlines()
    found = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version = _VERSION_2
        elif "memory" in controllers.split(","):
            version = _VERSION_1
        else:
            continue
        mount = root / version[0]
        # In a container the path may be the host's, which is not there: the mount itself is then the group.
        here = mount / path.lstrip("/")
        for folder in (here, *(parent for parent in here.parents if parent.is_relative_to(mount))):
            found.append(_of_group(folder, *version[1:]))
    return [free for free in found if free is not None]


def _of_group(folder: Path, limit: str, use: str, returned: str) -> int | None:
    most, used = _text(folder / limit).strip(), _text(folder / use).strip()
    if not (most.isdigit() and used.isdigit()):  # no such group, or a limit of "max"
        return None
    return int(most) - int(used) + (_field(folder / "memory.stat", returned) or 0)


def _field(path: Path, name: str) -> int | None:
    match = re.search(rf"^{re.escape(name)}\s+(\d+)", _text(path), flags=re.MULTILINE)
    return int(match[1]) if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
