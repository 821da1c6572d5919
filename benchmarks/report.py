"""All benchmarks in one run; prints docs/benchmarks.md.

make bench                                   # half an hour; writes docs/benchmarks.md
python benchmarks/report.py --study FOLDER --pydvl PYTHON --simulated-s 600
"""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent


def cpu() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def output(script: str, *arguments: str) -> str:
    """What a benchmark prints; its progress goes on to the terminal."""
    command = [sys.executable, str(_HERE / script), *arguments]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # Ray's own processes have a word on stdout when their workers are ended.
    return "\n".join(line for line in said.splitlines() if "(raylet)" not in line).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", help="folder of the study's feature_dump_*.pkl")
    parser.add_argument("--pydvl", help="python of an environment with peers/requirements.txt")
    parser.add_argument("--run", help="a finished run on data with a truth.csv, for utilities.py")
    parser.add_argument("--simulated-s", default="60")
    args = parser.parse_args()
    study = ["--study", args.study] if args.study else []
    pydvl = ["--pydvl", args.pydvl] if args.pydvl else []
    print(
        "# Benchmarks\n\nWritten by `make bench`: each figure was measured in one run with what it "
        f"is compared with. {os.cpu_count()} cores of {cpu()}, Python {platform.python_version()}."
    )
    print(f"\n{output('sweeps.py', *study, *pydvl)}")
    print(f"\n{output('chains.py', *study, '--simulated-s', args.simulated_s)}")
    print(f"\n{output('saturation.py')}")
    print(f"\n{output('coverage.py')}")
    print(f"\n{output('rerun.py')}")
    if args.study and args.run:
        print(f"\n{output('utilities.py', *study, '--run', args.run)}")
    for title, script in (
        ("The closed form", "closed_form.py"),
        ("Extraction of features", "extraction.py"),
        ("Fine-tuning", "finetuning.py"),
    ):
        print(f"\n## {title}\n\n```\n{output(script)}\n```")
    if args.study:
        print(f"\n## The study's rule against ours\n\n```\n{output('study.py', args.study)}\n```")


if __name__ == "__main__":
    main()
