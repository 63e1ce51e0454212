package spec

// mapForms are the keys of a map that say what it fans out over.
var mapForms = []string{"glob", "items", "range", "lines", "csv", "jsonl", "matrix", "zip", "from"}

// mapShape is the value of map, and of the names in matrix and zip. It is
// filled by init because it contains itself.
var mapShape = &shape{kind: kindAlt, what: "a glob pattern or a mapping such as {glob: \"data/*.csv\"}"}

// partShape is one dimension of matrix and zip: a list is short for items.
var partShape = &shape{kind: kindAlt, what: "a list, a glob pattern or a mapping such as {range: 10}"}

var mapKeys = &keySet{name: "a map", exactly: mapForms, oneOf: "form"}

func init() {
	files := []string{"glob", "lines", "csv", "jsonl"}
	source := template("a path or s3:// URI such as data/items.txt", scopeMap)
	parts := &shape{kind: kindDict, elem: partShape, nonEmpty: true, what: "a mapping of names to forms such as {x: {range: 3}, y: [a, b]}"}
	mapKeys.keys = []keyDef{
		{name: "glob", doc: "Files that match a pattern (or several): relative to the pipeline file, absolute, or s3://bucket/key/pattern. * ? [a-z] {a,b} and **.",
			shape: oneOrMore(template("a glob pattern such as data/*.csv", scopeMap), "a glob pattern or a list of them")},
		{name: "items", doc: "A literal list of scalars or mappings, or one expression that yields a list.",
			shape: anyValue("a list such as [a, b] or one template that yields a list", scopeMap)},
		{name: "range", doc: "Whole numbers: n, [from, to] or [from, to, step]; the end is excluded.",
			shape: anyValue("n, [from, to] or [from, to, step]", scopeMap)},
		{name: "lines", doc: "One item per line of a local or s3:// file.", shape: source},
		{name: "csv", doc: "One item per row of a CSV file: a mapping by its header.", shape: source},
		{name: "jsonl", doc: "One item per line of a file of JSON lines.", shape: source},
		{name: "matrix", doc: "The Cartesian product of several forms, as mappings; the last name varies fastest.", shape: parts},
		{name: "zip", doc: "Several forms of equal length, item by item.", shape: parts},
		{name: "from", doc: "The results of another function, which it needs. Item i starts as soon as i has finished there.",
			shape: literal("the name of a function")},
		{name: "where", doc: "Keeps the items for which this expression over item is true.", shape: condition("item.size > 0", scopeWhere)},
		{name: "sort", doc: "The order of the items; with a leading - descending.",
			shape: enumOf("name", "size", "modified", "none", "-name", "-size", "-modified")},
		{name: "limit", doc: "At most so many items.", shape: intFrom(0, "100")},
		{name: "batch", doc: "Several items per task: n, or {items: n, bytes: 1 GiB}. item is then a list.",
			shape: &shape{kind: kindAlt, what: "a whole number such as 10, or {items: 10, bytes: 1 GiB}", scalar: intFrom(1, "10"),
				mapping: object(&keySet{name: "batch", keys: []keyDef{
					{name: "items", doc: "At most so many items per task.", shape: intFrom(1, "10")},
					{name: "bytes", doc: "At most so many bytes of files per task, unless one file alone is larger.", shape: sizeOf("1 GiB")},
				}}, "{items: 10, bytes: 1 GiB}")}},
		{name: "exclude", doc: "Files that match one of these patterns are left out.", with: []string{"glob"},
			shape: &shape{kind: kindList, one: true, elem: template("a glob pattern such as data/*.tmp", scopeMap), what: "a glob pattern or a list of them"}},
		{name: "allow_empty", doc: "A pattern that matches nothing is not an error.", with: []string{"glob"}, shape: boolean()},
		{name: "requester_pays", doc: "Reads S3 buckets that bill the reader.", with: files, shape: boolean()},
		{name: "anonymous", doc: "Reads public S3 buckets without credentials.", with: files, shape: boolean()},
	}
	glob := template("a glob pattern such as data/*.csv", scopeMap)
	mapShape.scalar, mapShape.mapping = glob, object(mapKeys, "a mapping such as {glob: \"data/*.csv\"}")
	partShape.scalar, partShape.mapping = glob, mapShape.mapping
	partShape.list = mapKeys.find("items").shape
}

