"""The releases that are tried, and what each needs beside it to be installed and to start."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ironic:
    """One release of Ironic on PyPI."""

    version: str
    pins: tuple = ()
    """Requirements that pip would choose too new, each with its reason in `RELEASES`."""


RELEASES = {
    release.version: release
    for release in (
        Ironic("39.0.0"),
        # keystoneauth1 5.18 registers an option `tls_ciphers` of its own, which clashes with these releases'.
        Ironic("35.0.1", pins=("keystoneauth1==5.16.0",)),
        Ironic("32.0.1", pins=("keystoneauth1==5.16.0",)),
    )
}

NEWEST = "39.0.0"

REFERENCE_AGENT = "13.0.0"
"""Release of ironic-python-agent that the reference runs are made with."""
