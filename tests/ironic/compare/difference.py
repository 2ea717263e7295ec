"""Two JSON values, compared key by key. Knows nothing of agents."""

import dataclasses
import json

# Lists of objects are compared by these keys where they tell the items apart: a missing step is then one difference, and
# not one for each step after it.
IDENTITIES = (("interface", "step"), ("step",), ("mac_address",), ("name",), ("id",))


@dataclasses.dataclass(frozen=True)
class Difference:
    """`kind` is `value`, `type`, `missing` (Ferric lacks it), `extra` (only Ferric has it) or `order`."""

    path: str
    kind: str
    ipa: object = None
    ferric: object = None


def type_name(value):
    """JSON's word for a value's type, with integers told from fractions."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "fraction", type(None): "null"}
    return names[type(value)]


def compare(ipa, ferric, path="", ordered=True):
    """Every difference, as a list. `ordered`: whether the order of an object's keys counts."""
    if type(ipa) is not type(ferric):
        return [Difference(path, "type", ipa, ferric)]
    if isinstance(ipa, dict):
        return _objects(ipa, ferric, path, ordered)
    if isinstance(ipa, list):
        return _arrays(ipa, ferric, path, ordered)
    return [] if ipa == ferric else [Difference(path, "value", ipa, ferric)]


def _objects(ipa, ferric, path, ordered):
    found = []
    for key, value in ipa.items():
        inner = f"{path}.{key}" if path else key
        if key in ferric:
            found += compare(value, ferric[key], inner, ordered)
        else:
            found.append(Difference(inner, "missing", value, None))
    found += [
        Difference(f"{path}.{key}" if path else key, "extra", None, value) for key, value in ferric.items() if key not in ipa
    ]
    ipa_order = [key for key in ipa if key in ferric]
    ferric_order = [key for key in ferric if key in ipa]
    if ordered and ipa_order != ferric_order:
        found.append(Difference(path or "(keys)", "order", ipa_order, ferric_order))
    return found


def _identity(items):
    """The keys that tell the items of a list of objects apart, or `None`."""
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for keys in IDENTITIES:
        names = [tuple(json.dumps(item.get(key)) for key in keys) for item in items]
        if all(key in item for item in items for key in keys) and len(set(names)) == len(names):
            return keys
    return None


def _arrays(ipa, ferric, path, ordered):
    keys = _identity(ipa)
    if keys and keys == _identity(ferric):
        return _named_arrays(ipa, ferric, path, ordered, keys)
    found = []
    for index in range(max(len(ipa), len(ferric))):
        inner = f"{path}[{index}]"
        if index >= len(ferric):
            found.append(Difference(inner, "missing", ipa[index], None))
        elif index >= len(ipa):
            found.append(Difference(inner, "extra", None, ferric[index]))
        else:
            found += compare(ipa[index], ferric[index], inner, ordered)
    return found


def _named_arrays(ipa, ferric, path, ordered, keys):
    def by_name(items):
        return {"/".join(str(item[key]) for key in keys): item for item in items}

    ipa, ferric = by_name(ipa), by_name(ferric)
    found = []
    for name, item in ipa.items():
        if name in ferric:
            found += compare(item, ferric[name], f"{path}[{name}]", ordered)
        else:
            found.append(Difference(f"{path}[{name}]", "missing", item, None))
    found += [Difference(f"{path}[{name}]", "extra", None, item) for name, item in ferric.items() if name not in ipa]
    ipa_order = [name for name in ipa if name in ferric]
    ferric_order = [name for name in ferric if name in ipa]
    if ipa_order != ferric_order:
        found.append(Difference(path or "(list)", "order", ipa_order, ferric_order))
    return found
