"""Texts and rows are called examples, and names stay as they are."""

import pytest
from jinja2 import Environment

from dcai_ray.report.wording import Examples, worded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("An image of 3 images", "An example of 3 examples"),
        ("Images, imagenet", "Examples, imagenet"),
        ("image_set and an IMAGE", "image_set and an IMAGE"),
    ],
)
def test_whole_words_are_replaced(text, expected):
    assert worded(text, "examples") == expected
    assert worded(text, "images") == text


def test_a_template_is_worded_and_what_is_put_into_it_is_not():
    template = 'Images: {{ name }}{{ ", one image" if image }}'
    found = Environment(extensions=[Examples], autoescape=True).from_string(template)
    assert found.render(name="my images", image=True) == "Examples: my images, one example"
