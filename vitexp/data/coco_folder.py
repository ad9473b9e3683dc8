"""Anyone's own detection set: COCO-style JSON or YOLO labels, split into train, val and test, or some of them.

For each split, in a folder `root`, the first of these that is there:

| annotations | images |
|---|---|
| `annotations/instances_<split>.json`, `annotations/<split>.json` | `<split>/`, `images/<split>/` or `images/` |
| `<split>/_annotations.coco.json`, `<split>/annotations.json` | beside it |
| `labels/<split>/*.txt` (YOLO) | `images/<split>/` |
| `<split>/labels/*.txt` (YOLO) | `<split>/images/` |

`valid` and `validation` are taken for `val`, and `<split>2017` for `<split>`. What is missing of val and test is held
out of train, fixed; with one evaluation split only, it is test. Labels are 0, 1, ... in the order of category ids.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitexp.data.augment.settings import Augment
from vitexp.data.box.augment import BoxAugment
from vitexp.data.box.data import BoxData
from vitexp.data.box.source import BoxSource
from vitexp.data.coco_json import category_names, coco_source, read_json
from vitexp.data.loader import Batches, Source
from vitexp.data.pixels import Pixels
from vitexp.data.yolo import yolo_names, yolo_source
from vitexp.errors import ConfigError, DataError

_SPLITS = {
    "train": ("train", "train2017"),
    "val": ("val", "valid", "validation", "val2017"),
    "test": ("test", "test2017"),
}


@dataclass(frozen=True)
class _Place:
    """The place of a split: `file` is a JSON, or a folder of YOLO labels."""

    file: Path
    images: Path

    @property
    def is_json(self) -> bool:
        return self.file.suffix == ".json"


class CocoFolder(BoxData):
    """The set in a folder. `num_classes` may be None: it is then the number of categories."""

    def __init__(
        self,
        *,
        root: str | None,
        val_fraction: float,
        test_fraction: float,
        num_classes: int | None,
        longest: float,
        square: bool,
        pixels: Pixels,
        batches: Batches,
        augment: BoxAugment | Augment,
    ) -> None:
        super().__init__(
            num_classes=num_classes, longest=longest, square=square, pixels=pixels, batches=batches, augment=augment
        )
        if root is None:
            raise ConfigError("data=coco_folder needs to know which; give data.root=FOLDER with images and annotations")
        self.root = Path(root).expanduser()
        self.val_fraction, self.test_fraction = val_fraction, test_fraction

    def read_class_names(self) -> list[str]:
        """The categories by id, of the training annotations, else of those there are."""
        place = next(iter(self._there().values()), None)
        if place is None:
            raise DataError(
                f"{self.root} holds no annotations of a known layout; put COCO JSON into {self.root}/annotations/"
                f"train.json beside the images in {self.root}/train, or YOLO labels into {self.root}/labels/train "
                f"beside the images in {self.root}/images/train"
            )
        return list(self._categories(place).values())

    def read(self, part: str) -> dict[str, Source]:
        """The splits of a part, as the table above says."""
        found: dict[str, Source] = {}
        there = self._there()
        if part == "test" and ("test" in there or "val" in there):
            found["test"] = self._source(there.get("test") or there["val"])
        elif part == "test":
            _, found["test"] = self._source(there["train"]).hold_out(self.test_fraction)
        elif "train" not in there:
            found |= {"val": self._source(there["val"])} if len(there) == 2 else {}
        elif len(there) == 3:
            found["train"], found["val"] = self._source(there["train"]), self._source(there["val"])
        else:
            train = self._source(there["train"])
            share = self.val_fraction
            if len(there) == 1:  # a share of the whole, as test's is
                train, _ = train.hold_out(self.test_fraction)
                share = self.val_fraction / (1 - self.test_fraction)
            found["train"], found["val"] = train.hold_out(share)
        return found

    def absent(self, split: str) -> str:
        """Say which file would hold it."""
        return f"{self.root} has no {split} images; put their annotations into {self.root}/annotations/{split}.json"

    def _source(self, place: _Place) -> BoxSource:
        if not place.is_json:
            return yolo_source(place.images, place.file, num_classes=self.num_classes)
        content = read_json(place.file)
        names = category_names(content, place.file)
        known = self.class_names
        foreign = sorted(set(names.values()) - set(known))
        if foreign:
            raise DataError(
                f"{place.file} has categories that training has not: {', '.join(foreign[:5])}; the classes of a set are"
                f" those of its first annotations ({', '.join(known[:5])}, ...); make both lists the same"
            )
        labels = {number: known.index(name) for number, name in names.items()}
        return coco_source(content, place.file, place.images, labels=labels, num_classes=len(known))

    def _categories(self, place: _Place) -> dict[int, str]:
        if place.is_json:
            return category_names(read_json(place.file), place.file)
        root = next(
            (folder for folder in (self.root, place.file.parent) if (folder / "data.yaml").is_file()), self.root
        )
        return dict(enumerate(yolo_names(root)))

    def _there(self) -> dict[str, _Place]:
        """The splits that exist, training first."""
        found = {}
        for split, names in _SPLITS.items():
            place = next((p for name in names for p in self._places(name) if p.file.exists()), None)
            if place is not None:
                found[split] = place
        return found

    def _places(self, name: str) -> Iterator[_Place]:
        root = self.root
        folders = (root / name, root / "images" / name, root / "images", root)
        images = next((folder for folder in folders if folder.is_dir()), root)
        for file in (f"instances_{name}.json", f"{name}.json"):
            yield _Place(root / "annotations" / file, images)
        for file in ("_annotations.coco.json", "annotations.json"):
            yield _Place(root / name / file, root / name)
        yield _Place(root / "labels" / name, root / "images" / name)
        yield _Place(root / name / "labels", root / name / "images")
