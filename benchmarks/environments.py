"""Makes the virtual environments of the peers.

python benchmarks/environments.py [NAME...]

Each is made of `peers/NAME.txt`, under `.environments/NAME`, and made again when that file changes. Ours is made of
`setup.cfg` and `constraints.txt`.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
NAMES = ("ours", "pytorch", "keras_hub", "old_tf_class", "litert", "onnxruntime", "tensorflow_2_12")


def python_of(name: str) -> Path:
    return HERE / ".environments" / name / "bin" / "python"


def made(name: str) -> str | None:
    """Makes an environment where it is not there yet; returns why it cannot be had, or None."""
    folder = HERE / ".environments" / name
    stamp, wanted = folder / ".installed", _hash(name)
    if stamp.is_file() and stamp.read_text() == wanted:
        return None
    print(f"setting up {folder.relative_to(REPOSITORY)}: a minute or two, up to 3 GB on disk", flush=True)
    if name == "ours":
        arguments = ["--constraint", "constraints.txt", "--editable", "."]
    else:
        arguments = ["--requirement", str(HERE / "peers" / f"{name}.txt")]
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments],
    ]
    for command in commands:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            return f"its environment could not be installed: {lines[-1] if lines else 'no reason given'}"
    stamp.write_text(wanted)
    return None


def _hash(name: str) -> str:
    files = ["setup.cfg", "constraints.txt"] if name == "ours" else [f"benchmarks/peers/{name}.txt"]
    return hashlib.sha256(b"".join((REPOSITORY / file).read_bytes() for file in files)).hexdigest()


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        print(f"{name}: {made(name) or 'ready'}")


if __name__ == "__main__":
    main()
