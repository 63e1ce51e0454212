"""Makes catalogue.tsv.gz: what the instance types of us-east-1 are like and in
which zones they are, from the lists that moto's EC2 carries (recorded by its
authors from DescribeInstanceTypes and DescribeInstanceTypeOfferings).

    scripts/tools.sh moto
    .cache/moto/bin/python hardware/testdata/catalogue.py

One line a type: name, vCPUs, MiB of memory, architecture, GPUs, model and maker
of the GPUs, MiB of memory of each, what is special, GB of local disk, flags (b
burstable, p previous generation, m bare metal), markets, letters of the zones.
"""

import gzip
import json
import pathlib

import moto.ec2

RESOURCES = pathlib.Path(moto.ec2.__file__).parent / "resources"
REGION = "us-east-1"


def load(path):
    with gzip.open(RESOURCES / path) as f:
        return json.load(f)


zones = {}
for offer in load(f"instance_type_offerings/availability-zone/{REGION}.json.gz"):
    zones.setdefault(offer["InstanceType"], []).append(offer["Location"].removeprefix(REGION))

lines = []
for name, t in sorted(load("instance_types.json.gz").items()):
    gpus = t.get("GpuInfo", {}).get("Gpus", [])
    gpu = gpus[0] if gpus else {}
    special = ""
    if "InferenceAcceleratorInfo" in t or "NeuronInfo" in t:
        special = "inference"
    elif "FpgaInfo" in t:
        special = "FPGA"
    elif "MediaAcceleratorInfo" in t:
        special = "media"
    elif gpu and not gpu["Count"]:
        special = "part of a GPU"
    flags = ("b" if t["BurstablePerformanceSupported"] else "") + ("" if t["CurrentGeneration"] else "p") + ("m" if t["BareMetal"] else "")
    whole = gpu.get("Count", 0)
    lines.append("\t".join(map(str, [
        name, t["VCpuInfo"]["DefaultVCpus"], t["MemoryInfo"]["SizeInMiB"], t["ProcessorInfo"]["SupportedArchitectures"][-1],
        whole, gpu.get("Name", ""), gpu.get("Manufacturer", ""), gpu.get("MemoryInfo", {}).get("SizeInMiB", 0) if whole else 0,
        special, t.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0), flags,
        ",".join(t["SupportedUsageClasses"]), "".join(sorted(zones.get(name, []))),
    ])))

out = pathlib.Path(__file__).with_name("catalogue.tsv.gz")
with open(out, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as f:
    f.write(("\n".join(lines) + "\n").encode())
print(f"{len(lines)} types, {out.stat().st_size} bytes")
