"""What ends a scenario, and what ends the whole run."""


class ScenarioFailed(Exception):
    """The agent, or Ironic, did not do what the scenario expects."""


class ScenarioSkipped(Exception):
    """The scenario does not apply to this version of Ironic or to this agent."""


class CannotRun(Exception):
    """The harness can not work on this machine; the message says what to do."""


def need(condition, message):
    """Ends the scenario with `message` unless `condition` holds."""
    if not condition:
        raise ScenarioFailed(message)
