"""moto's server for tests, with what its EC2 leaves out.

moto (github.com/getmoto/moto) speaks the wire format of EC2, SQS, SSM, IAM and
STS, and nobody here wrote it. Its CreateFleet, though, takes every request:
this file adds the memory of client tokens, a capacity for each pool (type,
subnet, market) and the errors of pools that have none left. EC2's state is not
safe under threads, so its requests go one at a time; the others, long polls of
SQS among them, do not wait for it.

usage: server.py PORT CAPACITY
Prints one line when it answers, and ends when its standard input closes: a
test that is killed leaves nothing.
"""

import hashlib
import json
import sys
import threading

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import fleets as models
from moto.ec2.responses import fleets as responses
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

CAPACITY = int(sys.argv[2])


class Mismatch(EC2ClientError):
    def __init__(self):
        super().__init__(
            "IdempotentParameterMismatch",
            "The client token is already used with different parameters.",
        )


def live(backend, spec, market):
    """How many machines of a pool live."""
    n = 0
    for reservation in backend.reservations.values():
        for i in reservation.instances:
            spot = "spot" if getattr(i, "spot_price", None) or getattr(i, "lifecycle", None) == "spot" else "on-demand"
            n += (
                i.state in ("pending", "running")
                and i.instance_type == spec.instance_type
                and (i.subnet_id == spec.subnet_id or not spec.subnet_id)
                and spot == market
            )
    return n


def counts(self, weight):
    """In place of Fleet.get_launch_spec_counts: fills pool after pool."""
    market = self.target_capacity_specification.get("DefaultTargetCapacityType") or "on-demand"
    left, taken = int(weight), {}
    self.errors = []
    for spec in self.launch_specs:
        n = min(left, max(0, CAPACITY - live(self.ec2_backend, spec, market)))
        if n > 0:
            taken[spec] = n
            left -= n
        if left > 0:
            self.errors.append(
                {
                    "LaunchTemplateAndOverrides": {
                        "LaunchTemplateSpecification": spec.launch_template_spec,
                        "Overrides": spec.overrides or {},
                    },
                    "Lifecycle": market,
                    "ErrorCode": "InsufficientInstanceCapacity",
                    "ErrorMessage": "There is no capacity available that matches your request.",
                }
            )
    return taken, weight - left


models.Fleet.get_launch_spec_counts = counts

end_fleet = models.Fleet.terminate_instances


def end_fleet_if_alive(self):
    """moto fails to delete a fleet whose machines have all ended."""
    machines = [r.instance for r in self.spot_requests] + [r["instance"] for r in self.on_demand_instances]
    if any(m.state != "terminated" for m in machines):
        end_fleet(self)


models.Fleet.terminate_instances = end_fleet_if_alive

answers = {}
create_fleet = responses.Fleets.create_fleet


def create_fleet_once(self):
    params = {k: self._get_param(k) for k in (
        "OnDemandOptions", "SpotOptions", "TargetCapacitySpecification",
        "LaunchTemplateConfigs", "Type", "TagSpecifications",
    )}
    body = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()
    token = self._get_param("ClientToken")
    if token:
        token = self.current_account + " " + token
    if token in answers:
        known, answer = answers[token]
        if known != body:
            raise Mismatch()
        return answer
    answer = create_fleet(self)
    fleet = self.ec2_backend.get_fleet(answer.result["FleetId"])
    answer.result["Errors"] = getattr(fleet, "errors", [])
    if token:
        answers[token] = (body, answer)
    return answer


responses.Fleets.create_fleet = create_fleet_once


class OneAtATime:
    """Serves EC2's requests one after the other."""

    def __init__(self, app):
        self.app, self.lock = app, threading.Lock()

    def __call__(self, environ, start_response):
        if "/ec2/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
            return self.app(environ, start_response)
        with self.lock:
            return list(self.app(environ, start_response))


def main():
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    MotoRequestHandler.log = lambda *args, **kwargs: None
    server = make_server("127.0.0.1", int(sys.argv[1]), app, True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("http://%s:%d" % server.server_address[:2], flush=True)
    sys.stdin.read()


main()
