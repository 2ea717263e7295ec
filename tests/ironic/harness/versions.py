"""The releases that are tried, and what each needs beside it to be installed and to start."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ironic:
    """One release of Ironic on PyPI."""

    version: str
    pins: tuple = ()
    """Requirements that pip would choose too new, each with its reason in `RELEASES`."""
    programs: tuple = ("ironic",)
    """What to start: API and conductor in one process, or each in its own."""
    restrict_lookup: bool = True
    """Ironic's default: only nodes that are being worked on may be looked up."""


RELEASES = {
    release.version: release
    for release in (
        Ironic("39.0.0"),
        # keystoneauth1 5.18 registers an option `tls_ciphers` of its own, which clashes with these releases'.
        Ironic("35.0.1", pins=("keystoneauth1==5.16.0",)),
        # Its `ironic` passes an argument `no_fork` that no released oslo.service takes (4.2.1, the oldest that it accepts, to 4.8.0),
        # so that it can not start; the two programs of a larger installation do. A node that is
        # being serviced it does not count among those that are being worked on.
        Ironic(
            "32.0.1",
            pins=("keystoneauth1==5.16.0",),
            programs=("ironic-conductor", "ironic-api"),
            restrict_lookup=False,
        ),
    )
}

NEWEST = "39.0.0"

REFERENCE_AGENT = "13.0.0"
"""Release of ironic-python-agent that the reference runs are made with."""