var hardwareKeys = &keySet{name: "hardware", keys: []keyDef{
	{name: "vm_type", doc: "The instance type, or a list of them.", shape: oneOrMore(text("an instance type such as m6i.xlarge"), "an instance type such as m6i.xlarge, or a list of them")},
	{name: "cpu", doc: "CPUs: a number or [lo, hi].", shape: rangeOf(&shape{kind: kindNumber, what: "a number of CPUs such as 4", min: 0.1, hasMin: true}, "a number of CPUs such as 4, or [4, 8]")},
	{name: "memory", doc: "Memory: a size (within 10 %) or [lo, hi].", shape: rangeOf(sizeOf("16 GiB"), "a size such as \"16 GiB\", or [16 GiB, 32 GiB]")},
	{name: "gpu", doc: "true for one NVIDIA T4, a count, or the name of a model.", shape: &shape{kind: kindGPU, what: "true, a count or a GPU model such as T4"}},
	{name: "arm", doc: "Use ARM machines.", shape: boolean()},
	{name: "disk_size", doc: "Size of the disk.", shape: sizeOf("100 GiB")},
	{name: "region", doc: "The cloud region, or auto: where the input bucket is.", shape: text("a region such as us-east-1, or auto")},
	{name: "spot_policy", doc: "Which market machines come from. Default spot_with_fallback.", shape: enumOf("on-demand", "spot", "spot_with_fallback")},
	{name: "n_workers", doc: "Machines: n for a fixed number, [min, max] for as many as the work needs. Default [0, 500].", shape: rangeOf(intFrom(0, "10"), "a whole number such as 10, or [min, max]")},
	{name: "threads_per_worker", doc: "Tasks at a time per machine; -1 for one per CPU. Default 1, and one per CPU on this machine.", shape: &shape{kind: kindInt, what: "a whole number such as 4, or -1 for one per CPU", min: -1, hasMin: true}},
	{name: "idle_timeout", doc: "A machine without work ends after this time. Default 10m.", shape: durationOf()},
	{name: "keepalive", doc: "How long idle machines wait for another run of the same kind. Default 30s.", shape: durationOf()},
	{name: "max_life", doc: "Ends a machine whatever happens. Default 24h.", shape: durationOf()},
	{name: "tags", doc: "Tags for everything that is made in the cloud.", shape: orEmpty(dictOf(anyText("text"), nameAny, "a mapping such as {team: data}"))},
	{name: "ami", doc: "The machine image.", shape: text("an image id such as ami-0abc")},
	{name: "subnet", doc: "The subnet.", shape: text("a subnet id such as subnet-0abc")},
	{name: "security_group", doc: "The security group.", shape: text("a security group id such as sg-0abc")},
	{name: "instance_profile", doc: "The instance profile that machines run under.", shape: text("the name of an instance profile")},
	{name: "name", doc: "The name of the machines.", shape: text("a name")},
}}

// choosesMachine are the two ways to say which machine: in a function, one of
// them drops the other that comes from defaults.
var choosesMachine = [2][]string{{"vm_type"}, {"cpu", "memory", "gpu", "arm"}}

var softwareKeys = &keySet{name: "software",
	exclusive: [][2][]string{
		{{"container"}, {"python", "requirements", "uv", "conda", "apt"}},
		{{"requirements"}, {"uv", "conda"}},
		{{"uv"}, {"conda"}},
	},
	keys: []keyDef{
		{name: "container", doc: "A container image.", shape: text("an image such as python:3.12")},
		{name: "python", doc: "The Python version.", shape: text("a version such as \"3.12\"")},
		{name: "requirements", doc: "Path of a requirements.txt.", shape: text("a path such as requirements.txt")},
		{name: "uv", doc: "Path of a uv.lock or pyproject.toml.", shape: text("a path such as uv.lock")},
		{name: "conda", doc: "Path of an environment.yml.", shape: text("a path such as environment.yml")},
		{name: "apt", doc: "Packages of the system.", shape: &shape{kind: kindList, one: true, elem: text("a package such as gdal-bin"), what: "a list of packages such as [gdal-bin]"}},
		{name: "setup", doc: "A script that runs once per machine.", shape: text("a shell script")},
	}}

