"""Hooks of the scenario `openapi-walk`: values that exist, so that calls succeed too, and a count of the answers.

The document says "a file id"; a generator would never guess one that there is. The parameters and fields
that the scenario names get formats of their own, whose values are mostly real ones.
"""

import atexit
import collections
import json
import os
import threading

import schemathesis
from hypothesis import strategies

with open(os.environ["WALK_VALUES"]) as given:
    real = json.load(given)

for name, values in real["formats"].items():
    chosen = strategies.sampled_from(values)
    schemathesis.openapi.format(name, strategies.one_of(chosen, chosen, chosen, strategies.text(max_size=40)))


@schemathesis.hook
def before_load_schema(context, schema):
    used = set()
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", []):
                for key in (f"{method} {path} {parameter['name']}", f"* {path} {parameter['name']}"):
                    if key in real["parameters"]:
                        parameter["schema"]["format"] = real["parameters"][key]
                        used.add(key)
                        break
    missing = set(real["parameters"]) - used
    assert not missing, f"the document has no such parameters: {missing}"
    for place, name in real["fields"].items():
        shape, field = place.split(".")
        schema["components"]["schemas"][shape]["properties"][field]["format"] = name


statuses = collections.defaultdict(collections.Counter)
faults = []
slowest = [0.0, ""]
lock = threading.Lock()


@schemathesis.hook
def after_call(context, case, response):
    call = f"{case.method} {case.path}"
    with lock:
        statuses[call][str(response.status_code)] += 1
        if response.elapsed > slowest[0]:
            slowest[:] = [response.elapsed, call]
        if response.status_code >= 500:
            faults.append([call, response.status_code, response.text])


@atexit.register
def report():
    with open(os.environ["WALK_COUNTS"], "w") as out:
        json.dump({"statuses": statuses, "faults": faults, "slowest_seconds": slowest[0], "slowest": slowest[1]}, out)
