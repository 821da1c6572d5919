r"""Step 2b: compute the value of every training image and decide what to keep.

On this machine, with a Ray cluster that stops with the script:

    python jobs/step_2b_compute_values.py --run RUN --config jobs/laptop.yaml

On a running cluster (DATA and RUN: URIs, or absolute paths that every node sees):

    export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
    ray job submit --working-dir . -- \
        python jobs/step_2b_compute_values.py --run RUN --config jobs/laptop.yaml

By sampling, for a utility without a closed form, on a whole cluster:

    ray job submit --working-dir . -- \
        python jobs/step_2b_compute_values.py --run RUN --features FEATURES \
        --method sample --utility knn-accuracy --num-workers 64

`--help` lists all flags. Run the same command again to resume.
"""

import sys

from dcai_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["value", *sys.argv[1:]]))