var filesKeys = &keySet{name: "files", keys: []keyDef{
	{name: "include", doc: "Files that travel with the work. Default: what git tracks or does not ignore beside the pipeline file.",
		shape: &shape{kind: kindList, one: true, elem: text("a pattern such as src/**"), what: "a list of patterns such as [src/**]"}},
	{name: "exclude", doc: "Files that stay here.",
		shape: &shape{kind: kindList, one: true, elem: text("a pattern such as data/**"), what: "a list of patterns such as [data/**]"}},
}}

var retriesKeys = &keySet{name: "retries", keys: []keyDef{
	{name: "max", doc: "How often the function's own failures are repeated. Default 0.", shape: intFrom(0, "3")},
	{name: "when", doc: "Repeats only if this is true. Names: exit_code, signal, cause, attempt, stderr.", shape: condition("exit_code != 2", scopeWhen)},
	{name: "delay", doc: "The first wait. Default 1s.", shape: durationOf()},
	{name: "backoff", doc: "How waits grow. Default exponential.", shape: enumOf("constant", "exponential", "fibonacci")},
	{name: "max_delay", doc: "The longest wait. Default 1m.", shape: durationOf()},
	{name: "jitter", doc: "Waits differ by this share at random. Default 10%.", shape: &shape{kind: kindPercent, what: "a percentage such as 10%", hasMax: true, max: 100}},
	{name: "machine", doc: "How often lost machines and spot reclaims are repeated. Default 10.", shape: intFrom(0, "10")},
	{name: "oom", doc: "Out of memory: again, on a machine with more.", shape: object(&keySet{name: "oom", keys: []keyDef{
		{name: "max", doc: "How often. Default 0.", shape: intFrom(0, "2")},
		{name: "memory", doc: "How much more memory each time. Default 2x.", shape: &shape{kind: kindFactor, what: "a factor such as 2x"}},
	}}, "a mapping such as {max: 2, memory: 2x}")},
}}

var softwareShape = orEmpty(object(softwareKeys, "a mapping such as {python: \"3.12\"}"))
var filesShape = orEmpty(object(filesKeys, "a mapping such as {include: [src/**]}"))
var secretsShape = &shape{kind: kindList, null: true, what: "a list such as [TOKEN, {PASSWORD: ssm:/prod/password}]",
	elem: &shape{kind: kindAlt, what: "a name, or one name with its place such as {PASSWORD: ssm:/prod/password}",
		scalar:  literal("the name of a variable such as TOKEN"),
		mapping: &shape{kind: kindDict, names: nameReserved, what: "one name with its place such as {PASSWORD: ssm:/prod/password}", elem: text("ssm:name or secretsmanager:name")}}}

func envShape(scope scopeKind) *shape {
	return orEmpty(dictOf(textValue("text", scope), nameEnv, "a mapping such as {LEVEL: debug}"))
}

