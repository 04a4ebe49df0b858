"""A load that grows by steps: ``tqdb locust -f postgres,steps --host …`` (or ``mariadb``, ``generator``).

``--step-users``, ``--step-seconds`` and ``--steps`` say how many users each step adds, how long it lasts and how many
there are; then the test ends.
"""

from locust import LoadTestShape, events


@events.init_command_line_parser.add_listener
def options(parser):
    parser.add_argument("--step-users", type=int, default=10, help="users that each step adds")
    parser.add_argument("--step-seconds", type=int, default=20, help="length of a step")
    parser.add_argument("--steps", type=int, default=5, help="number of steps")


class Steps(LoadTestShape):
    use_common_options = False

    def tick(self):
        given = self.runner.environment.parsed_options
        step = int(self.get_run_time() // given.step_seconds) + 1
        if step > given.steps:
            return None
        return step * given.step_users, max(1, given.step_users)
