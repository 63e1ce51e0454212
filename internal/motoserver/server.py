"""moto's server for tests, with what its EC2 leaves out.

moto (github.com/getmoto/moto) speaks the wire format of EC2, SQS, SSM, IAM and
STS, and nobody here wrote it. Its CreateFleet, though, takes every request:
this file adds the memory of client tokens, a capacity for each pool (type,
subnet, market) and the errors of pools that have none left. EC2's state is not
safe under threads, so its requests go one at a time; the others, long polls of
SQS among them, do not wait for it.

Who starts instances as processes is told of each: a line of JSON for every
instance that begins or ends, and for every answer to a command. Commands are
lines on standard input: "poweroff ID" (an instance has shut itself down),
"reclaim ID" (a spot instance is taken back) and "inventory".

usage: server.py HOST PORT CAPACITY
Prints its address when it answers, and ends when its standard input closes: a
test that is killed leaves nothing.
"""

import hashlib
import json
import sys
import threading

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models import fleets as models
from moto.ec2.models.instances import Instance, StateReason
from moto.ec2.responses import fleets as responses
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sqs.models import sqs_backends
from moto.ssm.models import ssm_backends
from werkzeug.serving import make_server

CAPACITY = int(sys.argv[3])


def say(**event):
    """Tells who listens. Lines of several threads do not mix."""
    with saying:
        print(json.dumps(event), flush=True)


saying = threading.Lock()


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
    for request in fleet.spot_requests:
        announce(request.instance, request.launch_spec, "spot")
    for item in fleet.on_demand_instances:
        announce(item["instance"], item["launch_spec"], "on-demand")
    if token:
        answers[token] = (body, answer)
    return answer


responses.Fleets.create_fleet = create_fleet_once

machines = {}


def announce(instance, spec, lifecycle):
    """Tells of a new instance, with what its launch template says of it."""
    template = instance.ec2_backend.get_launch_template(spec.launch_template_spec["LaunchTemplateId"])
    data = template.get_version(template.default_version_number).data
    instance.instance_initiated_shutdown_behavior = data.get("InstanceInitiatedShutdownBehavior") or "stop"
    profile = data.get("IamInstanceProfile") or {}
    machines[instance.id] = instance
    say(
        event="begin",
        id=instance.id,
        type=instance.instance_type,
        zone=instance.placement.zone,
        spot=lifecycle == "spot",
        profile=profile.get("Name") or profile.get("Arn", "").rpartition("/")[2],
        user_data=spec.user_data.as_bytes().decode() if spec.user_data else "",
    )


def telling(end):
    """Wraps a method that ends an instance."""

    def wrapped(self):
        before = self.state
        result = end(self)
        if before in ("pending", "running"):
            say(event="end", id=self.id)
        return result

    return wrapped


Instance.terminate = telling(Instance.terminate)
Instance.stop = telling(Instance.stop)


def poweroff(instance):
    if instance.state != "running":
        return
    if instance.instance_initiated_shutdown_behavior == "terminate":
        instance.terminate()
        instance.state_reason = StateReason("Client.InstanceInitiatedShutdown: Instance initiated shutdown", "Client.InstanceInitiatedShutdown")
    else:
        instance.stop()


def reclaim(instance):
    if instance.state == "running":
        instance.terminate()
        instance.state_reason = StateReason("Server.SpotInstanceTermination: Spot instance termination", "Server.SpotInstanceTermination")


def inventory():
    """All that costs money, or would lie about for ever."""
    left = {"instances": [], "volumes": [], "templates": [], "queues": [], "messages": [], "parameters": []}
    for account in ec2_backends.values():
        for region in account.values():
            left["instances"] += [i.id for r in region.reservations.values() for i in r.instances if i.state != "terminated"]
            left["volumes"] += list(region.volumes)
            left["templates"] += [t.name for t in region.launch_templates.values()]
    for account in sqs_backends.values():
        for region in account.values():
            for queue in region.queues.values():
                left["queues"].append(queue.name)
                left["messages"] += [queue.name + ": " + str(m.body) for m in queue._messages]
    for account in ssm_backends.values():
        for region in account.values():
            left["parameters"] += [name for name in region._parameters if not name.startswith("/aws/")]
    return left


def command(line):
    name, _, argument = line.partition(" ")
    if name == "inventory":
        return inventory()
    return {"poweroff": poweroff, "reclaim": reclaim}[name](machines[argument])


class OneAtATime:
    """Serves EC2's requests one after the other."""

    def __init__(self, app, lock):
        self.app, self.lock = app, lock

    def __call__(self, environ, start_response):
        if "/ec2/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
            return self.app(environ, start_response)
        with self.lock:
            return list(self.app(environ, start_response))


def main():
    lock = threading.Lock()
    app = OneAtATime(DomainDispatcherApplication(create_backend_app), lock)
    MotoRequestHandler.log = lambda *args, **kwargs: None
    server = make_server(sys.argv[1], int(sys.argv[2]), app, True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("http://%s:%d" % server.server_address[:2], flush=True)
    for line in sys.stdin:
        try:
            with lock:
                answer = {"result": command(line.strip())}
        except Exception as e:
            answer = {"error": "%s: %s" % (type(e).__name__, e)}
        say(event="answer", **answer)


main()
