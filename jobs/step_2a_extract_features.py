r"""Step 2a: compute one feature vector per image with a frozen pretrained backbone.

On this machine, with a Ray cluster that stops with the script:

    python jobs/step_2a_extract_features.py --data DATA --run RUN --config jobs/laptop.yaml

On a running cluster (DATA and RUN: URIs, or absolute paths that every node sees):

    export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
    ray job submit --working-dir . -- \
        python jobs/step_2a_extract_features.py --data DATA --run RUN --config jobs/laptop.yaml

`--help` lists all flags. Run the same command again to resume.
"""

import sys

from dcai_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
