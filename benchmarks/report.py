"""Run all benchmarks and print docs/benchmarks.md.

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
    """The processor's name, if the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def output(script: str, *arguments: str) -> str:
    """What a benchmark prints to stdout; its progress still goes to the terminal."""
    command = [sys.executable, str(_HERE / script), *arguments]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # Ray's own processes write to stdout when their workers end.
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
        "# Benchmarks\n\nWritten by `make bench`; each figure and what it is compared with were "
        f"measured in one run, on {os.cpu_count()} cores of {cpu()} with Python "
        f"{platform.python_version()}."
    )
    print(f"\n{output('marginals.py', *study, *pydvl)}")
    print(f"\n{output('chains.py', *study, '--simulated-s', args.simulated_s)}")
    print(f"\n{output('saturation.py')}")
    print(f"\n{output('interval_coverage.py')}")
    print(f"\n{output('exact_utilities.py', *study)}")
    print(f"\n{output('crowd.py')}")
    print(f"\n{output('rerun.py')}")
    sizes = ("3000,500,1280", "50000,1000,512")
    print(f"\n{output('evidence.py', '--sizes', *sizes)}")
    if args.study and args.run:
        print(f"\n{output('utilities.py', *study, '--run', args.run)}")
    for title, script in (
        ("The closed form", "closed_form.py"),
        ("Feature extraction", "extraction.py"),
        ("Fine-tuning", "finetuning.py"),
    ):
        print(f"\n## {title}\n\n```\n{output(script)}\n```")
    if args.study:
        print(f"\n## The study's rule vs ours\n\n```\n{output('study.py', args.study)}\n```")


if __name__ == "__main__":
    main()