var functionKeys = &keySet{name: "a function", exactly: []string{"run", "command", "python"}, oneOf: "what to run", keys: []keyDef{
	{name: "map", doc: "What the function fans out over: one task per item.", shape: mapShape},
	{name: "run", doc: "A shell script: bash with -euo pipefail, or what shell names.", shape: &shape{kind: kindScript, what: "a shell script", nonEmpty: true, scope: scopeTask}},
	{name: "command", doc: "A program and its arguments, executed without a shell.",
		shape: &shape{kind: kindList, elem: textValue("text", scopeTask), nonEmpty: true, what: "a list such as [python, main.py]"}},
	{name: "python", doc: "A Python function: module:function or path/file.py:function. Its return value is the result.",
		shape: &shape{kind: kindPython, what: "module:function or path/file.py:function", nonEmpty: true}},
	{name: "shell", doc: "The interpreter of run.", with: []string{"run"},
		shape: &shape{kind: kindList, one: true, nonEmpty: true, elem: text("a program such as sh"), what: "a program such as sh, or a list such as [bash, -eu]"}},
	{name: "args", doc: "Positional arguments of the Python function. Default: the item when mapped.", with: []string{"python"},
		shape: &shape{kind: kindList, elem: anyValue("a value", scopeTask), what: "a list such as [1, \"${{ item }}\"]"}},
	{name: "kwargs", doc: "Keyword arguments of the Python function.", with: []string{"python"},
		shape: orEmpty(dictOf(anyValue("a value", scopeTask), namePython, "a mapping such as {level: 3}"))},
	{name: "python_bin", doc: "The Python interpreter. Default python3.", with: []string{"python"}, shape: text("a program such as python3.12")},
	{name: "result", doc: "Where the result comes from: stdout (text) or json (standard output, parsed). Default: the file $COILED_JOBS_RESULT.",
		with: []string{"run", "command"}, shape: enumOf("stdout", "json")},
	{name: "needs", doc: "Functions that must have succeeded before.", shape: &shape{kind: kindList, one: true, null: true, elem: literal("the name of a function"), what: "the name of a function or a list of names"}},
	{name: "if", doc: "Runs the function only if this is true. Unless it calls success(), failure() or always(), what it needs must have succeeded too.", shape: condition("params.full", scopeIf)},
	{name: "env", doc: "Environment variables of the tasks.", shape: envShape(scopeTask)},
	{name: "secrets", doc: "Variables whose values are not in the file: from the caller's environment, or name: ssm:... / secretsmanager:...", shape: secretsShape},
	{name: "expect", doc: "How long a task takes, for planning.", shape: durationOf()},
	{name: "outputs", doc: "Paths or URIs that must exist after success.", shape: &shape{kind: kindList, one: true, elem: template("a path such as out/result.csv", scopeTask), what: "a path or a list of paths"}},
	{name: "cache", doc: "Skip tasks whose work is already done.", shape: &shape{kind: kindAlt, what: "true, false or {files: [lib/**]}", scalar: boolean(),
		mapping: object(&keySet{name: "cache", keys: []keyDef{
			{name: "files", doc: "Further files that belong to the code.", shape: &shape{kind: kindList, one: true, elem: text("a path or pattern such as lib/**"), what: "a list of paths such as [lib/**]"}},
		}}, "{files: [lib/**]}")}},
	{name: "concurrency", doc: "Tasks at a time, at most.", shape: intFrom(1, "10")},
	{name: "retries", doc: "Repeats failed tasks: a number, or a mapping.", shape: &shape{kind: kindAlt, what: "a whole number such as 3, or a mapping such as {max: 3, delay: 5s}",
		scalar: intFrom(0, "3"), mapping: object(retriesKeys, "a mapping such as {max: 3}")}},
	{name: "timeout", doc: "Ends an attempt after this time: SIGTERM, 10 s, SIGKILL.", shape: durationOf()},
	{name: "max_failures", doc: "So many items (n or %) may fail for good and the function still succeeds.", shape: &shape{kind: kindShare, what: "a whole number such as 5, or a percentage such as 5%"}},
	{name: "on_failure", doc: "What the other items do when one has failed for good. Default continue.", shape: enumOf("continue", "stop")},
	{name: "hardware", doc: "The machines that the tasks run on.", shape: orEmpty(object(hardwareKeys, "a mapping such as {vm_type: m6i.xlarge}"))},
	{name: "software", doc: "What the machines need installed.", shape: softwareShape},
	{name: "files", doc: "Which files travel with the work.", shape: filesShape},
	{name: "description", doc: "What the function is for.", shape: anyText("text")},
}}

var defaultsKeys = functionKeys.without("defaults", "map", "run", "command", "python")

var paramShape = &shape{kind: kindAlt, what: "a default value, or a mapping such as {type: int, default: 3}",
	scalar: &shape{kind: kindValue, literalOnly: true, what: "a default value"},
	mapping: object(&keySet{name: "a parameter", keys: []keyDef{
		{name: "type", doc: "string, int, float or bool. The default value gives it, too.", shape: &shape{kind: kindLiteral, enum: []string{"string", "int", "float", "bool"}, what: "one of string, int, float or bool"}},
		{name: "default", doc: "The value without --param. A parameter without one is required.", shape: &shape{kind: kindValue, literalOnly: true, what: "a value"}},
		{name: "enum", doc: "The values that are allowed.", shape: &shape{kind: kindList, elem: &shape{kind: kindValue, literalOnly: true, what: "a value"}, nonEmpty: true, what: "a list of values such as [a, b]"}},
		{name: "description", doc: "What the parameter is for.", shape: anyText("text")},
	}}, "a mapping such as {type: int, default: 3}")}

