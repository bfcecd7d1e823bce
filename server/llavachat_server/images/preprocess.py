"""From a decoded picture to the square the vision tower was trained on.

LLaVA-1.5 was trained on pictures padded to a square with the mean colour of CLIP's
training set (``image_aspect_ratio=pad``). The Hugging Face processor centre-crops by
default, which cuts the sides off every picture that is not square; a square that has been
padded first passes through that crop unchanged.
"""

from PIL import Image

PAD_COLOUR = (122, 116, 104)
"""RGB, 0-255: CLIP's mean (0.48145466, 0.4578275, 0.40821073) times 255, cut to integers.

Source: ``expand2square`` in the LLaVA-1.5 release, ``llava/mm_utils.py``, called with
``tuple(int(x * 255) for x in processor.image_mean)``.
"""


def pad_to_square(picture: Image.Image) -> Image.Image:
    """Centre an RGB picture on a square canvas of `PAD_COLOUR` as large as its longer side.

    Args:
        picture: an RGB picture of any size.

    Returns:
        A square RGB picture; the same object when it was square already.
    """
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new("RGB", (side, side), PAD_COLOUR)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square
