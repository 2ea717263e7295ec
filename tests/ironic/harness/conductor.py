"""Ironic itself: API and conductor, SQLite, no other service. Nothing in it is changed or replaced."""

import os
import subprocess
import time
import urllib.request
from string import Template

from . import venv
from .failure import CannotRun
from .layout import API_PORT, CONTROL_IP, HOME, IMAGE_PORT, PROXY_PORT, RPC_PORT
from .process import Daemon
from .versions import RELEASES

_START_SECONDS = 240
# Timeouts are long enough for a loaded machine and short enough to see an agent hang; intervals as short as Ironic allows.
_CONFIGURATION = Template("""\
[DEFAULT]
auth_strategy = noauth
my_ip = $control
debug = true
log_file = $log/ironic.log
${transport}state_path = $state/state
tempdir = $state/tmp
grub_config_path = EFI/BOOT/grub.cfg
hash_ring_algorithm = sha256
enabled_hardware_types = ipmi,fake-hardware
enabled_boot_interfaces = pxe,ipxe,fake
enabled_deploy_interfaces = direct,ramdisk,custom-agent,fake
enabled_inspect_interfaces = agent,no-inspect
enabled_management_interfaces = ipmitool,noop,fake
enabled_power_interfaces = ipmitool,fake
enabled_network_interfaces = noop
enabled_raid_interfaces = agent,no-raid
enabled_rescue_interfaces = agent,no-rescue
enabled_storage_interfaces = noop
enabled_vendor_interfaces = no-vendor
enabled_console_interfaces = no-console
enabled_bios_interfaces = no-bios
enabled_firmware_interfaces = no-firmware
default_boot_interface = pxe
default_deploy_interface = direct
default_inspect_interface = agent
default_network_interface = noop
default_rescue_interface = agent
default_raid_interface = agent
force_raw_images = false
minimum_memory_warning_only = true
[json_rpc]
auth_strategy = noauth
host_ip = 127.0.0.1
port = $rpc_port
[api]
host_ip = 127.0.0.1
port = $api_port
public_endpoint = http://$control:$proxy_port
api_workers = 1
ramdisk_heartbeat_timeout = 300
restrict_lookup = $restrict_lookup
[database]
connection = sqlite:///$state/ironic.sqlite
sqlite_max_retries = 10
[oslo_concurrency]
lock_path = $state/lock
[oslo_policy]
enforce_new_defaults = false
enforce_scope = false
[conductor]
automated_clean = true
sync_power_state_interval = -1
check_provision_state_interval = 10
deploy_callback_timeout = 240
clean_callback_timeout = 240
inspect_wait_timeout = 240
rescue_callback_timeout = 240
service_callback_timeout = 240
soft_power_off_timeout = 30
power_state_change_timeout = 30
file_url_allowed_paths = $images
node_locked_retry_attempts = 10
[agent]
command_wait_interval = 2
post_deploy_get_power_state_retries = 6
post_deploy_get_power_state_retry_interval = 1
certificates_path = $state/certs
deploy_logs_collect = always
deploy_logs_local_path = $state/deploylogs
image_download_source = http
enable_bios_bootloader_install = true
[deploy]
default_boot_mode = bios
http_root = $run/httpboot
http_url = http://$control:$image_port/httpboot
erase_devices_priority = 0
erase_devices_metadata_priority = 10
fast_track = false
fast_track_timeout = 300
[pxe]
tftp_server = $control
tftp_root = $run/tftpboot
tftp_master_path = $state/master/tftp
images_path = $state/images
instance_master_path = $state/master/instance
kernel_append_params = nofb vga=normal ipa-debug=1 ipa-image-download-connection-retries=3 ipa-image-download-connection-retry-interval=1
[ipmi]
command_retry_timeout = 5
min_command_interval = 1
use_ipmitool_retries = false
[inspector]
hooks = $$default_hooks
require_managed_boot = true
[inventory]
data_backend = database
[dhcp]
dhcp_provider = none
[service_catalog]
auth_type = none
endpoint_override = http://$control:$proxy_port
[sensor_data]
send_sensor_data = false
""")

_ONE_PROCESS = "host = harness-conductor\nrpc_transport = none\n"
# The API finds the conductor by its name.
_TWO_PROCESSES = "host = 127.0.0.1\nrpc_transport = json-rpc\n"


class Conductor:
    """Call `start` in the control namespace, with a fresh state folder."""

    def __init__(self, layout, version):
        self._layout, self.version = layout, version
        self._release = RELEASES[version]
        self._programs = venv.ironic_folder(layout, version) / "bin"
        self._daemons = []

    def start(self):
        state = self._layout.state / "ironic"
        for folder in ("state", "master", "images", "tmp", "certs", "deploylogs", "lock"):
            (state / folder).mkdir(parents=True)
        for folder in ("tftpboot", "httpboot"):
            (self._layout.state / folder).mkdir()
        configuration = state / "ironic.conf"
        configuration.write_text(
            _CONFIGURATION.substitute(
                control=CONTROL_IP,
                transport=_ONE_PROCESS if len(self._release.programs) == 1 else _TWO_PROCESSES,
                rpc_port=RPC_PORT,
                restrict_lookup=self._release.restrict_lookup,
                api_port=API_PORT,
                proxy_port=PROXY_PORT,
                image_port=IMAGE_PORT,
                log=self._layout.log,
                state=state,
                run=self._layout.state,
                images=self._layout.images,
            )
        )
        environment = {
            **os.environ,
            "PATH": f"{HOME / 'bin'}:{self._programs}:{os.environ['PATH']}",
            "FERRIC_BMC_SOCKET": str(self._layout.bmc_socket),
        }
        self._make_database(configuration, environment)
        begun = time.monotonic()
        for program in self._release.programs:
            command = [self._programs / program, "--config-file", configuration]
            self._daemons.append(Daemon(command, self._layout.log / f"{program}.out", environment))
        while not self._answers():
            if not self.is_running():
                raise CannotRun(f"ironic {self.version} did not start:\n{self._last_words()}")
            if time.monotonic() - begun > _START_SECONDS:
                raise CannotRun(f"ironic {self.version} does not answer after {_START_SECONDS} s:\n{self._last_words()}")
            time.sleep(0.5)

    def stop(self):
        while self._daemons:
            self._daemons.pop().stop()

    def is_running(self):
        return all(daemon.is_running() for daemon in self._daemons)

    def _make_database(self, configuration, environment):
        command = [self._programs / "ironic-dbsync", "--config-file", configuration, "create_schema"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise CannotRun(f"ironic-dbsync {self.version} failed:\n{result.stderr[-2000:]}")

    @staticmethod
    def _answers():
        request = urllib.request.Request(f"http://127.0.0.1:{API_PORT}/v1/drivers")
        request.add_header("X-OpenStack-Ironic-API-Version", "1.50")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return b'"ipmi"' in answer.read()
        except OSError:
            return False

    def _last_words(self):
        files = sorted(self._layout.log.glob("ironic*"))
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in files)
