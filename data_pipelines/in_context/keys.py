"""Keys of objects: `SIDE/PICTURE/OBJECT`, and what a recipe says of them."""

# For `together` of a recipe's entry: all objects of a picture share a split, whatever folder and source name it.
ONE_PICTURE = r"(?:seen|held_out)/(?:.*/)?([^/]+)/[^/]+"
# For `never_train`.
NEVER_TRAIN = r"held_out/.*"


def object_key(picture: str, number: object, is_held_out: bool) -> str:
    """The key of an object."""
    return f"{'held_out' if is_held_out else 'seen'}/{picture}/{number}"


def parts_of(key: str) -> tuple[str, str]:
    """Picture and object of a key."""
    picture, _, number = key.partition("/")[2].rpartition("/")
    return picture, number


def picture_id(pictures: str, picture: str) -> str:
    """What a record says that its picture shows: a name that all sources of the set `pictures` agree on."""
    return f"{pictures}/{picture.rpartition('/')[2]}"