var limitsKeys = &keySet{name: "limits", keys: []keyDef{
	{name: "cost", doc: "Dollars that the run may cost, or none. A run on aws that names none stops at 20.", shape: &shape{kind: kindCost, what: "dollars such as 5.00, or none"}},
	{name: "duration", doc: "How long the run may take.", shape: durationOf()},
	{name: "machines", doc: "Machines at a time, at most.", shape: intFrom(1, "100")},
	{name: "vcpus", doc: "Virtual CPUs at a time, at most.", shape: intFrom(1, "400")},
	{name: "unattended", doc: "How long machines go on without a coordinator. Default 15m.", shape: durationOf()},
}}

var scheduleKeys = &keySet{name: "a schedule", keys: []keyDef{
	{name: "cron", doc: "Five fields (minute hour day month weekday), or @hourly, @daily, @weekly, @monthly, @yearly.", required: true, shape: text("five fields such as \"0 2 * * *\"")},
	{name: "timezone", doc: "An IANA time zone. Default UTC.", shape: text("a time zone such as Europe/Berlin")},
	{name: "overlap", doc: "What happens when the last run still goes on. Default skip.", shape: enumOf("skip", "queue", "replace", "allow")},
	{name: "catchup", doc: "Which missed ticks are run later. Default latest.", shape: enumOf("none", "latest", "all")},
	{name: "deadline", doc: "A tick that could not start within this time is missed.", shape: durationOf()},
	{name: "jitter", doc: "Starts up to this much later, at random.", shape: durationOf()},
	{name: "params", doc: "Parameters of scheduled runs.", shape: orEmpty(dictOf(anyText("text"), nameReserved, "a mapping such as {year: 2019}"))},
	{name: "paused", doc: "Ticks do nothing.", shape: boolean()},
}}

var notifyKeys = &keySet{name: "a notification", keys: []keyDef{
	{name: "on", doc: "When to call the webhook. Default failure.", shape: oneOrMore(enumOf("failure", "success", "missed"), "a list of failure, success, missed")},
	{name: "webhook", doc: "The URL that is called, or the name of the secret that holds it.", required: true, shape: template("a URL such as https://example.com/hook", scopeRun)},
	{name: "format", doc: "The body of the call. Default json.", shape: enumOf("slack", "json")},
}}

var scheduleShape = object(scheduleKeys, "a mapping such as {cron: \"0 2 * * *\"}")

// functionShape and topKeys are the whole language.
var functionShape = object(functionKeys, "a mapping such as {run: echo hello}")

var topKeys = &keySet{name: "a pipeline", keys: []keyDef{
	{name: "name", doc: "The name of the pipeline: a-z, 0-9 and -.", required: true, shape: literal("a name such as my-pipeline")},
	{name: "description", doc: "What the pipeline is for.", shape: anyText("text")},
	{name: "cloud", doc: "Where it runs. Default local.", shape: enumOf("local", "aws")},
	{name: "params", doc: "Parameters with their defaults; --param name=value gives others.", shape: orEmpty(dictOf(paramShape, nameIdent, "a mapping such as {year: 2019}"))},
	{name: "env", doc: "Environment variables of all tasks.", shape: envShape(scopeTopEnv)},
	{name: "env_file", doc: "A file with further variables, NAME=value per line.", shape: text("a path such as .env")},
	{name: "secrets", doc: "Secrets of all functions.", shape: secretsShape},
	{name: "limits", doc: "Limits of a run.", shape: orEmpty(object(limitsKeys, "a mapping such as {cost: 5.00}"))},
	{name: "schedule", doc: "When the pipeline runs by itself: one schedule or a list.",
		shape: &shape{kind: kindList, one: true, elem: scheduleShape, what: "a mapping such as {cron: \"0 2 * * *\"} or a list of them"}},
	{name: "notify", doc: "Webhooks that are told how a run ended.", shape: &shape{kind: kindList, null: true, elem: object(notifyKeys, "a mapping such as {on: [failure], webhook: https://...}"),
		what: "a list such as [{on: [failure], webhook: https://...}]"}},
	{name: "retention", doc: "gc removes older runs. Default 30d.", shape: durationOf()},
	{name: "software", doc: "Software of all functions.", shape: softwareShape},
	{name: "files", doc: "Files of all functions.", shape: filesShape},
	{name: "defaults", doc: "Any key of a function but map and what to run, for every function.", shape: orEmpty(object(defaultsKeys, "a mapping such as {retries: 3}"))},
	{name: "functions", doc: "What to run.", required: true, shape: &shape{kind: kindDict, names: nameIdent, nonEmpty: true, elem: functionShape, what: "a mapping of names to functions such as {hello: {run: echo hello}}"}},
}}

