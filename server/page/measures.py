"""What the page shows of a result's measures: one line, a folded table with bars, and curves over age."""

from typing import Any

from diagnosis.anatomy.measures import Value
from diagnosis.anatomy.norms import OLDEST, Norms, Person
from reports.curves import panels, svg
from reports.measured import measure_table
from reports.wording import Texts


def measures_view(t: Texts, record: dict[str, Any], norms: Norms | None) -> dict[str, Any] | None:
    """Everything of the folded part; None where nothing was measured."""
    table = measure_table(record["measures"], t, record["norms"], record["person"])
    if table is None:
        return None
    values = {
        name: Value(each["value"], each["unit"], each["low"], each["high"])
        for name, each in record["measures"].items()
    }
    told = record["person"] or {"age": None, "sex": None}
    return {
        "line": t.main_measures(values),
        "table": table,
        "open": record["person"] is not None,
        "may_tell": record["norms"] is not None,
        "age": "" if told["age"] is None else f"{told['age']:g}",
        "sex": told["sex"] or "",
        "oldest": OLDEST,
        "curves": [
            (t.measure_name(name), t.centile(record["measures"][name], record["norms"]), svg(figure))
            for name, figure in panels(norms, values, Person(**told)).items()
        ],
    }
