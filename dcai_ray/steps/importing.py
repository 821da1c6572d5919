"""Before all steps: a data set of torchvision is written once into the run's folder.

`RUN/imported/` is then the data like any other folder. What was interrupted resumes; what is
complete is used again.
"""

from dcai_ray import progress
from dcai_ray.images.written import write_images
from dcai_ray.networks import torchvision_sets
from dcai_ray.storage.location import Location


def import_torchvision(data: str, run: Location) -> Location:
    """The folder with the data set's pictures, written if need be.

    Args:
        data: `torchvision:NAME:FOLDER`.
        run: the run's folder.
    Raises:
        UserError: the data set is unknown, or its files are not there.
    """
    name, root = torchvision_sets.parse(data)
    # Another data set gets another folder, so the run refuses it as other data.
    target, done = run / "imported" / name, run / "imported" / f"{name}.txt"
    if done.exists():
        return target
    progress.say(f"{data}: writing its images to {target}")
    for split, dataset in torchvision_sets.splits_of(name, root).items():
        written = write_images(dataset, target.uri, split=split, resume=True)
        progress.say(f"{split}: {progress.counted(written, 'images')} written")
    done.write_bytes(data.encode())  # last
    return target
