"""All probes, in groups. Each group gets an agent that has just started."""

from .commands import IMAGES, QUESTIONS, STEPS
from .documents import DOCUMENTS, HTTP
from .endings import BUSY, ENDINGS
from .envelope import ENVELOPE, TOKENS
from .parameters import NODES, PARAMETERS

GROUPS = {
    "documents": DOCUMENTS,
    "http": HTTP,
    "tokens": TOKENS,
    "envelope": ENVELOPE,
    "questions": QUESTIONS,
    "steps": STEPS,
    "images": IMAGES,
    "busy": BUSY,
    "nodes": NODES,
    **{f"parameters {name}": probes for name, probes in PARAMETERS.items()},
    **ENDINGS,
}


def scenario(group):
    """The file name of a group's transcript."""
    return "probe_" + group.replace(" ", "_").replace(".", "_")
