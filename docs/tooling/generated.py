"""What every generator of pages returns."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class GeneratedPage:
    """One page of the site.

    Attributes:
      path: below docs/, such as reference/configs/lvm.md.
      title: in the navigation.
      markdown: its text.
    """

    path: str
    title: str
    markdown: str
