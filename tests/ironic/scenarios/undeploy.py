"""The end of an instance."""

from harness.failure import need

from .registry import scenario


@scenario
def undeploy(bench):
    """a deleted instance leaves nothing behind for the next tenant"""
    bench.to_active()
    bench.node.clean_automatically(True)
    bench.node.provision("deleted")
    bench.node.wait("available")
    need(not bench.disk.partitions(), f"partitions are left: {bench.disk.partitions()}")
