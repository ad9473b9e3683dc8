"""Packing loses no image, overfills no sequence, and wastes little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitexp.data.pack.first_fit import pack, spread

LENGTH = 64
COUNTS = st.lists(st.integers(1, LENGTH), max_size=200)


def padding(counts, **options):
    sequences = list(pack(counts, **options))
    return 1 - sum(counts) / (len(sequences) * options["length"])


@settings(max_examples=100, deadline=None)
@given(counts=COUNTS, max_images=st.integers(1, 8), open_bins=st.integers(1, 16))
def test_every_image_once_and_no_sequence_overfull(counts, max_images, open_bins):
    sequences = list(pack(counts, length=LENGTH, max_images=max_images, open_bins=open_bins))
    assert sorted(image for sequence in sequences for image in sequence) == list(range(len(counts)))
    for sequence in sequences:
        assert 1 <= len(sequence) <= max_images
        assert sum(counts[image] for image in sequence) <= LENGTH
        assert sequence == sorted(sequence)
    assert sequences == list(pack(counts, length=LENGTH, max_images=max_images, open_bins=open_bins))


@settings(max_examples=50, deadline=None)
@given(counts=COUNTS, open_bins=st.integers(1, 16))
def test_no_more_sequences_are_open_than_allowed(counts, open_bins):
    """When a sequence is closed, at most `open_bins` sequences have images that came before its last one."""
    closed = list(pack(counts, length=LENGTH, max_images=LENGTH, open_bins=open_bins))
    for index, sequence in enumerate(closed):
        begun = [other for other in closed[index:] if other[0] <= sequence[-1]]
        assert len(begun) <= open_bins


@settings(max_examples=50, deadline=None)
@given(counts=COUNTS)
def test_one_open_sequence_is_next_fit(counts):
    expected, room = [], 0
    for image, count in enumerate(counts):
        if count > room:
            expected.append([])
            room = LENGTH
        expected[-1].append(image)
        room -= count
    assert list(pack(counts, length=LENGTH, max_images=len(counts) + 1, open_bins=1)) == expected


def test_first_fit_of_the_fact_sheet():
    sequences = pack([5, 4, 3, 2], length=7, max_images=9, open_bins=4)
    assert sorted(sequences) == [[0, 3], [1, 2]]


def test_padding_in_the_papers_setting():
    """Patch 16, R ~ U(64, 256), log-normal aspects, half of the tokens dropped by Beta, sequences of 256."""
    random = np.random.default_rng(0)
    side, aspect = random.uniform(64, 256, 20_000), np.exp(random.normal(0, 0.3, 20_000) / 2)
    cells = np.maximum(np.round(side * aspect / 16), 1) * np.maximum(np.round(side / aspect / 16), 1)
    share = random.beta(7 / 3 * 5 / 9, 7 / 3 * 4 / 9, 20_000) * 0.9
    counts = np.minimum(np.maximum(np.round(cells * (1 - share)), 1), 256).astype(int).tolist()
    assert padding(counts, length=256, max_images=64, open_bins=64) <= 0.02
    assert padding(counts, length=256, max_images=64, open_bins=1) > 0.1


@given(counts=COUNTS.filter(len), at_least=st.integers(1, 40), multiple=st.integers(1, 4))
def test_spreading_gives_each_process_as_many(counts, at_least, multiple):
    sequences = list(pack(counts, length=LENGTH, max_images=LENGTH, open_bins=4))
    more = spread(sequences, at_least=at_least, multiple=multiple)
    assert sorted(image for sequence in more for image in sequence) == list(range(len(counts)))
    assert all(more)
    enough = len(more) >= at_least and len(more) % multiple == 0
    assert enough or all(len(sequence) == 1 for sequence in more)


@pytest.mark.parametrize("count", [0, LENGTH + 1])
def test_what_cannot_be_packed_is_a_bug(count):
    with pytest.raises(AssertionError):
        list(pack([count], length=LENGTH, max_images=1, open_bins=1))
