"""What options of several commands share."""

from typing import Annotated

from cyclopts import Parameter

# The fields of a settings object, as options without its name before theirs.
Flat = Parameter(name="*")
# May be given several times; there is no word for none.
Several = Parameter(negative="", show_default=False)
Json = Annotated[bool, Parameter(help="Print one JSON object on standard output.", negative="")]