// foreignKeys are words of other tools and what they are called here; a dot
// leads into a mapping.
var foreignKeys = map[string]string{
	"depends_on": "needs", "dependson": "needs", "dependencies": "needs", "depends": "needs", "after": "needs", "upstream": "needs", "requires": "needs",
	"steps": "functions", "jobs": "functions", "tasks": "functions", "stages": "functions", "nodes": "functions",
	"script": "run", "cmd": "run", "bash": "run", "sh": "run", "exec": "command", "entrypoint": "command",
	"image": "software.container", "container": "software.container", "docker": "software.container", "docker_image": "software.container",
	"pip": "software.requirements", "packages": "software.apt",
	"instance_type": "hardware.vm_type", "machine_type": "hardware.vm_type", "worker_vm_types": "hardware.vm_type", "vm_types": "hardware.vm_type", "vm": "hardware.vm_type",
	"cpus": "hardware.cpu", "vcpu": "hardware.cpu", "mem": "hardware.memory", "ram": "hardware.memory", "gpus": "hardware.gpu", "worker_memory": "hardware.memory",
	"disk": "hardware.disk_size", "worker_disk_size": "hardware.disk_size", "workers": "hardware.n_workers", "max_workers": "hardware.n_workers", "spot": "hardware.spot_policy", "nthreads": "hardware.threads_per_worker", "threads": "hardware.threads_per_worker",
	"resources": "hardware", "machine": "hardware",
	"retry": "retries", "max_retries": "retries", "attempts": "retries.max", "retry_delay": "retries.delay",
	"time_limit": "timeout", "timeout_minutes": "timeout", "deadline": "timeout", "parallelism": "concurrency", "max_parallel": "concurrency", "max_concurrency": "concurrency", "max_active_runs": "concurrency",
	"environment": "env", "envs": "env", "variables": "env", "environment_variables": "env", "vars": "params", "parameters": "params", "inputs": "params", "arguments": "args",
	"condition": "if", "only_if": "if", "unless": "if", "for_each": "map", "foreach": "map", "with_items": "map.items", "loop": "map.items", "strategy": "map", "each": "map",
	"artifacts": "outputs", "output": "outputs", "produces": "outputs",
	"cron": "schedule.cron", "crontab": "schedule.cron", "tz": "timezone", "budget": "limits.cost", "max_cost": "limits.cost", "cost": "limits.cost",
	"continue_on_error": "max_failures", "allow_failure": "max_failures", "fail_fast": "on_failure",
	"pattern": "glob", "files": "glob", "path": "glob", "paths": "glob", "list": "items", "values": "items", "filter": "where", "count": "range", "batch_size": "batch", "order_by": "sort",
	"product": "matrix", "grid": "matrix", "on_failure": "notify", "notifications": "notify", "webhooks": "notify", "url": "webhook", "events": "on",
	"title": "name", "default_args": "defaults", "provider": "cloud", "backend": "cloud",
	"choices": "enum", "options": "enum", "value": "default", "help": "description", "desc": "description",
	"keep_alive": "keepalive", "lifetime": "max_life", "interpreter": "shell", "kwarg": "kwargs", "max_attempts": "max",
}
