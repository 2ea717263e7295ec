"""A hardware manager for ironic-python-agent with the step of Ferric's example `reboot_step`."""

from ironic_python_agent import hardware


class HarnessHardwareManager(hardware.HardwareManager):
    HARDWARE_MANAGER_NAME = "HarnessHardwareManager"
    HARDWARE_MANAGER_VERSION = "1.0"

    def evaluate_hardware_support(self):
        return hardware.HardwareSupport.SERVICE_PROVIDER

    def get_clean_steps(self, node, ports):
        step = {"step": "update_nothing", "priority": 50, "interface": "deploy", "reboot_requested": True}
        return [step]

    def update_nothing(self, node, ports):
        return "updated"
