r"""Step 3: drop the harmful images, fine-tune again, compare, report.

On this machine, with a Ray cluster that ends with the script:

    python jobs/step_3_retrain_cleaned.py --run RUN --config jobs/laptop.yaml

On a running cluster (DATA and RUN: URIs, or absolute paths that every machine sees):

    export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
    ray job submit --working-dir . -- \
        python jobs/step_3_retrain_cleaned.py --run RUN --config jobs/laptop.yaml

`--help` shows every flag; the same command again goes on where it was.
"""

import sys

from dcai_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["retrain", *sys.argv[1:]]))
