"""Images of different lengths in sequences of one length: NaViT (Dehghani et al., arXiv 2307.06304), section 2.3.

First-fit over a stream: an image goes into the first open sequence with room for it. Only so many sequences are open at
a time; where none has room and no more may be opened, the fullest is closed. With one open sequence that is greedy
next-fit, which leaves several times the padding.
"""

from collections.abc import Iterable, Iterator


def pack(counts: Iterable[int], *, length: int, max_images: int, open_bins: int) -> Iterator[list[int]]:
    """Yield sequences as lists of image numbers, every image in exactly one, in the order in which they are closed.

    Args:
        counts: tokens of each image, at most `length`.
        length: tokens of a sequence.
        max_images: of a sequence.
        open_bins: sequences that are filled at a time; 1 is next-fit.
    """
    bins: list[list[int]] = []
    rooms: list[int] = []
    for image, count in enumerate(counts):
        assert 0 < count <= length, f"image {image} has {count} tokens, a sequence {length}"
        place = next((index for index, room in enumerate(rooms) if room >= count), -1)
        if place < 0:
            if len(bins) == open_bins:
                fullest = rooms.index(min(rooms))
                rooms.pop(fullest)
                yield bins.pop(fullest)
            bins.append([])
            rooms.append(length)
        bins[place].append(image)
        rooms[place] -= count
        if rooms[place] == 0 or len(bins[place]) == max_images:
            rooms.pop(place)
            yield bins.pop(place)
    yield from bins


def spread(sequences: list[list[int]], *, at_least: int, multiple: int) -> list[list[int]]:
    """The sequences, some cut in two until there are `at_least` of them and a multiple of `multiple`.

    So that each process has as many in each step, none of them empty. Cut is who holds most images; where every
    sequence holds one already, they stay as they are.
    """
    sequences = list(sequences)
    wanted = -(-max(at_least, len(sequences)) // multiple) * multiple
    while len(sequences) < wanted:
        place = max(range(len(sequences)), key=lambda index: len(sequences[index]))
        images = sequences[place]
        if len(images) < 2:
            break
        half = len(images) // 2
        sequences[place : place + 1] = [images[:half], images[half:]]
    return sequences
