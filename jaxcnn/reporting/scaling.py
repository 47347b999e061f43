"""Measurements of speed over devices: from `scaling.json`, and from runs that differ only in their devices."""

import dataclasses
from typing import Any

from jaxcnn.reporting import labels, provenance
from jaxcnn.reporting.read import Material
from jaxcnn.reporting.settings import Setting


@dataclasses.dataclass
class Scaling:
    """The speed of one network over devices.

    Attributes:
      curves: label -> rows with `devices`, `images_per_second`, `speedup` and `efficiency`, in ascending `devices`.
      shares_cores: whether some devices were parts of one processor, which cannot be faster together.
      source: where the speeds were read from.
    """

    name: str
    curves: dict[str, list[dict[str, Any]]]
    shares_cores: bool
    source: str

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with all fields."""
        return dataclasses.asdict(self)


def scalings(material: Material, settings: list[Setting]) -> list[Scaling]:
    """The measurements of speed over devices."""
    return [*_of_files(material), *filter(None, map(_of_setting, settings))]


def _of_files(material: Material) -> list[Scaling]:
    found = []
    for facts in material.scalings:
        by_model: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for row in facts["rows"]:
            mode = row.get("mode") or facts.get("mode") or "strong"
            over = "" if row.get("over") in (None, "devices") else f", over {row['over']}"
            curves = by_model.setdefault(str(row.get("model") or ""), {})
            curves.setdefault(f"{mode} scaling{over}", []).append(row)
        for model, curves in by_model.items():
            network = labels.ARCHITECTURES.get(model, model)
            rows = [row for curve in curves.values() for row in curve]
            found.append(
                Scaling(
                    name=f"{network} ({facts['name']})" if network else facts["name"],
                    curves={label: _related(curve) for label, curve in curves.items()},
                    shares_cores=any(row.get("shares_cores") for row in rows),
                    source="scaling.json",
                )
            )
    return found


def _of_setting(setting: Setting) -> Scaling | None:
    """The runs of one setting on different numbers of devices of the same kind."""
    speeds: dict[int, list[float]] = {}
    for run in setting.finished:
        devices = provenance.device_count(run)
        speed = (run.summary or {}).get("images_per_second")
        if devices and speed is not None and speed > 0:
            speeds.setdefault(devices, []).append(speed)
    if len(speeds) < 2:
        return None
    rows = [{"devices": d, "images_per_second": sum(of) / len(of)} for d, of in speeds.items()]
    on_cpu = any(run.environment.get("backend", "cpu") == "cpu" for run in setting.finished)
    return Scaling(setting.title, {"strong scaling": _related(rows)}, on_cpu, "runs")


def _related(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows sorted by devices; speed-up and efficiency against the first are added if the file lacks them."""
    rows = sorted(rows, key=lambda row: row["devices"])
    base = rows[0]
    related = []
    for row in rows:
        speedup = row.get("speedup") or row["images_per_second"] / base["images_per_second"]
        efficiency = row.get("efficiency") or speedup * base["devices"] / row["devices"]
        related.append({**row, "speedup": speedup, "efficiency": efficiency})
    return related
