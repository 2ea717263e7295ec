"""Images that are not what they should be, or do not come."""

from harness.failure import ScenarioFailed, need
from harness.image_server import URL

from .deploy import check_whole_disk, deploy
from .registry import scenario


def _deploy_with_wrong_digest(bench, image, **image_arguments):
    bench.node.to_available()
    bench.disk.blank()
    bench.set_image(image, digest="0" * 64, **image_arguments)
    bench.node.provision("active")
    error = (bench.node.wait("deploy failed")["last_error"] or "").lower()
    need("checksum" in error or "hash" in error, f"last_error does not name the checksum: {error}")


@scenario
def bad_checksum(bench):
    """a raw image with a wrong digest fails, and Ironic is told why"""
    _deploy_with_wrong_digest(bench, "whole.raw", image_disk_format="raw")


@scenario
def bad_checksum_qcow2(bench):
    """a qcow2 image with a wrong digest fails, and Ironic is told why"""
    _deploy_with_wrong_digest(bench, "whole.qcow2")


@scenario
def image_404(bench):
    """an image that does not exist fails the deployment at once"""
    bench.node.to_available()
    bench.set_image("whole.raw", url=f"{URL}/nothing.raw", image_disk_format="raw")
    try:
        bench.node.provision("active")
    except ScenarioFailed:
        return  # some releases look before they accept the request
    bench.node.wait("deploy failed")


@scenario
def broken_transfer(bench):
    """a connection that breaks after 100 MiB is no reason to fail"""
    bench.image_server.forget_breaks()
    deploy(bench, "whole.raw", url=f"{URL}/break/100/whole.raw", image_disk_format="raw")
    check_whole_disk(bench)
    broken = [record for record in bench.transcript.records() if record.get("dropped")]
    need(len(broken) == 1, f"the connection broke {len(broken)} times")
